//! The table of truth: a statement, its classes, its tables (`!`: written), and what else is true of it
//! (`all`: missing_where; `stores`, `opaque`, `file`). Statements of one text are separated by ` ;; ` in the expectations.

use super::*;

mod bodies;
mod bounds;
mod conditions;

type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

fn flags(statement: &Statement) -> String {
    let named = [
        (statement.missing_where, "all"),
        (statement.stores, "stores"),
        (statement.opaque, "opaque"),
        (statement.copy_file, "file"),
    ];
    named.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

fn tables(statement: &Statement) -> String {
    let one = |table: &Table| {
        let schema = table.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        format!("{schema}{}{}", table.name, if table.written { "!" } else { "" })
    };
    statement.tables.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn classes(statement: &Statement) -> String {
    statement.classes.iter().map(Class::name).collect::<Vec<_>>().join(" ")
}

/// Every wrong case is printed before the test fails.
#[track_caller]
fn check(cases: &[Case<'_>]) {
    let mut wrong = 0;
    for (text, want_classes, want_tables, want_flags) in cases {
        let analysis = analyse(text.as_bytes(), true);
        let each = |f: fn(&Statement) -> String| analysis.statements.iter().map(f).collect::<Vec<_>>().join(" ;; ");
        let got = (each(classes), each(tables), each(flags));
        let want = (want_classes.to_string(), want_tables.to_string(), want_flags.to_string());
        if got != want {
            wrong += 1;
            eprintln!("{text}\n   want {want:?}\n    got {got:?}");
        }
    }
    assert_eq!(wrong, 0, "cases of {}", cases.len());
}

/// All that a text could be that cannot be seen.
const DYN: &str =
    "select insert update delete merge truncate create alter drop grant revoke copy_in copy_out copy_program";

fn dynamic(extra: &[Class]) -> String {
    let mut all: Classes = reader::DYNAMIC.into_iter().collect();
    all.extend(extra.iter().copied());
    all.iter().map(Class::name).collect::<Vec<_>>().join(" ")
}

#[test]
fn plain_statements_are_what_they_say() {
    check(&[
        ("SELECT 1", "select", "", ""),
        ("SELECT * FROM customers", "select", "customers", ""),
        ("TABLE customers", "select", "customers", ""),
        ("SELECT * FROM ONLY customers", "select", "customers", ""),
        ("SELECT * FROM customers *", "select", "customers", ""),
        ("VALUES (1), (2)", "select", "", ""),
        ("SELECT * FROM Public.Customers AS c", "select", "public.customers", ""),
        ("SELECT * FROM \"Customers\"", "select", "Customers", ""),
        ("SELECT * FROM \"public\".\"Odd Name\"", "select", "public.Odd Name", ""),
        ("SELECT * FROM shop.public.customers", "select", "public.customers", ""),
        ("SELECT * FROM a, b JOIN c ON true LEFT JOIN d USING (id)", "select", "a b c d", ""),
        ("SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.x = a.x) q", "select", "a b", ""),
        ("SELECT (SELECT max(x) FROM b) FROM a WHERE EXISTS (SELECT 1 FROM c)", "select", "a b c", ""),
        ("SELECT * FROM a WHERE x IN (SELECT y FROM b) ORDER BY (SELECT z FROM c)", "select", "a b c", ""),
        ("SELECT x FROM a UNION ALL SELECT y FROM b EXCEPT (SELECT z FROM c)", "select", "a b c", ""),
        ("SELECT * FROM a FOR UPDATE", "select", "a", ""),
        ("SELECT * FROM a GROUP BY ROLLUP ((SELECT x FROM b)) HAVING (SELECT true FROM c)", "select", "a b c", ""),
        ("SELECT * FROM a LIMIT (SELECT 1 FROM b) OFFSET (SELECT 1 FROM c)", "select", "a b c", ""),
        (
            "SELECT sum(x) FILTER (WHERE (SELECT true FROM b)) OVER (PARTITION BY (SELECT 1 FROM c)) FROM a",
            "select",
            "a b c",
            "",
        ),
        ("SELECT * FROM a TABLESAMPLE system ((SELECT 1 FROM b))", "select", "a b", ""),
        ("SELECT * FROM ROWS FROM (f((SELECT 1 FROM a)), g()) AS x", "select", "a", ""),
        ("SELECT CASE WHEN (SELECT true FROM a) THEN 1 ELSE (SELECT 2 FROM b) END", "select", "a b", ""),
        ("SELECT ARRAY(SELECT x FROM a), ROW((SELECT y FROM b)), ARRAY[(SELECT z FROM c)]", "select", "a b c", ""),
        ("SELECT (SELECT c FROM customers c)::text", "select", "customers", ""),
        ("SELECT xmlelement(name x, (SELECT y FROM a))", "select", "a", ""),
        ("SELECT json_object('a': (SELECT y FROM a))", "select", "a", ""),
        ("SELECT * FROM json_table((SELECT j FROM a), '$' COLUMNS (x int))", "select", "a", ""),
        ("SELECT * FROM xmltable('/' PASSING (SELECT j FROM a) COLUMNS x int)", "select", "a", ""),
        ("SELECT x FROM a WINDOW w AS (ORDER BY (SELECT 1 FROM b))", "select", "a b", ""),
        ("SELECT DISTINCT ON ((SELECT 1 FROM b)) x FROM a", "select", "a b", ""),
        ("SELECT GREATEST(1, (SELECT x FROM a)), COALESCE((SELECT y FROM b), 1)", "select", "a b", ""),
        ("SELECT (ARRAY[1,2])[(SELECT x FROM a)]", "select", "a", ""),
        ("SELECT f(x => (SELECT y FROM a))", "select", "a", ""),
        ("INSERT INTO t VALUES (1)", "insert", "t!", ""),
        ("INSERT INTO t DEFAULT VALUES", "insert", "t!", ""),
        ("INSERT INTO t (a) VALUES ((SELECT x FROM s))", "select insert", "s t!", "stores"),
        ("INSERT INTO t SELECT * FROM s", "select insert", "s t!", "stores"),
        ("INSERT INTO t SELECT 1", "select insert", "t!", ""),
        ("INSERT INTO t TABLE s", "select insert", "s t!", "stores"),
        ("INSERT INTO t SELECT * FROM t", "select insert", "t!", "stores"),
        ("UPDATE t SET a = 1 WHERE id = 2", "update", "t!", ""),
        ("UPDATE t SET a = 1", "update", "t!", "all"),
        ("UPDATE ONLY t AS x SET a = 1 WHERE x.id = 2", "update", "t!", ""),
        ("UPDATE t SET n = n + 1 WHERE id = 2", "update", "t!", ""),
        ("UPDATE t SET name = ssn WHERE id = 2", "update", "t!", "stores"),
        ("UPDATE t SET name = t.ssn WHERE id = 2", "update", "t!", "stores"),
        ("UPDATE t SET name = t::text WHERE id = 2", "update", "t!", "stores"),
        ("UPDATE t SET (a, b) = (SELECT x, y FROM s) WHERE id = 2", "select update", "s t!", "stores"),
        ("UPDATE t SET a = s.x FROM s WHERE s.id = t.id", "update", "s t!", "stores"),
        ("DELETE FROM t WHERE id = 1", "delete", "t!", ""),
        ("DELETE FROM t", "delete", "t!", "all"),
        ("DELETE FROM t USING s WHERE s.id = t.id", "delete", "s t!", ""),
        ("DELETE FROM t WHERE CURRENT OF c", "delete", "t!", ""),
        ("DELETE FROM t RETURNING (SELECT x FROM s)", "select delete", "s t!", "all"),
        ("TRUNCATE t", "truncate", "t!", ""),
        ("TRUNCATE TABLE ONLY a, b.c RESTART IDENTITY CASCADE", "truncate", "a! b.c!", ""),
        ("LOCK TABLE t IN ACCESS EXCLUSIVE MODE", "lock", "t", ""),
        ("CALL p(1)", "call", "", ""),
        ("CALL p((SELECT x FROM a))", "select call", "a", ""),
        ("EXECUTE p (1)", "execute", "", ""),
        ("FETCH ALL FROM c", "fetch", "", ""),
        ("MOVE 10 IN c", "fetch", "", ""),
        ("CLOSE c", "fetch", "", ""),
        ("CLOSE ALL", "fetch", "", ""),
        ("DEALLOCATE p", "prepare", "", ""),
        ("DISCARD ALL", "set", "", ""),
        ("SHOW ALL", "show", "", ""),
        ("SHOW standard_conforming_strings", "show", "", ""),
        ("SET work_mem = '1GB'", "set", "", ""),
        ("SET LOCAL ROLE admin", "set", "", ""),
        ("RESET ALL", "set", "", ""),
        ("SET CONSTRAINTS ALL DEFERRED", "set", "", ""),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "set", "", ""),
        ("BEGIN", "transaction", "", ""),
        ("START TRANSACTION READ ONLY", "transaction", "", ""),
        ("COMMIT AND CHAIN", "transaction", "", ""),
        ("END", "transaction", "", ""),
        ("ABORT", "transaction", "", ""),
        ("SAVEPOINT s", "transaction", "", ""),
        ("ROLLBACK TO s", "transaction", "", ""),
        ("PREPARE TRANSACTION 'x'", "transaction", "", ""),
        ("LISTEN a", "listen", "", ""),
        ("NOTIFY a, 'x'", "listen", "", ""),
        ("UNLISTEN *", "listen", "", ""),
        ("VACUUM", "vacuum", "", ""),
        ("VACUUM (FULL) t", "vacuum", "t", ""),
        ("ANALYZE t (a)", "vacuum", "t", ""),
        ("ANALYSE t", "vacuum", "t", ""),
        ("CLUSTER t USING i", "vacuum", "t", ""),
        ("REINDEX TABLE t", "vacuum", "t", ""),
        ("REINDEX DATABASE d", "vacuum", "", ""),
        ("CHECKPOINT", "other", "", ""),
        ("LOAD 'x'", "other", "", ""),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", "other", "m!", ""),
        ("", "", "", ""),
        ("  ;; -- nothing\n /* at all */ ;", "", "", ""),
    ]);
}

#[test]
fn definitions_are_told_apart_and_name_their_tables() {
    check(&[
        ("CREATE TABLE t (a int DEFAULT 1 REFERENCES r (id))", "create", "r t!", ""),
        ("CREATE TEMP TABLE t (LIKE s INCLUDING ALL)", "create", "s t!", ""),
        ("CREATE TABLE t () INHERITS (p)", "create", "p t!", ""),
        ("CREATE TABLE t PARTITION OF p FOR VALUES IN (1)", "create", "p t!", ""),
        ("CREATE TABLE t AS SELECT * FROM s", "select create", "s t!", "stores"),
        ("CREATE TABLE t AS TABLE s WITH NO DATA", "select create", "s t!", "stores"),
        ("CREATE TABLE x AS EXECUTE y", "create execute", "x!", "stores"),
        ("SELECT * INTO t FROM s", "select create", "s t!", "stores"),
        ("SELECT * INTO TEMP t FROM s", "select create", "s t!", "stores"),
        ("WITH q AS (SELECT * FROM s) SELECT * INTO t FROM q", "select create", "s t!", "stores"),
        ("CREATE VIEW v AS SELECT * FROM s", "select create", "s v!", "stores"),
        ("CREATE OR REPLACE TEMP VIEW a.v (x) AS TABLE s", "select create", "s a.v!", "stores"),
        ("CREATE RECURSIVE VIEW v (n) AS SELECT 1 UNION SELECT n + 1 FROM v", "select create", "v!", "stores"),
        ("CREATE MATERIALIZED VIEW m AS SELECT * FROM s", "select create", "m! s", "stores"),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", "create", "t!", ""),
        ("CREATE SEQUENCE s", "create", "s!", ""),
        (
            "CREATE SCHEMA a CREATE TABLE t (x int) CREATE VIEW v AS SELECT * FROM s",
            "select create",
            "s t! v!",
            "stores",
        ),
        ("CREATE TRIGGER g AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()", "create", "t!", "stores"),
        ("CREATE RULE r AS ON INSERT TO t DO INSTEAD DELETE FROM u", "delete create", "t! u!", "all stores"),
        (
            "CREATE RULE r AS ON UPDATE TO t DO ALSO INSERT INTO log SELECT * FROM s",
            "select insert create",
            "log! s t!",
            "stores",
        ),
        ("CREATE RULE \"_RETURN\" AS ON SELECT TO t DO INSTEAD SELECT * FROM s", "select create", "s t!", "stores"),
        ("CREATE POLICY p ON t USING (EXISTS (SELECT 1 FROM s))", "select create", "s t!", "stores"),
        ("CREATE FOREIGN TABLE f (a int) SERVER x", "create", "f!", "stores opaque"),
        ("IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y", "create", "", "stores opaque"),
        ("CREATE EXTENSION dblink", "create", "", ""),
        ("CREATE ROLE r SUPERUSER", "create", "", ""),
        ("CREATE USER u PASSWORD 'x'", "create", "", ""),
        ("CREATE DATABASE d", "create", "", ""),
        ("CREATE TYPE t AS (a int)", "create", "t!", ""),
        ("CREATE TYPE t AS ENUM ('a')", "create", "", ""),
        ("CREATE DOMAIN d AS text CHECK (VALUE <> '')", "create", "", ""),
        ("CREATE AGGREGATE g (int) (SFUNC = f, STYPE = int)", "create", "", ""),
        ("CREATE STATISTICS s ON a, b FROM t", "create", "t", ""),
        ("CREATE PUBLICATION p FOR TABLE t", "create", "t", ""),
        ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "create", "", ""),
        ("CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()", "create", "", ""),
        ("CREATE CAST (a AS b) WITHOUT FUNCTION", "create", "", ""),
        ("CREATE OPERATOR === (FUNCTION = f, LEFTARG = int, RIGHTARG = int)", "create", "", ""),
        ("CREATE LANGUAGE plpython3u", "create", "", ""),
        ("CREATE SERVER s FOREIGN DATA WRAPPER w", "create", "", ""),
        ("CREATE USER MAPPING FOR u SERVER s", "create", "", "stores opaque"),
        ("ALTER USER MAPPING FOR u SERVER s OPTIONS (SET user 'x')", "alter", "", "stores opaque"),
        ("ALTER SERVER s OPTIONS (SET dbname 'x')", "alter", "", "stores opaque"),
        ("ALTER FOREIGN DATA WRAPPER w OPTIONS (SET a 'x')", "alter", "", "stores opaque"),
        ("ALTER FOREIGN TABLE f OPTIONS (SET table_name 'x')", "alter", "f!", "stores opaque"),
        ("ALTER FOREIGN TABLE f ALTER a OPTIONS (SET column_name 'x')", "alter", "f!", "stores opaque"),
        ("ALTER FOREIGN TABLE f ADD b text OPTIONS (column_name 'x')", "alter", "f!", "stores opaque"),
        ("ALTER TABLE t SET (fillfactor = 70)", "alter", "t!", ""),
        ("CREATE TABLESPACE s LOCATION '/x'", "create", "", ""),
        ("CREATE ACCESS METHOD m TYPE TABLE HANDLER h", "create", "", ""),
        ("ALTER TABLE t ADD COLUMN a int", "alter", "t!", ""),
        ("ALTER TABLE IF EXISTS ONLY t DROP COLUMN a", "alter", "t!", ""),
        ("ALTER TABLE t RENAME TO u", "alter", "t!", "stores"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "alter", "t!", "stores"),
        ("ALTER TABLE t SET SCHEMA s", "alter", "t!", "stores"),
        ("ALTER TABLE t OWNER TO r", "alter", "t!", ""),
        ("ALTER TABLE t DISABLE TRIGGER ALL", "alter", "t!", ""),
        ("ALTER TABLE t ALTER COLUMN a TYPE text USING ssn", "alter", "t!", "stores"),
        ("ALTER TABLE t ADD COLUMN c text GENERATED ALWAYS AS (ssn) STORED", "alter", "t!", "stores"),
        ("ALTER TABLE t INHERIT p", "alter", "p t!", "stores"),
        ("ALTER TABLE p ATTACH PARTITION t DEFAULT", "alter", "p! t", "stores"),
        ("ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", "alter", "", ""),
        ("ALTER VIEW v RENAME TO w", "alter", "v!", "stores"),
        ("ALTER INDEX i RENAME TO j", "alter", "i!", "stores"),
        ("ALTER SEQUENCE s RESTART", "alter", "s!", ""),
        ("ALTER TYPE t ADD VALUE 'x'", "alter", "", ""),
        ("ALTER FUNCTION f() OWNER TO r", "alter", "", ""),
        ("ALTER ROLE r SUPERUSER", "alter", "", ""),
        ("ALTER ROLE r SET search_path = x", "alter set", "", ""),
        ("ALTER DATABASE d SET role = x", "alter set", "", ""),
        ("ALTER SYSTEM SET work_mem = '1GB'", "alter set", "", ""),
        ("ALTER GROUP g ADD USER u", "alter grant", "", ""),
        ("ALTER GROUP g DROP USER u", "alter revoke", "", ""),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO u", "alter grant", "", ""),
        ("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM u", "alter revoke", "", ""),
        ("ALTER POLICY p ON t USING (true)", "alter", "t!", ""),
        ("ALTER EXTENSION e UPDATE", "alter", "", ""),
        ("ALTER PUBLICATION p ADD TABLE t", "alter", "t", ""),
        ("ALTER SUBSCRIPTION s DISABLE", "alter", "", ""),
        ("REASSIGN OWNED BY a TO b", "alter", "", ""),
        ("DROP TABLE t", "drop", "t!", ""),
        ("DROP TABLE IF EXISTS a, b.c CASCADE", "drop", "a! b.c!", ""),
        ("DROP VIEW v", "drop", "v!", ""),
        ("DROP MATERIALIZED VIEW m", "drop", "m!", ""),
        ("DROP INDEX CONCURRENTLY i", "drop", "i!", ""),
        ("DROP SEQUENCE s", "drop", "s!", ""),
        ("DROP FOREIGN TABLE f", "drop", "f!", ""),
        ("DROP TRIGGER g ON s.t", "drop", "s.t!", ""),
        ("DROP RULE r ON t", "drop", "t!", ""),
        ("DROP POLICY p ON t", "drop", "t!", ""),
        ("DROP FUNCTION f(int)", "drop", "", ""),
        ("DROP PROCEDURE p", "drop", "", ""),
        ("DROP SCHEMA s CASCADE", "drop", "", ""),
        ("DROP DATABASE d WITH (FORCE)", "drop", "", ""),
        ("DROP ROLE r", "drop", "", ""),
        ("DROP OWNED BY r", "drop revoke", "", ""),
        ("DROP EXTENSION e", "drop", "", ""),
        ("DROP TYPE t", "drop", "", ""),
        ("DROP SUBSCRIPTION s", "drop", "", ""),
        ("DROP TABLESPACE s", "drop", "", ""),
        ("DROP USER MAPPING FOR u SERVER s", "drop", "", ""),
        ("GRANT SELECT ON t TO u", "grant", "t", ""),
        ("GRANT ALL ON ALL TABLES IN SCHEMA s TO PUBLIC", "grant", "", ""),
        ("GRANT admin TO u WITH ADMIN OPTION", "grant", "", ""),
        ("REVOKE SELECT (a) ON t FROM u", "revoke", "t", ""),
        ("REVOKE admin FROM u", "revoke", "", ""),
        ("COMMENT ON TABLE t IS 'x'", "comment", "t", ""),
        ("COMMENT ON COLUMN s.t.c IS 'x'", "comment", "s.t", ""),
        ("SECURITY LABEL ON TABLE t IS 'x'", "comment", "t", ""),
    ]);
}

#[test]
fn what_hides_inside_another_statement_is_found() {
    check(&[
        ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "select delete", "t!", "all"),
        ("WITH d AS (DELETE FROM t WHERE id = 1 RETURNING *) SELECT * FROM d", "select delete", "t!", ""),
        (
            "WITH a AS (WITH b AS (UPDATE t SET x = 1 RETURNING *) SELECT * FROM b) SELECT * FROM a",
            "select update",
            "t!",
            "all",
        ),
        (
            "INSERT INTO x WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
            "select insert delete",
            "t! x!",
            "all stores",
        ),
        (
            "INSERT INTO x SELECT * FROM (WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d) q",
            "select insert delete",
            "t! x!",
            "all stores",
        ),
        (
            "WITH d AS (UPDATE t SET a = a WHERE id = 4 RETURNING ssn) INSERT INTO x SELECT ssn FROM d",
            "select insert update",
            "t! x!",
            "stores",
        ),
        (
            "WITH a AS (UPDATE t SET a = a WHERE id = 4 RETURNING ssn), b AS (INSERT INTO x SELECT ssn FROM a RETURNING y) TABLE b",
            "select insert update",
            "t! x!",
            "stores",
        ),
        (
            "MERGE INTO t c USING (SELECT 1) s ON c.id = 4 WHEN MATCHED THEN UPDATE SET note = reverse(c.ssn)",
            "select update merge",
            "t!",
            "stores",
        ),
        ("SELECT lo_create(ssn::oid) FROM t", "select", "t", "stores"),
        ("SELECT pg_try_advisory_lock(ssn::bigint) FROM t", "select", "t", "stores"),
        (
            "WITH i AS (INSERT INTO t VALUES (1) RETURNING *) UPDATE u SET a = 1 FROM i",
            "insert update",
            "t! u!",
            "all stores",
        ),
        ("WITH t AS (SELECT * FROM t) SELECT * FROM t", "select", "t", ""),
        ("WITH t AS (SELECT 1) SELECT * FROM t", "select", "", ""),
        ("WITH t AS (SELECT 1) SELECT * FROM public.t", "select", "public.t", ""),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b", "select", "b", ""),
        ("WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b", "select", "", ""),
        ("WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT * FROM r) SELECT * FROM r", "select", "", ""),
        ("WITH t AS (SELECT 1) DELETE FROM t WHERE id = 1", "select delete", "t!", ""),
        ("SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) q, t", "select", "t", ""),
        ("SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM (SELECT * FROM t) z) q", "select", "", ""),
        ("WITH t AS (SELECT 1) SELECT (WITH u AS (SELECT * FROM t) SELECT 1 FROM u)", "select", "", ""),
        ("EXPLAIN SELECT * FROM t", "select explain", "t", ""),
        ("EXPLAIN DELETE FROM t", "delete explain", "t!", "all"),
        ("EXPLAIN ANALYZE DELETE FROM t", "delete explain", "t!", "all"),
        (
            "EXPLAIN (ANALYZE, FORMAT json) WITH d AS (DELETE FROM t RETURNING *) TABLE d",
            "select delete explain",
            "t!",
            "all",
        ),
        ("EXPLAIN CREATE TABLE x AS SELECT * FROM t", "select create explain", "t x!", "stores"),
        ("EXPLAIN EXECUTE p", "execute explain", "", ""),
        ("EXPLAIN DECLARE c CURSOR FOR SELECT * FROM t", "select declare explain", "t", ""),
        ("PREPARE p AS DELETE FROM t", "delete prepare", "t!", "all"),
        ("PREPARE p (int) AS SELECT * FROM t WHERE id = $1", "select prepare", "t", ""),
        ("DECLARE c CURSOR FOR SELECT * FROM t", "select declare", "t", ""),
        ("DECLARE c SCROLL CURSOR WITH HOLD FOR TABLE t", "select declare", "t", ""),
        ("COPY t FROM STDIN", "copy_in", "t!", ""),
        ("COPY t (a, b) FROM STDIN WHERE (SELECT true FROM s)", "select copy_in", "s t!", ""),
        ("COPY t TO STDOUT", "copy_out", "t", ""),
        ("COPY t TO '/tmp/x'", "copy_out", "t", "file"),
        ("COPY t FROM '/etc/passwd'", "copy_in", "t!", "file"),
        ("COPY t TO PROGRAM 'sh'", "copy_out copy_program", "t", ""),
        ("COPY t FROM PROGRAM 'sh'", "copy_in copy_program", "t!", ""),
        ("COPY (SELECT * FROM t) TO STDOUT", "select copy_out", "t", ""),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "delete copy_out", "t!", "all"),
        ("COPY (SELECT 1) TO PROGRAM 'sh'", "select copy_out copy_program", "", ""),
        ("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", "delete merge", "s t!", "stores"),
        (
            "MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "insert update merge",
            "s t!",
            "stores",
        ),
        (
            "MERGE INTO t USING (VALUES (1)) s (id) ON t.id = s.id WHEN MATCHED THEN DO NOTHING",
            "select merge",
            "t!",
            "",
        ),
        ("INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a", "insert update", "t!", ""),
        ("INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = t.ssn", "insert update", "t!", "stores"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "insert", "t!", ""),
        ("SELECT 1; DROP TABLE t", "select ;; drop", " ;; t!", " ;; "),
        ("BEGIN; DELETE FROM t; COMMIT", "transaction ;; delete ;; transaction", " ;; t! ;; ", " ;; all ;; "),
    ]);
}

