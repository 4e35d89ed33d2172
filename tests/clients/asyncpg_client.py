"""asyncpg: binary formats, prepared statements with named portals, and many sessions on one loop."""

import asyncio
import io
import os
import ssl

import asyncpg

from cases import LARGE, run

TABLE = f"asyncpg_{os.getpid()}"


def connect():
    if os.environ["PGSSLMODE"] == "disable":
        return asyncpg.connect(ssl=False)
    return asyncpg.connect(ssl=ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"]))


def on_a_connection(case):
    """Turns a coroutine over one connection into a case."""

    def whole():
        async def body():
            connection = await connect()
            try:
                await asyncio.wait_for(case(connection), 120)
            finally:
                await connection.close(timeout=10)

        asyncio.run(body())

    whole.__name__ = case.__name__
    return whole


async def queries_with_binary_values(connection):
    row = await connection.fetchrow(
        "SELECT $1::int, $2::text, $3::bytea, $4::timestamptz, $5::numeric, $6::int[]",
        7, "späße", b"\x00\xff", None, None, [1, 2, 3],
    )
    assert tuple(row) == (7, "späße", b"\x00\xff", None, None, [1, 2, 3]), row
    assert await connection.fetchval("SELECT 'simple'") == "simple"


async def prepared_statements_are_reused(connection):
    statement = await connection.prepare("SELECT $1::int * 2")
    for number in range(100):
        assert await statement.fetchval(number) == number * 2
    assert [attribute.type.name for attribute in statement.get_attributes()] == ["int4"]


async def cursors_fetch_in_portions(connection):
    async with connection.transaction():
        total = 0
        async for row in connection.cursor("SELECT generate_series(1, 1000)", prefetch=50):
            total += row[0]
        assert total == 500500, total


async def executemany_sends_a_pipeline(connection):
    await connection.execute(f"CREATE TABLE {TABLE}_many (n int, t text)")
    await connection.executemany(f"INSERT INTO {TABLE}_many VALUES ($1, $2)", [(n, f"row {n}") for n in range(5_000)])
    assert tuple(await connection.fetchrow(f"SELECT count(*), sum(n) FROM {TABLE}_many")) == (5_000, 12_497_500)
    await connection.execute(f"DROP TABLE {TABLE}_many")


async def an_error_leaves_the_session_usable(connection):
    for statement, kind in (("SELECT 1/0", asyncpg.DivisionByZeroError), ("SELEC", asyncpg.PostgresSyntaxError)):
        try:
            await connection.fetch(statement)
            raise AssertionError(statement)
        except kind:
            pass
    assert await connection.fetchval("SELECT 'on'") == "on"


async def copy_in_and_out(connection):
    await connection.execute(f"CREATE TABLE {TABLE}_copy (n int, t text)")
    await connection.copy_records_to_table(f"{TABLE}_copy", records=[(n, f"row {n}") for n in range(10_000)])
    out = io.BytesIO()
    await connection.copy_from_query(f"SELECT * FROM {TABLE}_copy ORDER BY n", output=out, format="csv")
    lines = out.getvalue().splitlines()
    assert len(lines) == 10_000 and lines[42] == b"42,row 42", lines[42]
    await connection.execute(f"DROP TABLE {TABLE}_copy")


async def cancel_stops_a_running_statement(connection):
    try:
        await connection.fetch("SELECT pg_sleep(60)", timeout=0.5)
        raise AssertionError("it ran to its end")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 'on'") == "on"


async def notifications_arrive(connection):
    heard = asyncio.Queue()
    await connection.add_listener("news", lambda _connection, _pid, _channel, payload: heard.put_nowait(payload))
    sender = await connect()
    await sender.execute("NOTIFY news, 'first'")
    await sender.close()
    assert await asyncio.wait_for(heard.get(), 10) == "first"


async def large_values_pass_both_ways(connection):
    text = await connection.fetchval("SELECT repeat('x', $1)", LARGE)
    assert len(text) == LARGE
    assert await connection.fetchval("SELECT length($1::text)", text) == LARGE
    data = await connection.fetchval("SELECT $1::bytea", b"\xab" * (LARGE // 4))
    assert data == b"\xab" * (LARGE // 4)


def a_hundred_sessions_at_once():
    async def session(number, ready, go):
        connection = await connect()
        await ready.put(number)
        await go.wait()
        value = await connection.fetchval("SELECT $1::int", number)
        await connection.close()
        return value

    async def body():
        ready, go = asyncio.Queue(), asyncio.Event()
        tasks = [asyncio.create_task(session(number, ready, go)) for number in range(100)]
        for _ in tasks:
            await asyncio.wait_for(ready.get(), 60)
        go.set()
        assert await asyncio.gather(*tasks) == list(range(100))

    asyncio.run(body())


run(
    [
        on_a_connection(queries_with_binary_values),
        on_a_connection(prepared_statements_are_reused),
        on_a_connection(cursors_fetch_in_portions),
        on_a_connection(executemany_sends_a_pipeline),
        on_a_connection(an_error_leaves_the_session_usable),
        on_a_connection(copy_in_and_out),
        on_a_connection(cancel_stops_a_running_statement),
        on_a_connection(notifications_arrive),
        on_a_connection(large_values_pass_both_ways),
        a_hundred_sessions_at_once,
    ]
)
