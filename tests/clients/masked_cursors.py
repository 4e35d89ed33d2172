"""Cursors as drivers make them, over a masked column: psycopg's in SQL, asyncpg's as portals with a row limit."""

import asyncio
import os
import ssl

import asyncpg
import psycopg

from cases import run

SECRET = "07805"
QUERY = "SELECT ssn, name FROM people ORDER BY id"


def nothing_secret(rows):
    assert len(rows) == 9 and rows[0][1] == "name 1", rows
    assert SECRET not in repr(rows), rows


def psycopg_named_cursors():
    with psycopg.connect("") as connection:
        for scrollable, hold in ((None, False), (True, False), (None, True)):
            with connection.cursor("portions", scrollable=scrollable, withhold=hold) as cursor:
                cursor.itersize = 2
                cursor.execute(QUERY)
                nothing_secret(list(cursor))
            connection.commit()


def psycopg_streams_row_by_row():
    with psycopg.connect("", autocommit=True) as connection:
        nothing_secret(list(connection.cursor().stream(QUERY)))


def asyncpg_portals():
    async def all_kinds():
        tls = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
        connection = await asyncpg.connect(host="localhost", ssl=tls)
        async with connection.transaction():
            nothing_secret([tuple(row) async for row in connection.cursor(QUERY, prefetch=2)])
            cursor = await connection.cursor(QUERY)
            rows = await cursor.fetch(1)
            await cursor.forward(1)
            rows += [None] + await cursor.fetch(3) + await cursor.fetch(100)
            rows[1] = ("", "")
            nothing_secret([tuple(row) for row in rows])
        statement = await connection.prepare(QUERY)
        nothing_secret([tuple(row) for row in await statement.fetch()])
        await connection.close()

    asyncio.run(all_kinds())


run([psycopg_named_cursors, psycopg_streams_row_by_row, asyncpg_portals])
