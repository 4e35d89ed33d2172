//! What runs inside other statements: bodies, and constants that are run.

use super::*;

#[test]
fn what_functions_read_stays_where_it_is_put() {
    let xml = "query_to_xml('SELECT a FROM s', true, false, '')";
    let cases = [
        (format!("SELECT set_config('a.b', {xml}::text, false)"), "select set", "stores"),
        (format!("CREATE TABLE n (a xml DEFAULT {xml})"), "select create", "stores"),
        (format!("ALTER TABLE n ADD COLUMN a xml DEFAULT {xml}"), "select alter", "stores"),
        (format!("ALTER TABLE n ALTER a TYPE text USING {xml}::text"), "select alter", "stores"),
        (format!("CREATE DOMAIN d AS text DEFAULT {xml}::text"), "select create", "stores"),
        (format!("CREATE TABLE n PARTITION OF p FOR VALUES IN (({xml}::text))"), "select create", "stores"),
        (format!("EXECUTE p({xml}::text)"), "select execute", "stores"),
        (format!("SELECT {xml}"), "select", ""),
        ("SELECT connectby('s', 'a', 'a', 'x', 1)".to_owned(), "select", "opaque"),
        ("CREATE TABLE n (a int DEFAULT 1 + length('x'))".to_owned(), "create", ""),
        ("EXECUTE p(1, lower('X'))".to_owned(), "execute", ""),
        ("DO $$BEGIN EXECUTE 'SELECT pg_notify(''c'', $1)' USING 'x'; END$$".to_owned(), "select do", "stores"),
    ];
    for (text, want_classes, want_flags) in cases {
        let analysis = analyse(text.as_bytes(), true);
        let statement = &analysis.statements[0];
        assert_eq!((&*classes(statement), &*flags(statement)), (want_classes, want_flags), "{text}");
        assert_eq!(
            text.contains("FROM s"),
            statement.tables.iter().any(|table| table.name == "s" && table.read),
            "{text}"
        );
    }
    let makes = [
        ("CREATE DOMAIN d AS text CHECK (set_config('a.b', VALUE, false) IS NOT NULL)", true),
        ("CREATE OPERATOR ### (rightarg = text, function = pg_catalog.ts_stat)", true),
        ("CREATE AGGREGATE a (text) (sfunc = pg_notify, stype = text)", true),
        ("CREATE FUNCTION f(text) RETURNS void LANGUAGE sql AS 'INSERT INTO t VALUES ($1)'", true),
        ("CREATE FUNCTION f(v text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('a.b', v, false) $$", true),
        ("CREATE FUNCTION f(v text) RETURNS void BEGIN ATOMIC INSERT INTO t VALUES (v); END", true),
        ("CREATE FUNCTION f(text) RETURNS void LANGUAGE sql RETURN pg_notify('c', $1)", true),
        ("CREATE FUNCTION f(text) RETURNS void BEGIN ATOMIC SELECT pg_notify('c', $1); END", true),
        ("CREATE FUNCTION f(int) RETURNS bool RETURN pg_try_advisory_lock($1)", true),
        ("CREATE PROCEDURE f(text) BEGIN ATOMIC SELECT pg_notify('c', $1); END", true),
        ("CREATE FUNCTION f() RETURNS void RETURN pg_notify('c', 'x')", false),
        ("DO $$BEGIN CREATE FUNCTION f(text) RETURNS void LANGUAGE sql AS 'INSERT INTO t VALUES ($1)'; END$$", true),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (1); RETURN new; END'",
            false,
        ),
        ("CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'", false),
        ("CREATE OPERATOR ### (rightarg = int, function = pg_stat_get_backend_activity)", true),
        ("CREATE OPERATOR ### (rightarg = text, function = upper)", false),
        ("CREATE DOMAIN d AS text CHECK (length(VALUE) > 3)", false),
        ("CREATE TABLE t (id int DEFAULT nextval('s'), at timestamptz DEFAULT now(), CHECK (id > 0))", false),
    ];
    for (text, keeps) in makes {
        assert_eq!(analyse(text.as_bytes(), true).statements[0].keeps, keeps, "{text}");
    }
    for declarations in [
        format!("cursor record := ROW({xml});"),
        format!("a int := 1 begin; r /* CURSOR */ record DEFAULT {xml};"),
        format!("BEGIN <<inner>> DECLARE r record := {xml}; BEGIN NULL; END; END; --"),
    ] {
        let text = format!("DO $$ DECLARE {declarations} BEGIN NULL; END\n $$");
        let read = analyse(text.as_bytes(), true).statements.swap_remove(0);
        assert!(read.tables.iter().any(|table| table.name == "s" && table.read), "{text}: {read:?}");
    }
    let rule = analyse(b"CREATE RULE r AS ON DELETE TO t DO INSTEAD UPDATE u SET a = 1 RETURNING u.a", true);
    assert!(rule.statements[0].stores && rule.statements[0].tables.iter().all(|table| table.read));
}