#[test]
fn spelling_does_not_hide_anything() {
    check(&[
        ("dRoP/**/TaBLe/*x*/t", "drop", "t!", ""),
        ("DROP -- comment\n TABLE t", "drop", "t!", ""),
        ("/* /* nested */ SELECT */ DROP TABLE t", "drop", "t!", ""),
        ("\u{c}DROP\tTABLE\r\nt", "drop", "t!", ""),
        ("DR/**/OP TABLE t", "unparsed", "", "opaque"),
        ("DROP\u{a0}TABLE t", "unparsed", "", "opaque"),
        ("SELECT 'DROP TABLE t'", "select", "", ""),
        ("SELECT $$DROP TABLE t$$", "select", "", ""),
        ("SELECT $x$ $$ DELETE FROM t $x$", "select", "", ""),
        ("SELECT E'\\'; DROP TABLE t; --'", "select", "", ""),
        ("SELECT '\\'; DROP TABLE t; --'", "select ;; drop", " ;; t!", " ;; "),
        ("SELECT 'a'\n'; DROP TABLE t'", "select", "", ""),
        ("SELECT U&'\\0027; DROP TABLE t'", "select", "", ""),
        ("SELECT * FROM U&\"cust\\006fmers\"", "select", "customers", ""),
        ("SELECT * FROM U&\"cust!006fmers\" UESCAPE '!'", "select", "customers", ""),
        ("SELECT * FROM CUSTOMERS", "select", "customers", ""),
        ("SELECT * FROM \"customers\"", "select", "customers", ""),
        ("SELECT * FROM \"a\"\"b\"", "select", "a\"b", ""),
        ("(((SELECT * FROM t)))", "select", "t", ""),
        ("((DELETE FROM t))", "unparsed", "", "opaque"),
        ("TABLE ONLY t", "select", "t", ""),
        ("SELECT FROM t", "select", "t", ""),
        ("SELECT 1 AS \"DROP\", 2 AS delete", "select", "", ""),
        ("SELECT \"delete\" FROM t", "select", "t", ""),
        ("delete from only (t)", "delete", "t!", "all"),
        ("; ; DELETE FROM t WHERE a;", "delete", "t!", ""),
        ("SELEC 1", "unparsed", "", "opaque"),
        ("SELECT 'unterminated", "unparsed", "", "opaque"),
        ("IDENTIFY_SYSTEM", "replication unparsed", "", "opaque"),
        ("  START_REPLICATION SLOT s LOGICAL 0/0", "replication unparsed", "", "opaque"),
        ("BASE_BACKUP (LABEL 'x')", "replication unparsed", "", "opaque"),
    ]);
}

