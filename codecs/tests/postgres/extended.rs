//! The extended protocol: names, portals, pipelines, errors that skip to Sync.

use crate::rig::*;
use crate::wire::*;
use lockgate_codecs::Side;
use lockgate_codecs::postgres::ProtocolError;

fn plain() -> Manner {
    Manner { describe: false, ..Manner::default() }
}

fn step(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], &[]), execute("", 0)].concat()
}

/// Bind, Describe, Execute, Sync of a prepared statement, as libpq sends them.
fn run(statement: &str) -> Turn {
    c(&[bind("", statement, &[Some("7")], &[0]), describe(b'P', ""), execute("", 0), sync()])
}

fn results(name: &str) -> Turn {
    t(&[done(b'2'), columns(&[name], 0), row(&[Some("v")]), complete("SELECT 1"), ready(b'I')])
}

fn prepare(name: &str, sql: &str) -> Turn {
    c(&[parse(name, sql), sync()])
}

/// The target's replies to Parse, to our Describe, and to Sync.
fn prepared(column: &str) -> Turn {
    t(&[done(b'1'), parameters(), columns(&[column], 0), ready(b'I')])
}

#[test]
fn a_prepared_statement_runs_with_its_values() {
    let came =
        settled(&[prepare("s", "select mask"), prepared("mask"), run("s"), results("mask"), run("s"), results("mask")]);
    assert_eq!(
        came.target_said(),
        "P(s|select mask) D(Ss) S B(s|\u{1}|\u{1}7|\u{1}) D(P) E() S B(s|\u{1}|\u{1}7|\u{1}) D(P) E() S"
            .replace("B(s|\u{1}|\u{1}7|\u{1})", &said(&bind("", "s", &[Some("7")], &[0])))
    );
    assert_eq!(came.client_said(), "1 ZI 2 T D[***] C(SELECT 1) ZI 2 T D[***] C(SELECT 1) ZI");
    assert!(came.client_log.contains("request Execute { resumed: false } select mask $7\n"));
    assert_eq!(came.outcomes(), ["outcome 2 complete 1 1/7", "outcome 3 complete 1 1/7"]);
}

#[test]
fn rows_are_masked_although_the_client_never_describes() {
    let execute = c(&[bind("", "s", &[], &[1]), execute("", 0), sync()]);
    let came = settled(&[
        prepare("s", "select mask"),
        prepared("mask"),
        execute,
        t(&[done(b'2'), row(&[Some("v")]), complete("SELECT 1"), ready(b'I')]),
    ]);
    assert_eq!(came.client_said(), "1 ZI 2 D[***] C(SELECT 1) ZI", "the client never sees our Describe's reply");
    assert!(
        came.target_log.contains("value Cell { code: 109, column: 0, type_oid: 25, binary: true } v"),
        "format from Bind"
    );
}

#[test]
fn parse_bind_and_execute_in_one_flight_find_their_plan_in_time() {
    let came = settled(&[
        c(&[parse("", "select mask"), bind("", "", &[], &[]), execute("", 0), sync()]),
        t(&[
            done(b'1'),
            parameters(),
            columns(&["mask"], 0),
            done(b'2'),
            row(&[Some("v")]),
            complete("SELECT 1"),
            ready(b'I'),
        ]),
    ]);
    assert_eq!(came.client_said(), "1 2 D[***] C(SELECT 1) ZI");
}

#[test]
fn formats_of_bind_are_none_one_for_all_or_one_each() {
    let names = ["mask", "mask2", "mask3"];
    for (formats, expected) in [(&[][..], [false; 3]), (&[1], [true; 3]), (&[0, 1, 0], [false, true, false])] {
        let came = settled(&[
            c(&[parse("", "q"), bind("", "", &[], formats), execute("", 0), sync()]),
            t(&[
                done(b'1'),
                parameters(),
                columns(&names, 0),
                done(b'2'),
                row(&[Some("a"); 3]),
                complete("SELECT 1"),
                ready(b'I'),
            ]),
        ]);
        for (column, binary) in expected.iter().enumerate() {
            assert!(
                came.target_log.contains(&format!("column: {column}, type_oid: 25, binary: {binary}")),
                "{formats:?}"
            );
        }
    }
}

