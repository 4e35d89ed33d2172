//! Texts without measure and without sense: no stack overflows, nothing takes for ever, nothing panics.

use super::*;

/// Runs `analyse` on a thread with half the stack that a spawned thread has by default.
fn on_a_small_stack(text: String) -> Analysis {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(move || analyse(text.as_bytes(), true));
    thread.expect("a thread").join().expect("no panic")
}

/// Ways to nest: what opens, what stands inside, what closes.
const NESTS: [(&str, &str, &str); 16] = [
    ("", "1", " + 1"),
    ("", "1", "::int"),
    ("", "1", " UNION SELECT 1"),
    ("", "1 FROM t", " JOIN t USING (a)"),
    ("NOT ", "true", ""),
    ("@ ", "1", ""),
    ("(SELECT ", "1", ")"),
    ("(WITH a AS (SELECT 1) SELECT ", "1", ")"),
    ("CASE WHEN true THEN ", "1", " END"),
    ("CASE WHEN t.end AND ", "1", " THEN 1 END"),
    ("f(", "1", ")"),
    ("ARRAY[", "1", "]"),
    ("json_object('a': ", "1", ")"),
    ("EXISTS (SELECT 1 WHERE ", "true", ")"),
    ("a IN (SELECT ", "true", ")"),
    ("(1, ", "1", ")"),
];

#[test]
fn nesting_without_bound_is_refused_and_overflows_no_stack() {
    for (open, inside, close) in NESTS {
        for levels in [60, 300, 1_000, 1_900, 3_900, 7_900, 100_000] {
            let text = format!("SELECT {}{inside}{}", open.repeat(levels), close.repeat(levels));
            let statement = on_a_small_stack(text).statements.swap_remove(0);
            let refused = statement.classes.contains(Class::Unparsed);
            // Between the two it depends on the stack that PostgreSQL's own check leaves.
            match levels {
                60 => assert!(!refused, "{open}{close}"),
                100_000 => assert!(refused, "{open}{close}"),
                _ => {}
            }
        }
    }
}

#[test]
fn bodies_that_nest_without_bound_count_as_dynamic() {
    let deep = 20_000;
    for text in [
        format!("DO $$ BEGIN {} {} END $$", "IF true THEN ".repeat(deep), "END IF; ".repeat(deep)),
        format!("DO $$ {} NULL; {} $$", "BEGIN ".repeat(deep), "END; ".repeat(deep)),
        format!("DO $$ BEGIN x := {}1{}; END $$", "(".repeat(deep), ")".repeat(deep)),
        format!(
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT {}1{} $$",
            "f(".repeat(deep),
            ")".repeat(deep)
        ),
    ] {
        let statement = on_a_small_stack(text).statements.swap_remove(0);
        assert!(statement.opaque && reader::DYNAMIC.iter().all(|class| statement.classes.contains(*class)));
    }
}

#[test]
fn texts_in_texts_are_followed_to_a_bound() {
    let mut text = "DROP TABLE t".to_owned();
    for level in 1..=6 {
        text = format!("DO '{}'", format!("BEGIN EXECUTE '{}'; END", text.replace('\'', "''")).replace('\'', "''"));
        let statement = on_a_small_stack(text.clone()).statements.swap_remove(0);
        assert!(statement.classes.contains(Class::Drop), "{level}");
        assert_eq!(statement.opaque, level * 2 > 2 * usize::from(reader::NESTED_TEXTS_MAX), "{level}");
    }
}

#[test]
fn long_texts_are_read() {
    for (text, class) in [
        (format!("DELETE FROM t WHERE a = 1{}", " AND b = 2".repeat(20_000)), Class::Delete),
        (format!("DELETE FROM t WHERE a = 1{}", " OR b = 2".repeat(20_000)), Class::Delete),
        (format!("DELETE FROM t WHERE a IN (1{})", ", 2".repeat(100_000)), Class::Delete),
        (format!("INSERT INTO t VALUES (1){}", ", (2, 'x')".repeat(40_000)), Class::Insert),
        (format!("INSERT INTO t VALUES ('{}')", "x".repeat(16 << 20)), Class::Insert),
        (format!("INSERT INTO t VALUES ('{}')", "x, ; ".repeat(1 << 20)), Class::Insert),
        (format!("DROP TABLE t{}", ", u".repeat(50_000)), Class::Drop),
        (format!("SELECT 'a'{}", " || 'b'".repeat(1_000)), Class::Select),
        (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(1_000)), Class::Select),
        (format!("SELECT * FROM t{}", " JOIN t USING (a)".repeat(1_000)), Class::Select),
    ] {
        let statement = on_a_small_stack(text).statements.swap_remove(0);
        assert_eq!(statement.classes, class.into());
        assert!(!statement.missing_where);
    }
    assert_eq!(on_a_small_stack("SELECT 1; ".repeat(50_000)).statements.len(), 50_000);
}