#[test]
fn statements_of_others_stay_where_they_are_put() {
    let shown = "pg_stat_get_backend_activity(b) FROM pg_stat_get_backend_idset() b";
    for text in [
        format!("INSERT INTO n SELECT 7, {shown}"),
        format!("UPDATE n SET a = (SELECT {shown} LIMIT 1) WHERE id = 1"),
        format!("CREATE FUNCTION f() RETURNS SETOF text LANGUAGE sql AS 'SELECT {shown}'"),
        format!("CREATE FUNCTION f() RETURNS SETOF text BEGIN ATOMIC SELECT {shown}; END"),
        format!("CREATE TABLE n AS SELECT {shown}"),
        "UPDATE n SET a = pg_stat_get_backend_activity(1)".to_owned(),
        "INSERT INTO n VALUES (pg_stat_get_backend_activity(1))".to_owned(),
        "INSERT INTO n SELECT a.query FROM pg_stat_get_activity(NULL) a".to_owned(),
        "INSERT INTO n SELECT query FROM pg_stat_statements(true)".to_owned(),
        "CREATE TABLE n (a text DEFAULT pg_stat_get_backend_activity(1))".to_owned(),
        "EXECUTE p (pg_stat_get_backend_activity(1))".to_owned(),
        "CREATE POLICY p ON n USING (a = pg_stat_get_backend_activity(1))".to_owned(),
    ] {
        let statement = analyse(text.as_bytes(), true).statements.swap_remove(0);
        let shows = |table: &Table| table.read && table.name.starts_with("pg_stat_");
        assert!(statement.stores && statement.tables.iter().any(shows), "{text}: {statement:?}");
    }
}