#[test]
fn a_portal_suspended_by_a_row_limit_is_resumed() {
    let came = settled(&[
        c(&[parse("", "q"), bind("p", "", &[], &[]), execute("p", 1), flush()]),
        t(&[done(b'1'), parameters(), columns(&["mask"], 0), done(b'2'), row(&[Some("a")]), done(b's')]),
        c(&[execute("p", 1), sync()]),
        t(&[row(&[Some("b")]), complete("SELECT 1"), ready(b'I')]),
    ]);
    assert_eq!(came.client_said(), "1 2 D[***] s D[***] C(SELECT 1) ZI");
    assert!(came.client_log.contains("Execute { resumed: false } q\n"));
    assert!(came.client_log.contains("Execute { resumed: true } q\n"));
    assert_eq!(came.outcomes(), ["outcome 2 suspended 1/7", "outcome 3 complete 1 1/7"]);
}

#[test]
fn an_error_skips_to_sync_and_every_skipped_execute_is_told() {
    let step = |sql: &str| all(&[parse("", sql), bind("", "", &[], &[]), execute("", 0)]);
    let manner = Manner { describe: false, ..Manner::default() };
    let came = check_open(
        &manner,
        &[
            c(&[step("one"), step("two"), step("three"), sync(), step("four"), sync()]),
            t(&[done(b'1'), done(b'2'), complete("ONE 1"), done(b'1'), done(b'2'), error("22012", "no"), ready(b'I')]),
            t(&[done(b'1'), done(b'2'), complete("FOUR 4"), ready(b'I')]),
        ],
    );
    assert_eq!((came.error, came.idle), (None, true));
    let expected =
        ["outcome 2 complete 1 0/0", "outcome 4 error 22012 0/0", "outcome 6 skipped 0/0", "outcome 8 complete 4 0/0"];
    assert_eq!(came.outcomes(), expected);
}

/// Rights are checked at Bind, constants folded there: it is the statement that fails, and those behind it are skipped.
#[test]
fn an_error_at_parse_or_bind_is_that_of_the_statement_it_was_for() {
    let flight = || c(&[step("one"), step("two"), sync()]);
    let refused = |replies: &[Vec<u8>]| -> Vec<String> {
        let came = check_open(&plain(), &[flight(), t(&[replies, &[ready(b'I')]].concat())]);
        assert_eq!((came.error, came.idle), (None, true));
        came.outcomes().into_iter().map(String::from).collect()
    };
    let parse_fails = refused(&[error("42601", "syntax")]);
    assert_eq!(parse_fails, ["outcome 2 error 42601 0/0", "outcome 4 skipped 0/0"]);
    let bind_fails = refused(&[done(b'1'), error("42501", "denied")]);
    assert_eq!(bind_fails, ["outcome 2 error 42501 0/0", "outcome 4 skipped 0/0"]);
    let second = [done(b'1'), done(b'2'), complete("ONE 1"), done(b'1'), error("22P02", "no")];
    assert_eq!(refused(&second), ["outcome 2 complete 1 0/0", "outcome 4 error 22P02 0/0"]);
}

#[test]
fn what_comes_after_an_error_and_before_sync_is_dropped_as_the_server_would() {
    let came = settled(&[
        c(&[parse("", "bad"), flush()]),
        t(&[error("42601", "syntax")]),
        c(&[bind("", "", &[], &[]), execute("", 0), query("insert"), copy_data("x"), flush(), sync(), query("after")]),
        t(&[ready(b'I'), complete("X"), ready(b'I')]),
    ]);
    assert_eq!(came.target_said(), "P(bad) D(S) H S Q(after)");
    assert_eq!(came.client_log, "request Parse bad\nrequest Query after\n");
}

#[test]
fn a_request_held_while_the_target_fails_is_skipped_when_it_is_released() {
    for release in [true, false] {
        let came = settled(&[
            c(&[
                parse("", "x"),
                bind("", "", &[], &[]),
                execute("", 0),
                parse("", "HOLD"),
                bind("", "", &[], &[]),
                execute("", 0),
                sync(),
            ]),
            t(&[done(b'1'), parameters(), done(b'n'), done(b'2'), error("22012", "no")]),
            Turn::Release(release),
            t(&[ready(b'I')]),
        ]);
        let mut expected = vec!["outcome 2 error 22012 0/0"];
        expected.extend(release.then_some("outcome 4 skipped 0/0"));
        let mut outcomes = came.outcomes();
        outcomes.sort();
        assert_eq!(outcomes, expected);
        assert!(!came.target_said().ends_with("E() S") || came.target_said().matches("E()").count() == 1);
    }
}

