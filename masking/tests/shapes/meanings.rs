//! What is remembered by shape is true of every text of that shape: constants in many statements are exchanged at random, and
//! each text is read by itself.

use crate::damage::Random;
use lockgate_masking::sql::{read, shape};
use std::collections::HashMap;

/// `'?'` stands for a string constant, `0` for an integer, `0.0` for another number: any of the same kind is put in.
/// First those that must be remembered, then those whose meaning does hang on a constant.
const REMEMBERED: &[&str] = &[
    "SELECT abalance FROM pgbench_accounts WHERE aid = 0",
    "UPDATE pgbench_accounts SET abalance = abalance + -0 WHERE aid = 0",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (0, 0, 0, -0, CURRENT_TIMESTAMP)",
    "SELECT * FROM a JOIN b ON a.x = b.x AND b.k = '?' WHERE a.t LIKE '?' AND a.n IN (0, 0, 0.0) LIMIT 0 OFFSET 0",
    "SELECT lower(x), coalesce(y, '?'), CASE WHEN z > 0 THEN '?' ELSE '?' END FROM t WHERE d >= '?'::date",
    "DELETE FROM t WHERE id = 0 AND '?' = '?'",
    "DELETE FROM t WHERE id IN (0, 0) OR name = '?'",
    "UPDATE t SET a = '?', b = 0.0 WHERE 0 = 0 AND id BETWEEN 0 AND 0",
    "UPDATE t SET a = '?' WHERE id = '?'::uuid RETURNING id, '?'",
    "UPDATE t SET a = 0",
    "UPDATE t SET a = '?' WHERE a = a",
    "WITH gone AS (DELETE FROM t WHERE id = 0 RETURNING *) INSERT INTO log SELECT '?', * FROM gone WHERE x <> '?'",
    "INSERT INTO t VALUES (0, '?') ON CONFLICT (id) DO UPDATE SET n = t.n + 0, s = excluded.s || '?'",
    "SELECT x FROM t WHERE y = 0 UNION SELECT '?' EXCEPT SELECT z FROM u WHERE w = '?'",
    "SELECT count(*) FROM (SELECT 0 FROM t WHERE a = '?' GROUP BY b HAVING count(*) > 0) q",
    "SELECT * FROM generate_series(0, 0) g WHERE g % 0 = 0; SELECT '?'",
    "SELECT interval '?', date '?', timestamp '?' - now(), -0.0, - 0",
];

const DEPENDENT: &[&str] = &[
    "UPDATE t SET a = 0 WHERE 0 = 0",
    "DELETE FROM t WHERE '?'",
    "DELETE FROM t WHERE '?' = '?'",
    "DELETE FROM t WHERE name LIKE '?'",
    "DELETE FROM t WHERE id = 0 OR 0 = 0",
    "DELETE FROM t WHERE NOT (0 > 0)",
    "DELETE FROM t WHERE 0 IN (0, 0)",
    "DELETE FROM t WHERE coalesce('?', '?') = '?'",
    "DELETE FROM t WHERE lower('?') = lower('?')",
    "DELETE FROM t WHERE (SELECT 0 = 0)",
    "DELETE FROM t WHERE CASE WHEN 0 = 0 THEN true ELSE id = 0 END",
    "DELETE FROM t WHERE 0 BETWEEN 0 AND 0",
    "WITH x AS (DELETE FROM t WHERE 0 < 0) SELECT 0",
    "SELECT set_config('?', '?', true)",
    "SELECT query_to_xml('?', true, true, '?')",
    "SELECT table_to_xml('?', true, true, '?')",
    "SELECT * FROM ts_stat('?')",
    "SELECT * FROM dblink('?', '?') AS d(x int)",
    "SELECT nextval('?'), currval('?'), '?'::regclass, to_regclass('?'), regclass '?', CAST('?' AS regproc)",
    "SELECT has_table_privilege('?', '?'), pg_read_file('?'), lo_export(0, '?')",
    "SELECT x FROM t ORDER BY 0",
    "SELECT x FROM t GROUP BY 0",
    "SELECT lower(a), b, count(*) FROM t GROUP BY 0, 0",
    "SELECT DISTINCT ON (0) x FROM t",
    "SELECT x::float(10), y::varchar(10), z::int[10] FROM t",
    "DO '?'",
    "PREPARE p AS SELECT * FROM t WHERE x = '?'",
    "EXECUTE p(0, '?')",
    "NOTIFY c, '?'",
    "SET search_path = '?'",
    "SET application_name TO '?'",
    "COPY t TO '?'",
    "COPY t FROM STDIN DELIMITER '?'",
    "EXPLAIN SELECT * FROM t WHERE x = '?'",
    "CREATE TABLE c AS SELECT '?' AS x",
    "SELECT * FROM t TABLESAMPLE bernoulli(10)",
    "SELECT * FROM json_table('?', '?' COLUMNS (x int PATH '?'))",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS '?'",
    "MERGE INTO t USING s ON t.id = 0 WHEN MATCHED THEN DELETE",
    "CALL p('?')",
    "DECLARE c CURSOR FOR SELECT '?'",
    "LISTEN c; SELECT '?'",
    "SELECT my_own('?')",
    "SELECT '?'::my_own",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "t",
    "true",
    "f",
    "%",
    "%%",
    "_",
    "1",
    "0",
    "x",
    "public.customers",
    "select * from secret",
    "search_path",
    "role",
    "DELETE FROM t",
    "{a,b}",
    "it''s",
    "2024-01-01",
    "pg_settings",
    "billing, public",
    "grün",
    "--",
    "/*",
    "$1",
    "\\",
];
const INTEGERS: &[&str] = &["0", "1", "2", "3", "17", "10", "2147483647", "0x1F", "1_000"];
const NUMBERS: &[&str] = &["0.0", "1.0", ".5", "1e3", "2147483648", "17.", "99999999999999999999999"];
const BLANKS: &[&str] = &[" ", "  ", "\n", "\t", " /* why */ ", " -- because\n"];