#[test]
fn texts_that_cannot_be_told_are_unparsed() {
    for (text, conforming) in
        [(&b"SELECT 1\0"[..], true), (b"SELECT '\xff'", true), (b"SELECT '\\'", false), (b"\xff\xfe", true)]
    {
        let analysis = analyse(text, conforming);
        assert!(analysis.statements[0].classes.contains(Class::Unparsed), "{text:?}");
    }
    assert!(!analyse(b"SELECT 'x'", false).statements[0].classes.contains(Class::Unparsed));
}

#[test]
fn settings_names_and_copies_are_told() {
    let one = |text: &str| analyse(text.as_bytes(), true).statements.swap_remove(0);
    let setting = |text: &str| {
        one(text).settings.into_iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>()
    };
    assert_eq!(setting("SET standard_conforming_strings = off"), ["standard_conforming_strings=Some(\"off\")"]);
    assert_eq!(setting("SET LOCAL search_path TO a, \"B\""), ["search_path=Some(\"a, B\")"]);
    assert_eq!(setting("SET NAMES 'latin1'"), ["client_encoding=Some(\"latin1\")"]);
    assert_eq!(setting("SET ROLE admin"), ["role=Some(\"admin\")"]);
    assert_eq!(setting("SET SESSION AUTHORIZATION bob"), ["session_authorization=Some(\"bob\")"]);
    assert_eq!(setting("RESET ROLE"), ["role=None"]);
    assert_eq!(setting("SELECT set_config('Client_Encoding', 'sjis', false)"), ["client_encoding=Some(\"sjis\")"]);
    assert_eq!(setting("SELECT set_config('role', $1, false)"), ["role=None"]);
    assert_eq!(setting("DO $$ BEGIN SET role = 'x'; END $$"), ["role=Some(\"x\")"]);
    for text in ["RESET ALL", "DISCARD ALL", "SELECT set_config($1, $2, false)", "UPDATE pg_settings SET setting = 'x'"]
    {
        assert_eq!(setting(text).len(), session::TRACKED.len(), "{text}");
    }
    for text in ["SET work_mem = '1GB'", "ALTER DATABASE d SET role = x"] {
        assert!(setting(text).is_empty(), "{text}");
    }
    // Not this session's, but what runs later finds its tables by it.
    for text in [
        "ALTER ROLE r SET search_path = x",
        "ALTER DATABASE d SET search_path = x",
        "ALTER SYSTEM SET search_path = x",
        "ALTER FUNCTION f() SET search_path = x",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = x AS 'SELECT 1'",
    ] {
        assert_eq!(setting(text), ["search_path=Some(\"x\")"], "{text}");
    }

    assert_eq!(one("PREPARE \"P\" AS SELECT 1").defines, Some(Named::Prepared("P".into())));
    assert_eq!(one("DECLARE c CURSOR FOR SELECT 1").defines, Some(Named::Cursor("c".into())));
    assert_eq!(one("CREATE TABLE x AS EXECUTE p").uses, Some(Named::Prepared("p".into())));
    assert_eq!(one("EXPLAIN EXECUTE p").uses, Some(Named::Prepared("p".into())));
    assert_eq!(one("MOVE ALL c").uses, Some(Named::Cursor("c".into())));
    assert_eq!(one("DEALLOCATE P").forgets, Some(Some("p".into())));
    for text in ["DEALLOCATE ALL", "DISCARD ALL", "CLOSE ALL"] {
        assert_eq!(one(text).forgets, Some(None), "{text}");
    }
    assert_eq!(one("DISCARD TEMP").forgets, None);

    let copy = |text: &str| one(text).copy.expect("a copy");
    let plain = Copy { query: false, columns: vec![], format: CopyFormat::Text, breaks_values: false };
    assert_eq!(copy("COPY t TO STDOUT"), plain);
    assert_eq!(copy("COPY t (a, \"B\") TO STDOUT"), Copy { columns: vec!["a".into(), "B".into()], ..plain.clone() });
    assert_eq!(
        copy("COPY (SELECT 1) TO STDOUT CSV HEADER"),
        Copy { query: true, format: CopyFormat::Csv, ..plain.clone() }
    );
    assert_eq!(copy("COPY BINARY t FROM STDIN").format, CopyFormat::Binary);
    assert_eq!(copy("COPY t FROM STDIN WITH (FORMAT 'BINARY')").format, CopyFormat::Binary);
    for (options, breaks) in [
        ("", false),
        ("(FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\')", false),
        ("(DELIMITER E'\t')", false),
        ("(DELIMITER '-')", true),
        ("DELIMITER ' '", true),
        ("CSV QUOTE '1'", true),
        ("(FORMAT csv, ESCAPE '1')", true),
        ("(FORMAT csv, DELIMITER '.')", true),
    ] {
        assert_eq!(copy(&format!("COPY t TO STDOUT {options}")).breaks_values, breaks, "{options}");
    }
}