#[test]
fn a_refused_second_parse_leaves_the_old_meaning_of_a_name_in_force() {
    // The target refuses to prepare `s` twice; were the new mark kept, `s` would run as something harmless.
    let came = settled(&[
        prepare("s", "select mask"),
        prepared("mask"),
        prepare("s", "harmless"),
        t(&[error("42P05", "exists"), ready(b'I')]),
        run("s"),
        t(&[done(b'2'), columns(&["mask"], 0), row(&[Some("v")]), complete("SELECT 1"), ready(b'I')]),
    ]);
    assert!(came.client_log.ends_with("request Execute { resumed: false } select mask $7\n"), "{}", came.client_log);
    assert!(came.client_said().ends_with("2 T D[***] C(SELECT 1) ZI"));
}

#[test]
fn a_skipped_parse_and_close_are_taken_back_in_reverse() {
    let came = settled(&[
        prepare("s", "one"),
        prepared("mask"),
        c(&[parse("", "fails"), close(b'S', "s"), parse("s", "two"), close(b'S', "s"), parse("s", "three"), sync()]),
        t(&[error("42601", "syntax"), ready(b'I')]),
        run("s"),
        results("mask"),
    ]);
    assert!(came.client_log.ends_with("Execute { resumed: false } one $7\n"));
}

#[test]
fn closing_and_preparing_again_gives_a_name_its_new_meaning() {
    let came = settled(&[
        prepare("s", "one"),
        prepared("mask"),
        c(&[close(b'S', "s"), parse("s", "two"), sync()]),
        t(&[done(b'3'), done(b'1'), parameters(), columns(&["id"], 0), ready(b'I')]),
        run("s"),
        results("id"),
    ]);
    assert!(came.client_log.ends_with("Execute { resumed: false } two $7\n"));
    assert!(came.client_said().ends_with("D[v] C(SELECT 1) ZI"));
}

#[test]
fn a_portal_keeps_its_statement_when_the_name_changes() {
    let came = settled(&[
        prepare("s", "one"),
        prepared("mask"),
        c(&[bind("p", "s", &[], &[]), close(b'S', "s"), parse("s", "two"), execute("p", 0), sync()]),
        t(&[
            done(b'2'),
            done(b'3'),
            done(b'1'),
            parameters(),
            columns(&["id"], 0),
            row(&[Some("v")]),
            complete("SELECT 1"),
            ready(b'I'),
        ]),
    ]);
    assert!(came.client_log.ends_with("Execute { resumed: false } one\n"));
    assert!(came.client_said().ends_with("D[***] C(SELECT 1) ZI"));
}

#[test]
fn names_nobody_saw_are_forwarded_and_marked_unknown() {
    let came = settled(&[run("ghost"), results("mask")]);
    assert!(came.client_log.contains("Execute { resumed: false } ? $7"));
    assert!(came.client_said().ends_with("T D[***] C(SELECT 1) ZI"), "described, so planned");
    let came = settled(&[
        c(&[describe(b'S', "ghost"), execute("cursor", 0), sync()]),
        t(&[parameters(), columns(&["mask"], 0), row(&[Some("v")]), complete("SELECT 1"), ready(b'I')]),
    ]);
    assert!(came.client_log.contains("Execute { resumed: false } ?"));
}

#[test]
fn a_simple_query_destroys_the_unnamed_statement_unless_it_is_skipped() {
    let came = settled(&[
        prepare("", "one"),
        prepared("mask"),
        c(&[query("x")]),
        t(&[complete("X"), ready(b'I')]),
        run(""),
        t(&[error("26000", "no unnamed"), ready(b'I')]),
    ]);
    assert!(came.client_log.ends_with("Execute { resumed: false } ? $7\n"));
    let manner = Manner { describe: false, ..Manner::default() };
    let came = check_open(
        &manner,
        &[
            prepare("", "one"),
            t(&[done(b'1'), ready(b'I')]),
            c(&[bind("", "ghost", &[], &[]), query("skipped"), sync()]),
            t(&[error("26000", "no ghost"), ready(b'I')]),
            run(""),
            results("id"),
        ],
    );
    assert!(came.client_log.ends_with("Execute { resumed: false } one $7\n"));
    assert!(came.outcomes().contains(&"outcome 2 skipped 0/0"));
}

