"""Connects, runs the statements given one after the other, and prints as JSON lines what it was told: notices and errors
with every field a user can read, or the rows. A statement that begins with `simple:` goes by the simple protocol; one that
begins with `sleep:` is only a pause."""

import asyncio
import json
import os
import ssl
import sys

import asyncpg


def say(**words):
    print(json.dumps(words), flush=True)


def fields(told):
    names = ("severity", "sqlstate", "message", "detail", "hint")
    return {name: getattr(told, name, None) or "" for name in names}


def complain(error):
    if isinstance(error, asyncpg.PostgresError):
        say(error={**fields(error), "message": error.args[0]})
    else:
        say(closed=f"{type(error).__name__}: {error}")


async def run(statement):
    if statement.startswith("sleep:"):
        return await asyncio.sleep(float(statement.removeprefix("sleep:")))
    if statement.startswith("simple:"):
        say(rows=await connection.execute(statement.removeprefix("simple:")))
    else:
        say(rows=[list(map(str, row)) for row in await connection.fetch(statement)])


async def main():
    global connection
    tls = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"]) if "PGSSLROOTCERT" in os.environ else False
    try:
        connection = await asyncpg.connect(ssl=tls, timeout=30)
    except Exception as error:
        return complain(error)
    connection.add_log_listener(lambda _, told: say(notice=fields(told)))
    for statement in sys.argv[1:]:
        try:
            await run(statement)
        except Exception as error:
            complain(error)
    await connection.close()


asyncio.run(main())