#[test]
fn bodies_given_as_text_are_read() {
    let dynamic_do = dynamic(&[Class::Do]);
    let dynamic_create = DYN;
    let cases = [
        ("DO $$ BEGIN DELETE FROM t; END $$", "delete do", "t!", "all"),
        ("DO $$ BEGIN DELETE FROM t WHERE id = 1; END $$", "delete do", "t!", ""),
        ("DO LANGUAGE plpgsql $$ BEGIN PERFORM f() FROM t; END $$", "select do", "t", ""),
        (
            "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM t LOOP UPDATE u SET a = 1 WHERE id = r.id; END LOOP; END $$",
            "select update do",
            "t u!",
            "",
        ),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE t'; END $$", "drop do", "t!", ""),
        ("DO $$ BEGIN EXECUTE 'DROP ' || 'TABLE t'; END $$", &dynamic(&[Class::Do]), "", "all stores opaque"),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE t'::text; END $$", &dynamic(&[Class::Do]), "", "all stores opaque"),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE t'::pg_catalog.text; END $$", "drop do", "t!", ""),
        ("DO $$ DECLARE r record := set_config('role', 'x', false); BEGIN NULL; END $$", "do set", "", ""),
        (
            "DO $$ DECLARE a int = 1; b dom DEFAULT f((TABLE s)); c CURSOR FOR SELECT 1 = 1; BEGIN NULL; END $$",
            "select do",
            "s",
            "opaque",
        ),
        ("DO $$ BEGIN EXECUTE format('DROP TABLE %I', 't'); END $$", &dynamic_do, "", "all stores opaque"),
        ("DO $$ BEGIN EXECUTE (SELECT x FROM s); END $$", &dynamic_do, "s", "all stores opaque"),
        (
            "DO $$ BEGIN IF (SELECT count(*) FROM t) > 1 THEN TRUNCATE u; END IF; END $$",
            "select truncate do",
            "t u!",
            "",
        ),
        ("DO $$ BEGIN NULL; EXCEPTION WHEN OTHERS THEN DELETE FROM t; END $$", "delete do", "t!", "all"),
        ("DO $$ DECLARE x int := (SELECT max(a) FROM t); BEGIN x := (SELECT b FROM u); END $$", "select do", "t u", ""),
        ("DO $$ DECLARE c CURSOR FOR SELECT * FROM t; BEGIN OPEN c; END $$", "select do", "t", ""),
        ("DO $$ BEGIN EXECUTE 'DO ''BEGIN EXECUTE ''''DROP TABLE t''''; END'''; END $$", "drop do", "t!", ""),
        ("DO LANGUAGE plpython3u 'import os'", &dynamic_do, "", "all stores opaque"),
        ("DO $$ this is not plpgsql $$", &dynamic_do, "", "all stores opaque"),
        (
            "DO $$ DECLARE x t%ROWTYPE; y a.b%TYPE; z text[] := '{}'; BEGIN SELECT * INTO x FROM t; END $$",
            "select do",
            "t",
            "",
        ),
        ("DO $$ DECLARE r record := (SELECT x FROM hidden x); BEGIN NULL; END $$", "select do", "hidden", "opaque"),
        ("DO $$ BEGIN PERFORM 1; PERFORM f((TABLE a)); END $$", "select do", "a", ""),
        (
            "DO $$ BEGIN FOR i IN (SELECT 1 FROM a)..(SELECT 2 FROM b) LOOP EXIT WHEN (SELECT true FROM c); END LOOP; END $$",
            "select do",
            "a b c",
            "",
        ),
        (
            "DO $$ BEGIN RAISE NOTICE '%', (SELECT 1 FROM a); ASSERT (SELECT true FROM b); END $$",
            "select do",
            "a b",
            "",
        ),
        (
            "DO $$ DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE 'SELECT * FROM a'; CLOSE c; END $$",
            "select do",
            "a",
            "",
        ),
        (
            "DO $$ DECLARE r record; BEGIN FOR r IN EXECUTE 'DELETE FROM a' USING (SELECT 1 FROM b) LOOP NULL; END LOOP; END $$",
            "select delete do",
            "a! b",
            "all",
        ),
        (
            "DO $$ BEGIN MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE; GRANT SELECT ON c TO d; END $$",
            "delete merge grant do",
            "a! b c",
            "stores",
        ),
        ("DO $$ DECLARE x int[]; BEGIN x[(SELECT 1 FROM a)] := 2; END $$", "select do", "a", ""),
        ("DO $$ BEGIN undeclared := 1; END $$", &dynamic_do, "", "all stores opaque"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = x AS 'SELECT 1'", "select create", "", ""),
        ("ALTER FUNCTION f() SET search_path = x", "alter", "", ""),
        ("DO E'BEGIN DELETE FROM t; END'", "delete do", "t!", "all"),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM t'", "delete create", "t!", "all"),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT a FROM t; TRUNCATE u $$",
            "select truncate create",
            "t u!",
            "stores",
        ),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC; SELECT a FROM t; END",
            "select create",
            "t",
            "stores",
        ),
        ("CREATE FUNCTION f() RETURNS int RETURN (SELECT a FROM t)", "select create", "t", "stores"),
        ("CREATE FUNCTION f(x int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT $1'", "select create", "", ""),
        (
            "CREATE FUNCTION f(a int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM t WHERE id = a; RETURN a; END $$",
            "delete create",
            "t!",
            "",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := 1; INSERT INTO log VALUES (NEW.b); RETURN NEW; END $$",
            "insert create",
            "log!",
            "",
        ),
        (
            "CREATE FUNCTION f() RETURNS SETOF t LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT * FROM t; END $$",
            "select create",
            "t",
            "stores",
        ),
        (
            "CREATE FUNCTION f() RETURNS SETOF t LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'SELECT * FROM t'; END $$",
            "select create",
            "t",
            "stores",
        ),
        (
            "CREATE FUNCTION f(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$",
            dynamic_create,
            "",
            "all stores opaque",
        ),
        ("CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN CALL q(); COMMIT; END $$", "create call", "", ""),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'lib', 'sym'", "create", "", "stores opaque"),
        ("SELECT query_to_xml('SELECT * FROM t', true, false, '')", "select", "t", ""),
        ("SELECT query_to_xml($1, true, false, '')", "select", "", "opaque"),
        ("SELECT pg_catalog.query_to_xml('TABLE ' || 't', true, false, '')", "select", "", "opaque"),
        ("SELECT table_to_xml('public.t', true, false, '')", "select", "public.t", ""),
        ("SELECT * FROM pgrowlocks('t')", "select", "t", ""),
        ("SELECT currtid2('s.t', '(0,1)')", "select", "s.t", ""),
        ("SELECT pgstattuple('t'::regclass)", "select", "", "opaque"),
        ("SELECT * FROM verify_heapam(relation => 't')", "select", "", "opaque"),
        ("SELECT pg_relation_filepath('t')", "select", "", ""),
        ("SELECT * FROM crosstab('SELECT a, b, c FROM t') AS x (a int)", "select", "t", ""),
        ("SELECT database_to_xml(true, false, '')", "select", "", "opaque"),
        ("SELECT * FROM ts_stat('SELECT v FROM t')", "select", "t", ""),
        ("SELECT set_config('role', 'admin', false)", "select set", "", ""),
        ("SELECT pg_catalog.set_config(x, 'y', true) FROM t", "select set", "t", "stores"),
        ("SELECT pg_notify('x', upper(ssn)) FROM t", "select", "t", "stores"),
        ("SELECT pg_notify('x', (SELECT a FROM t))", "select", "t", "stores"),
        ("SELECT pg_notify('x', $1) FROM t", "select", "t", ""),
        ("SELECT lo_lseek64(0, replace(ssn, '-', '')::bigint, 0) FROM t", "select", "t", "stores"),
        ("SELECT loread(0, ssn::int) FROM t", "select", "t", "stores"),
        ("UPDATE pg_settings SET setting = 'off' WHERE name = 'x'", "update set", "pg_settings!", ""),
    ];
    check(&cases);
}