#[test]
fn rows_of_a_statement_described_as_having_none_do_not_pass() {
    let came = check_open(
        &Manner::default(),
        &[
            c(&[parse("", "fetch all from c"), bind("", "", &[], &[]), execute("", 0), sync()]),
            t(&[done(b'1'), parameters(), done(b'n'), done(b'2'), row(&[Some("v")])]),
        ],
    );
    assert_eq!(came.error, Some(ProtocolError::RowWithoutShape));
}

#[test]
fn an_error_at_sync_is_a_failed_commit() {
    let came = check_open(
        &Manner { describe: false, ..Manner::default() },
        &[
            c(&[parse("", "x"), bind("", "", &[], &[]), execute("", 0), sync()]),
            t(&[done(b'1'), done(b'2'), complete("INSERT 0 1"), error("23503", "deferred"), ready(b'I')]),
        ],
    );
    assert_eq!((came.error, came.idle), (None, true));
    assert_eq!(came.outcomes(), ["outcome 2 error 23503 0/0"]);
}

#[test]
fn counts_in_requests_are_checked_against_their_length() {
    let fails = |kind: u8, body: &[u8]| {
        let came = check_open(&Manner::default(), &[c(&[message(kind, body)])]);
        assert_eq!(
            came.error,
            Some(ProtocolError::Malformed { side: Side::Client, kind }),
            "{} {body:?}",
            kind as char
        );
        assert!(came.to_target.is_empty());
    };
    for body in [
        &b"\0\0"[..],
        b"\0\0\0\0",
        b"\0\0\0\0\0\x01\0\0",
        b"\0\0\0\0\xff\xff\0\0",
        b"\0\0\0\0\0\x01\0\0\0\x09x\0\0",
        b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0",
        b"\0\0\0\x02\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\0x",
    ] {
        fails(b'B', body);
    }
    for body in [&b"s\0select\0"[..], b"s\0select\0\0\x01", b"s\0select", b"s\0select\0\0\0x", b""] {
        fails(b'P', body);
    }
    for body in [&b"S"[..], b"", b"Xname\0", b"Sname", b"Sname\0x"] {
        fails(b'D', body);
        fails(b'C', body);
    }
    for body in [&b"p\0"[..], b"p\0\0\0\0", b"p\0\0\0\0\0x", b""] {
        fails(b'E', body);
    }
    fails(b'F', b"\0");
    fails(b'S', b"x");
    fails(b'X', b"x");
}

#[test]
fn replies_that_answer_something_else_are_refused() {
    for (sent, reply) in [
        (parse("", "x"), done(b'2')),
        (bind("", "", &[], &[]), done(b'1')),
        (close(b'S', "s"), done(b'2')),
        (describe(b'P', ""), parameters()),
        (execute("", 0), columns(&["a"], 0)),
        (sync(), complete("X")),
        (parse("", "x"), ready(b'I')),
    ] {
        let came = check_open(&Manner::default(), &[c(&[sent]), t(std::slice::from_ref(&reply))]);
        assert_eq!(came.error, Some(ProtocolError::UnexpectedMessage { side: Side::Target, kind: reply[0] }));
    }
}

#[test]
fn values_of_bind_are_read_with_their_formats() {
    let body = [
        text(""),
        text(""),
        vec![0, 2, 0, 0, 0, 1, 0, 3],
        vec![0, 0, 0, 1, b'a'],
        vec![0, 0, 0, 1, b'b'],
        vec![255; 4],
        vec![0, 0],
    ]
    .concat();
    let turns = [c(&[message(b'B', &body), execute("", 0), sync()])];
    assert!(check_open(&Manner::default(), &turns).client_log.ends_with("? $a $bb $NULL\n"));
}

#[test]
fn a_portal_whose_columns_may_change_is_described_before_each_run() {
    let manner = Manner { describe_portals: true, ..Manner::default() };
    let run = c(&[bind("", "f", &[], &[1]), execute("", 0), sync()]);
    let results =
        |name: &str| t(&[done(b'2'), columns(&[name], 1), row(&[Some("v")]), complete("FETCH 1"), ready(b'I')]);
    let came = check_open(
        &manner,
        &[prepare("f", "fetch all from c"), prepared("id"), run.clone(), results("id"), run, results("mask")],
    );
    assert_eq!((came.error, came.idle), (None, true));
    assert_eq!(came.client_said(), "1 ZI 2 D[v] C(FETCH 1) ZI 2 D[***] C(FETCH 1) ZI");
    assert_eq!(came.target_said().matches("D(P) E()").count(), 2);
    let cursor = c(&[execute("cursor", 0), sync()]);
    let came = check_open(
        &manner,
        &[cursor, t(&[columns(&["mask"], 0), row(&[Some("v")]), complete("FETCH 1"), ready(b'I')])],
    );
    assert_eq!(came.client_said(), "D[***] C(FETCH 1) ZI", "a cursor nobody saw bound");
}