/// Exchanges each constant and blank of a template.
fn fill(template: &str, random: &mut Random) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(next) = rest.chars().next() {
        let (taken, put) = if rest.starts_with("'?'") {
            let content = random.pick(TEXTS);
            let quoted = match random.below(8) {
                0 if !content.contains("''") => format!("$q${content}$q$"),
                1 if !content.contains('\\') => format!("E'{content}'"),
                _ => format!("'{content}'"),
            };
            (3, quoted)
        } else if rest.starts_with("0.0") {
            (3, random.pick(NUMBERS).to_owned())
        } else if rest.starts_with("10)") || rest.starts_with("10]") {
            (2, random.pick(&["1", "2", "3", "10"]).to_owned())
        } else if next == '0' {
            (1, random.pick(INTEGERS).to_owned())
        } else if next == ' ' {
            (1, if random.below(4) == 0 { random.pick(BLANKS) } else { " " }.to_owned())
        } else {
            let cased = if random.below(8) == 0 { next.to_ascii_uppercase() } else { next };
            (next.len_utf8(), cased.to_string())
        };
        text += &put;
        rest = &rest[taken..];
    }
    text
}

/// By shape: the first text that was to be remembered, and what it does.
type Remembered = HashMap<Vec<u8>, (String, String)>;

/// Reads a text by itself and holds it to what was remembered of its shape. Answers whether it is remembered.
fn hold(text: &str, remembered: &mut Remembered) -> bool {
    let reading = read(text.as_bytes());
    let does = format!("{:?}", reading.analysis);
    let mut room = [0; 4096];
    let Some(shape) = shape(text.as_bytes(), &mut room) else {
        return reading.by_shape;
    };
    if let Some((first, known)) = remembered.get(shape) {
        assert_eq!(&does, known, "{text:?} has the shape of {first:?}, which was remembered");
    } else if reading.by_shape {
        remembered.insert(shape.to_vec(), (text.to_owned(), does));
    }
    reading.by_shape
}

#[test]
fn what_is_remembered_by_shape_is_true_of_every_text_of_that_shape() {
    let mut random = Random::new(7);
    let mut remembered = Remembered::new();
    for template in REMEMBERED.iter().chain(DEPENDENT) {
        for _ in 0..150 {
            hold(&fill(template, &mut random), &mut remembered);
        }
    }
}

#[test]
fn plain_statements_are_remembered() {
    let mut random = Random::new(11);
    for template in REMEMBERED {
        for _ in 0..20 {
            let text = fill(template, &mut random);
            // A backslash before a quote: what the text says hangs on a setting.
            assert!(read(text.as_bytes()).by_shape || text.contains("\\'"), "{text}");
        }
    }
}

#[test]
fn statements_that_hang_on_a_constant_are_not() {
    let mut random = Random::new(13);
    for template in DEPENDENT {
        for _ in 0..20 {
            let text = fill(template, &mut random);
            assert!(!read(text.as_bytes()).by_shape, "{text}");
        }
    }
}