#[test]
fn texts_that_run_inside_others_are_read_under_either_setting() {
    let dynamic_do = dynamic(&[Class::Do]);
    check(&[
        (
            r"DO $$ BEGIN SET standard_conforming_strings = off; EXECUTE 'SELECT 1 /* \x2a/; DROP TABLE t; -- */'; END $$",
            "select drop do set",
            "t!",
            "",
        ),
        (r"DO $$ BEGIN EXECUTE 'SELECT 1 /* \052/; DELETE FROM t; -- */'; END $$", "select delete do", "t!", "all"),
        (
            r"DO $$ BEGIN EXECUTE 'SELECT a FROM t /* \u002a/ UNION SELECT b FROM u -- */'; END $$",
            "select do",
            "t u",
            "",
        ),
        (r"DO $$ BEGIN UPDATE t SET a = 1 WHERE 'a' = '\141'; END $$", "update do", "t!", "all"),
        (r"DO $$ BEGIN EXECUTE E'SELECT 1 /* \x2a/; DROP TABLE t; -- */'; END $$", "select drop do", "t!", ""),
        (r"DO $$ BEGIN EXECUTE E'SELECT 1 /* \\x2a/; DROP TABLE t; -- */'; END $$", "select do", "", ""),
        (r"DO $$ BEGIN EXECUTE $q$SELECT 1 /* \x2a/; DROP TABLE t; -- */$q$; END $$", "select do", "", ""),
        // One level further in each.
        (
            r"DO $$ BEGIN EXECUTE $q$DO 'BEGIN /* \x2a/ DROP TABLE t; -- */ NULL; END'$q$; END $$",
            &dynamic_do,
            "",
            "all stores opaque",
        ),
        ("DO $$ BEGIN EXECUTE $q$DO 'BEGIN /* \\x2a/ DROP TABLE t; -- */\n NULL; END'$q$; END $$", "drop do", "t!", ""),
        (
            r"DO $$ BEGIN EXECUTE 'DO ''BEGIN EXECUTE ''''SELECT 1 /* \\\\x2a/; DROP TABLE t; -- */''''; END'''; END $$",
            "select drop do",
            "t!",
            "",
        ),
        (
            r"DO $$ BEGIN EXECUTE U&'SELECT f(''!005cx2a'') /* !005cx2a/ DROP */' UESCAPE '!'; END $$",
            "select do",
            "",
            "",
        ),
        (
            r"DO $$ BEGIN EXECUTE U&'DO ''BEGIN EXECUTE ''''SELECT 1 /* !005cx2a/; DROP TABLE t; -- */''''; END''' UESCAPE '!'; END $$",
            "select drop do",
            "t!",
            "",
        ),
        ("DO $$ BEGIN EXECUTE 'SELECT 1'\n' /* \\x2a/; DROP TABLE t; -- */'; END $$", "select drop do", "t!", ""),
        // Nothing hangs on what these say.
        (r"DO $$ BEGIN PERFORM regexp_replace(a, '\d+\s', '\1') FROM t; END $$", "select do", "t", ""),
        (r"DO $$ BEGIN INSERT INTO t VALUES ('\x00ff', 'C:\users', E'\\d'); END $$", "insert do", "t!", ""),
        // What a parser of ours cannot say of that setting.
        (
            r"DO $$ BEGIN EXECUTE 'SELECT 1 /* \x2a/; DROP TABLE system_user; -- */'; END $$",
            &dynamic_do,
            "",
            "all stores opaque",
        ),
        (
            r"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1 /* \x2a/; DROP TABLE t; -- */'; END $$",
            "select create drop",
            "t!",
            "",
        ),
        (
            r"CREATE FUNCTION f() RETURNS void LANGUAGE sql SET standard_conforming_strings = off AS $$ UPDATE t SET a = 1 WHERE 'a' = '\141' $$",
            "update create",
            "t!",
            "all",
        ),
        (
            r"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1 /* \x2a/; DROP TABLE t; -- */'; RETURN NEW; END $$",
            "select create drop",
            "t!",
            "",
        ),
        (
            r"SELECT query_to_xml('SELECT a FROM t /* \x2a/ UNION SELECT b FROM u -- */', true, false, '')",
            "select",
            "t",
            "",
        ),
        (
            r"DO $$ BEGIN PERFORM query_to_xml('TABLE t /* \x2a/ UNION TABLE u -- */', true, false, ''); END $$",
            "select do",
            "t u",
            "",
        ),
        (r"DO $$ BEGIN PERFORM set_config('search\137path', 'x', false); END $$", "select do set", "", ""),
    ]);
}