fn simple(sql: &str, reply: &[Vec<u8>]) -> [Turn; 2] {
    [c(&[query(sql)]), t(&[reply.concat(), ready(b'I')])]
}

/// What `EXECUTE p` is taken for after some statements.
fn stands_for(turns: &[[Turn; 2]]) -> String {
    let mut turns = turns.concat();
    turns.extend(simple("EXECUTE p", &[complete("SELECT 0")]));
    let came = settled(&turns);
    came.client_log.lines().last().expect("something was asked").replace("request Query ", "")
}

#[test]
fn names_given_by_sql_are_taken_back_when_that_fails() {
    let (ok, failed) = ([complete("PREPARE")], [error("42601", "no")]);
    assert_eq!(stands_for(&[simple("PREPARE p one", &ok)]), "PREPARE p one");
    assert_eq!(stands_for(&[simple("PREPARE p one", &failed)]), "unknown");
    assert_eq!(stands_for(&[simple("PREPARE p one", &failed), simple("PREPARE p two", &ok)]), "PREPARE p two");
    assert_eq!(stands_for(&[simple("PREPARE p one", &ok), simple("PREPARE p two", &failed)]), "PREPARE p one");
    assert_eq!(stands_for(&[simple("PREPARE p one", &ok), simple("DEALLOCATE p", &ok)]), "unknown");
    assert_eq!(stands_for(&[simple("PREPARE p one", &ok), simple("DEALLOCATE p", &failed)]), "PREPARE p one");
    assert_eq!(stands_for(&[simple("PREPARE p one", &ok), simple("DEALLOCATE ALL", &ok)]), "unknown");
}

#[test]
fn a_name_given_by_a_half_failed_query_is_unknown_and_stays_so() {
    let half = simple("PREPARE p evil; fail", &[complete("PREPARE"), error("22012", "no")]);
    let again = simple("PREPARE p harmless", &[error("42P05", "exists")]);
    assert_eq!(stands_for(std::slice::from_ref(&half)), "unknown");
    assert_eq!(stands_for(&[half, again]), "unknown");
}

/// What the client sends in one flight, and in what pieces it may reach the target: as far as the target's answers to the piece before.
fn reaches(flight: &[Vec<u8>], answers: &[(&str, Turn)]) {
    let turns: Vec<Turn> = std::iter::once(c(flight)).chain(answers.iter().map(|(_, answer)| answer.clone())).collect();
    for answered in 0..=answers.len() {
        let came = check_open(&plain(), &turns[..=answered]);
        assert_eq!(came.error, None, "after {answered} answers");
        let due: Vec<&str> = answers[..(answered + 1).min(answers.len())].iter().map(|(reached, _)| *reached).collect();
        assert_eq!(came.target_said(), due.join(" ").trim_end(), "after {answered} answers");
    }
}