#[test]
fn what_other_statements_will_run_over_rows_is_told_unless_it_is_surely_postgresqls_own() {
    for (text, runs) in [
        ("CREATE INDEX i ON t (a, b) WHERE c IS NOT NULL", false),
        ("CREATE INDEX i ON t (a, pg_catalog.lower(b)) WHERE NOT c AND d OPERATOR(pg_catalog.>) 0", false),
        ("CREATE INDEX i ON t (trim(a), (b::varchar), (c::numeric(3, 1)), (d::pg_catalog.text))", false),
        ("CREATE STATISTICS s ON a, b FROM t", false),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (pg_catalog.length(a) OPERATOR(pg_catalog.=) 3)", false),
        ("ALTER TABLE t ADD CONSTRAINT c UNIQUE (a)", false),
        ("ALTER TABLE t ADD EXCLUDE USING gist (a WITH &&) WHERE (b IS NULL)", false),
        ("ALTER TABLE t ADD COLUMN a int DEFAULT f() NOT NULL", false),
        ("CREATE POLICY p ON t USING (true)", false),
        ("CREATE TABLE u (t int CHECK (f(t)))", false),
        ("CREATE INDEX i ON t (f(a))", true),
        ("CREATE INDEX i ON t (a) WHERE f(a)", true),
        ("CREATE INDEX i ON t USING brin (my.lower(a))", true),
        ("CREATE INDEX i ON t (lower(a))", true),
        ("CREATE INDEX i ON t ((a ||| 'y'))", true),
        ("CREATE INDEX i ON t ((a::text))", true),
        ("CREATE INDEX i ON t ((a::pg_catalog.json))", true),
        ("CREATE INDEX i ON t ((t.f))", true),
        ("CREATE INDEX i ON t ((coalesce(a, b)))", true),
        ("CREATE STATISTICS s ON (f(a)), b FROM t", true),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (f(a)) NOT VALID", true),
        ("ALTER TABLE t ADD CHECK (a ||| 'x')", true),
        ("ALTER TABLE t ADD CHECK (a > 0)", true),
        ("ALTER TABLE t ADD CHECK (a IN ('x'))", true),
        ("ALTER TABLE t ADD CHECK (a OPERATOR(pg_catalog.=) ANY (ARRAY[b]))", true),
        ("ALTER TABLE t ADD CHECK (concat(a) IS NOT NULL)", true),
        ("ALTER TABLE t ADD CHECK ((a::mt) IS NOT NULL)", true),
        ("ALTER TABLE t ADD EXCLUDE USING btree ((f(a)) WITH =)", true),
        ("ALTER TABLE t ADD EXCLUDE USING btree (a WITH =) WHERE (f(a))", true),
        ("ALTER TABLE t ADD COLUMN b int CHECK (f(a))", true),
        ("CREATE TABLE u PARTITION OF t (CHECK (f(a))) DEFAULT", true),
        ("CREATE TABLE u (b int CHECK (f(a))) INHERITS (t)", true),
        ("CREATE POLICY p ON t USING (a = current_user)", true),
        ("ALTER POLICY p ON t WITH CHECK (f(a))", true),
        ("DO $$BEGIN CREATE INDEX i ON t (f(a)); END$$", true),
    ] {
        let found = analyse(text.as_bytes(), true).statements.swap_remove(0);
        assert_eq!((found.runs_later, found.stores), (runs, false), "{text}");
        let read = |table: &Table| table.name == "t" && table.read;
        assert!(!runs || found.tables.iter().any(read), "{text}: {:?}", found.tables);
    }
}