#[test]
fn a_text_remembered_by_its_shape_does_the_same_with_the_setting_off() {
    for text in [
        r"SELECT a FROM t WHERE b = '\141' AND c LIKE '\%'",
        r"INSERT INTO t VALUES ('\x2a', '\\a', '\u0041')",
        r"UPDATE t SET a = '\n' WHERE b = '\061'",
        r"DELETE FROM t WHERE a IN ('\x31', '\\\\1')",
        r"SELECT regexp_replace(a, '\d', '\1') FROM t",
    ] {
        let reading = read(text.as_bytes());
        assert!(reading.by_shape, "{text}");
        assert_eq!(otherwise::otherwise(text.as_bytes(), &reading.analysis), None, "{text}");
    }
    // A verdict on one of these would be wrong on the next.
    for (text, otherwise) in [
        ("UPDATE t SET a = 1 WHERE 'a' = 'a'", false),
        (r"UPDATE t SET a = 1 WHERE 'a' = '\141'", true),
        (r"SELECT set_config('a\137b', 'x', true)", false),
        (r"SELECT set_config('search\137path', 'x', true)", true),
        (r"SELECT '\141'::regclass", false),
        (r"SELECT nextval('\141')", false),
        ("DO 'BEGIN NULL; END'", false),
        ("DO 'BEGIN /* \\x2a/ DROP TABLE t; -- */\n NULL; END'", true),
        (r"SELECT query_to_xml('TABLE t /* */', true, false, '')", false),
        (r"SELECT query_to_xml('TABLE t /* \x2a/ UNION TABLE u -- */', true, false, '')", true),
    ] {
        let reading = read(text.as_bytes());
        assert_eq!((reading.by_shape, reading.otherwise.is_some()), (false, otherwise), "{text}");
    }
}