#[test]
fn a_name_given_in_front_of_a_sync_counts_when_the_target_has_answered() {
    let taken = || error("42P05", "it exists");
    let ran = |name: &str| t(&[done(b'2'), complete(name), ready(b'I')]);
    let bound = || said(&bind("", "s", &[], &[]));
    let use_it = || [bind("", "s", &[], &[]), execute("", 0), sync()];
    // A Parse that is refused, and one that is skipped: the older meaning is in force, and asked about.
    let first = [parse("s", "DENYRUN one"), sync(), parse("s", "two"), sync()];
    let came = check_open(
        &plain(),
        &[
            c(&[&first[..], &use_it()].concat()),
            t(&[done(b'1'), ready(b'I'), taken(), ready(b'I')]),
            t(&[done(b'2'), ready(b'I')]),
        ],
    );
    assert_eq!((came.error, came.idle), (None, true));
    assert!(came.client_log.ends_with("Execute { resumed: false } DENYRUN one\n"), "{}", came.client_log);
    let second = [bind("", "ghost", &[], &[]), close(b'S', "s"), parse("s", "two"), sync()];
    let came = check_open(
        &plain(),
        &[
            prepare("s", "DENYRUN one"),
            t(&[done(b'1'), ready(b'I')]),
            c(&[&second[..], &use_it()].concat()),
            t(&[error("26000", "no ghost"), ready(b'I')]),
            t(&[done(b'2'), ready(b'I')]),
        ],
    );
    assert!(came.client_log.ends_with("Execute { resumed: false } DENYRUN one\n"), "{}", came.client_log);
    // Within one segment nothing waits: whatever is behind a refused Parse is skipped.
    let flight = [&[parse("s", "two")][..], &use_it()].concat();
    reaches(
        &flight,
        &[(&format!("P(s|two) {} E() S", bound()), t(&[done(b'1'), done(b'2'), complete("A"), ready(b'I')]))],
    );
    // Nor does what was named and answered before, in however many segments.
    let came = check_open(
        &plain(),
        &[
            prepare("s", "one"),
            t(&[done(b'1'), ready(b'I')]),
            c(&[&use_it()[..], &use_it(), &use_it()].concat()),
            ran("A"),
            ran("A"),
            ran("A"),
        ],
    );
    assert!(came.idle);
    let flight = [&[parse("s", "one"), sync()][..], &use_it()].concat();
    reaches(&flight, &[("P(s|one) S", t(&[done(b'1'), ready(b'I')])), (&format!("{} E() S", bound()), ran("A"))]);
}

#[test]
fn a_portal_bound_in_front_of_a_sync_counts_when_the_target_has_answered() {
    let flight = [bind("p", "s", &[], &[]), sync(), execute("p", 0), sync()];
    let answers = [t(&[done(b'2'), ready(b'T')]), t(&[complete("A"), ready(b'T')])];
    let came = check_open(&plain(), &[&[c(&flight)][..], &answers].concat());
    assert_eq!((came.error, came.target_said().matches("E(p)").count()), (None, 1));
    let held = check_open(&plain(), &[c(&flight)]);
    assert!(!held.target_said().contains("E(p)"), "{}", held.target_said());
    // A refused Bind of a name leaves the portal that has it, and not over one that was bound meanwhile.
    let setup = [
        c(&[query("begin"), parse("a", "DENYRUN a"), parse("b", "b"), bind("p", "a", &[], &[]), sync()]),
        t(&[complete("BEGIN"), ready(b'T')]),
        t(&[done(b'1'), done(b'1'), done(b'2'), ready(b'T')]),
    ];
    let refused =
        [c(&[bind("p", "b", &[], &[]), sync(), execute("p", 0), sync()]), t(&[error("42P03", "p"), ready(b'E')])];
    let came = check_open(&plain(), &[&setup[..], &refused].concat());
    assert!(came.client_log.ends_with("Execute { resumed: false } DENYRUN a\n"), "{}", came.client_log);
    let meanwhile = [
        c(&[bind("p", "b", &[], &[]), sync(), close(b'P', "p"), bind("p", "a", &[], &[])]),
        t(&[error("42P03", "p"), ready(b'E')]),
        c(&[execute("p", 0), sync()]),
    ];
    let came = check_open(&plain(), &[&setup[..], &meanwhile].concat());
    assert!(came.client_log.ends_with("Execute { resumed: false } DENYRUN a\n"), "{}", came.client_log);
}

#[test]
fn a_text_that_hangs_on_settings_waits_for_what_may_change_them() {
    let settled = t(&[complete("SET"), ready(b'I')]);
    for text in ["select '\\'' ; drop; --'", "do ' /* \\x2a/ drop; -- */ '", "select 'h\u{e9}'"] {
        let flight = [query("set"), query(text)];
        reaches(&flight, &[("Q(set)", settled.clone()), (&format!("Q({text})"), t(&[complete("A"), ready(b'I')]))]);
        // In the same pipeline no answer would tell: whoever decides is told that it is in doubt.
        let came = check_open(&plain(), &[c(&[step("set"), parse("", text)])]);
        assert!(came.client_log.ends_with(&format!("Parse {text} in doubt\n")), "{}", came.client_log);
    }
    let came = check_open(&plain(), &[c(&[query("set"), query("select '[0-9]+'")])]);
    assert!(came.target_said().ends_with("Q(select '[0-9]+')"), "every setting reads it alike");
}