#[test]
fn what_is_read_without_being_named_as_a_table_is_told() {
    let one = |text: &str| analyse(text.as_bytes(), true).statements.swap_remove(0);
    for text in [
        "CREATE POLICY p ON t USING ((SELECT b FROM u LIMIT 1)::regclass IS NOT NULL)",
        "ALTER POLICY p ON t USING (EXISTS (SELECT 1 FROM u))",
    ] {
        assert!(one(text).stores && one(text).tables.iter().any(|table| table.name == "u" && table.read), "{text}");
    }
    for text in ["SELECT pg_stat_get_backend_activity(1)", "SELECT * FROM pg_stat_get_activity(NULL)"] {
        let tables = one(text).tables;
        assert!(tables.iter().any(|table| table.name == "pg_stat_activity" && table.read), "{text}: {tables:?}");
    }
}

#[test]
fn output_columns_that_are_expressions_are_told() {
    let outputs = |text: &str| analyse(text.as_bytes(), true).statements.swap_remove(0).expression_columns;
    for text in [
        "SELECT a, t.b AS c FROM t",
        "DELETE FROM t",
        "INSERT INTO t VALUES (1) RETURNING id",
        "COPY t TO STDOUT",
        "BEGIN",
    ] {
        assert_eq!(outputs(text), Expressions::None, "{text}");
    }
    for (text, positions) in [
        ("SELECT a, upper(b), c::text, 1 FROM t", vec![1, 2, 3]),
        ("SELECT a, t FROM t", vec![1]),
        ("SELECT x FROM a JOIN t AS x ON true", vec![0]),
        ("SELECT a FROM t UNION SELECT b FROM u", vec![0]),
        ("VALUES (1, 2)", vec![0, 1]),
        ("DELETE FROM t RETURNING a, (SELECT 1), t", vec![1, 2]),
        ("COPY (SELECT a, b || c FROM t) TO STDOUT", vec![1]),
        ("DECLARE c CURSOR FOR SELECT count(*) FROM t", vec![0]),
        ("EXPLAIN SELECT a FROM t", vec![0]),
    ] {
        assert_eq!(outputs(text), Expressions::Some(positions), "{text}");
    }
    for text in [
        "SELECT * FROM t",
        "SELECT a, t.* FROM t",
        "SELECT (f()).*",
        "SELECT * FROM t UNION SELECT 1",
        "EXECUTE p",
        "FETCH c",
        "SELEC",
    ] {
        assert_eq!(outputs(text), Expressions::Unknown, "{text}");
    }
}