#[test]
fn texts_of_too_many_tokens_are_refused() {
    let many = tokens::TOKENS_MAX / 2 + 10;
    let refused = |text: String| on_a_small_stack(text).statements[0].classes;
    assert_eq!(refused(format!("SELECT a IN (1{})", ",1".repeat(many))), Class::Unparsed.into());
    assert_eq!(refused(";".repeat(32 << 20)), Class::Unparsed.into());
    let long = format!("SELECT a IN (1{})", ",1".repeat(many));
    assert!(on_a_small_stack(long.clone()).statements[0].too_much, "for whoever asks why");
    assert!(!on_a_small_stack("SELEC 1".into()).statements[0].too_much);
    let read = read(long.as_bytes());
    assert!(read.analysis.statements[0].too_much && read.otherwise.is_none());
    assert!(refused(format!("DO $$ BEGIN {} END $$", "NULL;".repeat(many))).contains(Class::Truncate));
}

#[test]
fn a_condition_of_many_parts_is_folded_in_reasonable_time() {
    for text in [
        format!("DELETE FROM t WHERE {}true{}", "(true AND false) OR (a AND ".repeat(300), ")".repeat(300)),
        format!("DELETE FROM t WHERE {}1{}", "(CASE ".repeat(60), " WHEN 1 THEN 1 WHEN 2 THEN 2 END)".repeat(60)),
        format!("DELETE FROM t WHERE {}1{}", "(".repeat(300), " BETWEEN 0 AND 2)".repeat(300)),
        format!("DELETE FROM t WHERE {}1{}", "(".repeat(300), " IN (1, 2))".repeat(300)),
    ] {
        assert!(on_a_small_stack(text).statements[0].classes.contains(Class::Delete));
    }
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn fragment() -> impl Strategy<Value = String> {
        let words = "SELECT * FROM t WHERE a = 1 , ( ) [ ] ; DELETE UPDATE SET INSERT INTO VALUES WITH x AS DROP TABLE CREATE \
            FUNCTION DO $$ $x$ ' \" \\ E' U&\" UESCAPE BEGIN END CASE WHEN THEN ELSE UNION JOIN ON EXECUTE LANGUAGE sql plpgsql \
            COPY TO STDOUT PROGRAM EXPLAIN ANALYZE PREPARE ALTER GRANT MERGE USING MATCHED /* */ -- :: || NOT NULL RETURNS void";
        let words: Vec<&'static str> = words.split_whitespace().collect();
        proptest::collection::vec(proptest::sample::select(words), 0..25).prop_map(|words| words.join(" "))
    }

    proptest! {
        #[test]
        fn analysis_of_any_text_ends_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), conforming in any::<bool>()) {
            analyse(&bytes, conforming);
        }

        #[test]
        fn analysis_of_sql_fragments_ends_without_panic(text in fragment()) {
            for statement in analyse(text.as_bytes(), true).statements {
                prop_assert!(!statement.classes.is_empty());
            }
        }

        /// Cuts a body at any place and puts it together with another.
        #[test]
        fn analysis_of_broken_bodies_ends_without_panic(cut in 0usize..200, other in fragment()) {
            let body = "DECLARE r record; x int := 1; BEGIN FOR r IN SELECT * FROM t LOOP EXECUTE 'DELETE FROM u WHERE a = $1' \
                USING r.a; END LOOP; IF x > 1 THEN RETURN; ELSE PERFORM f(x); END IF; END";
            let broken = format!("{}{other}", body.get(..cut).unwrap_or(body));
            analyse(format!("DO $body$ {broken} $body$").as_bytes(), true);
            analyse(format!("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $body$ {broken} $body$").as_bytes(), true);
        }
    }
}

/// Feeds broken statements to the parsers, which are C. Run with `--ignored`.
#[test]
#[ignore = "a soak"]
fn mutated_statements_end_without_a_crash() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let own: &'static str = concat!(
        include_str!("mod.rs"),
        include_str!("bodies.rs"),
        include_str!("conditions.rs"),
        include_str!("bounds.rs")
    );
    let quoted = |line: &'static str| line.trim().trim_start_matches('(').strip_prefix('"')?.split("\",").next();
    let seeds: Vec<&str> = own.lines().filter_map(quoted).collect();
    assert!(seeds.len() > 200);
    for _ in 0..2_000_000 {
        let mut text = seeds[random(seeds.len())].replace("\\'", "'").into_bytes();
        for _ in 0..=random(4) {
            let (at, other) = (random(text.len() + 1), seeds[random(seeds.len())].as_bytes());
            match random(4) {
                0 => text.truncate(at),
                1 if at < text.len() => text[at] = b" ();'$\"\\abc=,"[random(13)],
                2 => drop(text.splice(at..at, other[..random(other.len())].iter().copied())),
                _ => drop(text.drain(at..text.len().min(at + random(8)))),
            }
        }
        analyse(&text, true);
    }
}
