"""What a psycopg session got, for the replay to agree with: prints one JSON object, query name -> rows as the server's text."""

import json

import psycopg

TYPES = (
    "SELECT id, id > 2 AS flag, id * 1.50 AS price, id / 3.0::float8 AS share, 1e20::float8 AS large, 1e-7::float4 AS small, "
    "NULL::int AS nothing, id::text || '\u00e9' AS word, 12345678901::int8 AS long, -0.00001234::numeric AS fine, "
    "'11111111-2222-3333-4444-555555555555'::uuid AS unique, date '2026-11-28' + id AS day, "
    "timestamp '2026-11-28 20:00:00.25' AS moment, time '12:34:56.7' AS clock, jsonb_build_object('id', id) AS document, '\\xdead'::bytea AS raw "
    "FROM visits ORDER BY id"
)
MASKED = "SELECT id, name, card_number AS plastic, ssn FROM customers ORDER BY id"


def texts(cursor):
    result = cursor.pgresult
    get = lambda row, column: result.get_value(row, column)
    rows = [[get(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return [[None if value is None else value.decode() for value in row] for row in rows]


got = {}
with psycopg.connect("", autocommit=True, prepare_threshold=1) as connection:
    cursor = connection.cursor()
    binary = connection.cursor(binary=True)
    for name, query in (("types", TYPES), ("masked", MASKED)):
        cursor.execute(query)
        got[name] = texts(cursor)
        for _ in range(3):
            binary.execute(query)
    cursor.execute("SELECT name, card_number FROM customers WHERE id = %s", (2,))
    got["bound"] = texts(cursor)
    try:
        cursor.execute("SELECT nonsense FROM customers")
    except psycopg.errors.UndefinedColumn as error:
        got["error"] = error.diag.message_primary
    with cursor.copy("COPY (SELECT id, 'word', NULL FROM visits ORDER BY id) TO STDOUT") as copy:
        got["copy"] = b"".join(bytes(block) for block in copy).decode()
with psycopg.connect("") as connection:
    with connection.cursor("portions") as cursor:
        cursor.itersize = 2
        cursor.execute("SELECT name, ssn FROM customers ORDER BY id")
        got["cursor"] = [list(row) for row in cursor]
print(json.dumps(got))