#[test]
fn words_come_from_the_text_and_from_the_texts_inside_it() {
    let words = analyse(b"DO $$ BEGIN PERFORM Pg_Sleep(1); EXECUTE 'SELECT dblink(1)'; END $$ -- secret\n", true).words;
    for word in ["do", "perform", "pg_sleep", "dblink", "execute"] {
        assert!(words.iter().any(|known| known == word), "{word} in {words:?}");
    }
    assert!(!words.iter().any(|word| word == "secret"));
    assert!(words.is_sorted() && words.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(analyse(b"SELECT 1 FROM", true).words.contains(&"from".to_owned()));
}

#[test]
fn what_a_changed_table_held_may_be_read() {
    let read = |text: &str| {
        let statement = analyse(text.as_bytes(), true).statements.remove(0);
        statement.tables.iter().map(|table| (table.written, table.read)).collect::<Vec<_>>()
    };
    assert_eq!(read("UPDATE t SET name = ssn"), [(true, true)]);
    assert_eq!(read("INSERT INTO t SELECT * FROM t"), [(true, true)]);
    assert_eq!(read("ALTER TABLE t RENAME COLUMN ssn TO x"), [(true, true)]);
    assert_eq!(read("INSERT INTO t SELECT * FROM s"), [(false, true), (true, false)]);
    assert_eq!(read("CREATE VIEW v AS TABLE t"), [(false, true), (true, false)]);
}

#[test]
fn tables_touched_without_being_named_are_told_by_schema_or_as_any() {
    let reach = |text: &str| {
        let reach = analyse(text.as_bytes(), true).statements.swap_remove(0).reach;
        format!("{}{}", reach.schemas.join(" "), if reach.everything { "*" } else { "" })
    };
    for (text, expected) in [
        ("DROP SCHEMA billing CASCADE", "billing"),
        ("DROP SCHEMA IF EXISTS a, \"B\" CASCADE", "a B"),
        // Fails while there is a table in it.
        ("DROP SCHEMA billing", ""),
        ("DROP SCHEMA billing RESTRICT", ""),
        ("DROP OWNED BY bob", "*"),
        ("REASSIGN OWNED BY bob TO ann", "*"),
        ("DROP DATABASE shop", "*"),
        ("DROP EXTENSION citext CASCADE", "*"),
        ("DROP TYPE mood CASCADE", "*"),
        ("DROP SERVER far CASCADE", "*"),
        ("DROP FUNCTION f() CASCADE", "*"),
        ("DROP FUNCTION f()", ""),
        ("DROP TABLE a CASCADE", ""),
        ("TRUNCATE a", ""),
        ("TRUNCATE a CASCADE", "*"),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA a, b TO bob", "a b"),
        ("REVOKE ALL ON ALL TABLES IN SCHEMA a FROM bob", "a"),
        ("GRANT SELECT ON a TO bob", ""),
        ("ALTER SCHEMA billing RENAME TO old", "billing"),
        ("ALTER TABLE ALL IN TABLESPACE x SET TABLESPACE y", "*"),
        ("REINDEX SCHEMA billing", "billing"),
        ("VACUUM", "*"),
        ("VACUUM a", ""),
        ("CLUSTER", "*"),
        ("DO $$ BEGIN DROP SCHEMA billing CASCADE; END $$", "billing"),
        ("CREATE SCHEMA billing", ""),
    ] {
        assert_eq!(reach(text), expected, "{text}");
    }
}
