"""psycopg 3: what its users do, over whatever the libpq environment points at."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

from cases import LARGE, run

TABLE = f"psycopg_{os.getpid()}"


def connect(**options):
    return psycopg.connect("", autocommit=True, **options)


def connects_with_the_transport_asked_for():
    with connect() as connection:
        encrypted = connection.pgconn.ssl_in_use
        assert encrypted == (os.environ["PGSSLMODE"] != "disable"), encrypted
        assert connection.execute("SELECT 1 + 1").fetchone() == (2,)
        assert connection.info.server_version >= 150000


def parameters_of_many_types_come_back_equal():
    values = (7, -(2**62), 1.5, "späße 'quoted' \\ ", b"\x00\xff", None, True, [1, 2, None], {"a": [1]})
    with connect() as connection:
        row = connection.execute(
            "SELECT %s::int, %s::bigint, %s::float8, %s::text, %s::bytea, %s::text, %s::bool, %s::int[], %s::jsonb",
            values[:-1] + (psycopg.types.json.Jsonb(values[-1]),),
        ).fetchone()
        assert row == values, row
        binary = connection.cursor(binary=True).execute("SELECT %b::int, %b::bytea", (7, b"\x00\xff")).fetchone()
        assert binary == (7, b"\x00\xff"), binary


def prepared_statements_are_reused():
    with connect(prepare_threshold=0) as connection:
        for number in range(50):
            assert connection.execute("SELECT %s::int * 2", (number,), prepare=True).fetchone() == (number * 2,)
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0] >= 1
        connection.execute("DEALLOCATE ALL")
        connection.prepare_threshold = None
        assert connection.execute("SELECT %s::int", (3,)).fetchone() == (3,)


def an_error_leaves_the_session_usable():
    with connect() as connection:
        for statement in ("SELECT 1/0", "SELEC", "SELECT * FROM no_such_table"):
            try:
                connection.execute(statement)
                raise AssertionError(statement)
            except psycopg.Error as error:
                assert error.sqlstate in ("22012", "42601", "42P01"), error.sqlstate
        assert connection.execute("SELECT 'on'").fetchone() == ("on",)


def transactions_commit_and_roll_back():
    with psycopg.connect("") as connection:
        connection.execute(f"CREATE TABLE {TABLE}_tx (n int)")
        connection.commit()
        connection.execute(f"INSERT INTO {TABLE}_tx VALUES (1)")
        connection.rollback()
        with connection.transaction():
            connection.execute(f"INSERT INTO {TABLE}_tx VALUES (2)")
            try:
                with connection.transaction():
                    connection.execute(f"INSERT INTO {TABLE}_tx VALUES (3)")
                    raise psycopg.Rollback()
            except psycopg.Rollback:
                pass
        assert connection.execute(f"SELECT n FROM {TABLE}_tx").fetchall() == [(2,)]
        connection.execute(f"DROP TABLE {TABLE}_tx")
        connection.commit()


def several_statements_in_one_query_give_several_results():
    with psycopg.connect("", autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        cursor = connection.execute("SELECT 1; SELECT 2; SELECT 3")
        seen = [cursor.fetchone()[0]]
        while cursor.nextset():
            seen.append(cursor.fetchone()[0])
        assert seen == [1, 2, 3], seen


def pipeline_mode_keeps_order():
    with connect() as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(200)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(200))


def named_cursors_fetch_in_portions():
    with psycopg.connect("") as connection:
        with connection.cursor(name="portions") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT generate_series(1, 1000)")
            assert sum(row[0] for row in cursor) == 500500


def copy_in_and_out_in_text_and_binary():
    with connect() as connection:
        connection.execute(f"CREATE TABLE {TABLE}_copy (n int, t text)")
        with connection.cursor().copy(f"COPY {TABLE}_copy FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, f"row {number}\twith tab\n"))
        with connection.cursor().copy(f"COPY {TABLE}_copy FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            for number in range(20_000, 30_000):
                copy.write_row((number, f"row {number}"))
        assert connection.execute(f"SELECT count(*), sum(n) FROM {TABLE}_copy").fetchone() == (30_000, 449_985_000)
        for form in ("text", "binary"):
            with connection.cursor().copy(f"COPY (SELECT n, t FROM {TABLE}_copy ORDER BY n) TO STDOUT (FORMAT {form})") as copy:
                copy.set_types(["int4", "text"])
                rows = list(copy.rows())
            assert len(rows) == 30_000 and rows[5] == (5, "row 5\twith tab\n"), rows[5]
        connection.execute(f"DROP TABLE {TABLE}_copy")


def a_copy_the_client_breaks_off_leaves_the_session_usable():
    with connect() as connection:
        connection.execute(f"CREATE TABLE {TABLE}_broken (n int)")
        try:
            with connection.cursor().copy(f"COPY {TABLE}_broken FROM STDIN") as copy:
                copy.write_row((1,))
                raise KeyError("changed my mind")
        except KeyError:
            pass
        assert connection.execute(f"SELECT count(*) FROM {TABLE}_broken").fetchone() == (0,)
        connection.execute(f"DROP TABLE {TABLE}_broken")


def cancel_stops_a_running_statement():
    with connect() as connection:
        timer = threading.Timer(0.5, connection.cancel)
        timer.start()
        began = time.monotonic()
        try:
            connection.execute("SELECT pg_sleep(60)")
            raise AssertionError("it ran to its end")
        except psycopg.errors.QueryCanceled:
            pass
        assert time.monotonic() - began < 15
        assert connection.execute("SELECT 'on'").fetchone() == ("on",)


def notifications_arrive():
    with connect() as listener, connect() as sender:
        listener.execute("LISTEN news")
        sender.execute("NOTIFY news, 'first'")
        sender.execute("SELECT pg_notify('news', 'second')")
        heard = [note.payload for note in listener.notifies(timeout=10, stop_after=2)]
        assert heard == ["first", "second"], heard


def notices_arrive():
    with connect() as connection:
        heard = []
        connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'hello from the target'; END $$")
        assert heard == ["hello from the target"], heard


def large_values_pass_both_ways():
    with connect() as connection:
        text = connection.execute("SELECT repeat('x', %s)", (LARGE,)).fetchone()[0]
        assert len(text) == LARGE and set(text[:100] + text[-100:]) == {"x"}
        length, digest = connection.execute("SELECT length(%s::text), md5(%s::text)", (text, "x")).fetchone()
        assert (length, digest) == (LARGE, "9dd4e461268c8034f5c8564e155c67a6")
        data = connection.cursor(binary=True).execute("SELECT decode(repeat('ab', %s), 'hex')", (LARGE // 4,)).fetchone()[0]
        assert data == b"\xab" * (LARGE // 4)


def start_up_options_reach_the_target():
    with connect(options="-c work_mem=7MB -c search_path=pg_catalog", application_name="named-by-me") as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog",)
        assert connection.execute("SHOW application_name").fetchone() == ("named-by-me",)


def a_hundred_sessions_at_once():
    together = threading.Barrier(100)

    def session(number):
        with connect() as connection:
            together.wait(60)
            return connection.execute("SELECT %s::int + pg_backend_pid() * 0", (number,)).fetchone()[0]

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(session, range(100))) == list(range(100))


run(
    [
        connects_with_the_transport_asked_for,
        parameters_of_many_types_come_back_equal,
        prepared_statements_are_reused,
        an_error_leaves_the_session_usable,
        transactions_commit_and_roll_back,
        several_statements_in_one_query_give_several_results,
        pipeline_mode_keeps_order,
        named_cursors_fetch_in_portions,
        copy_in_and_out_in_text_and_binary,
        a_copy_the_client_breaks_off_leaves_the_session_usable,
        cancel_stops_a_running_statement,
        notifications_arrive,
        notices_arrive,
        large_values_pass_both_ways,
        start_up_options_reach_the_target,
        a_hundred_sessions_at_once,
    ]
)
