"""Asks DuckDB about an archive's Parquet files and prints JSON lines: `duckdb_archive.py ARCHIVE statements|kinds|schema|readme`."""
import json
import os
import pathlib
import re
import sys
import tempfile

import duckdb

archive, question = pathlib.Path(sys.argv[1]).absolute(), sys.argv[2]
trail = f"read_parquet('{archive}/parquet/*/*.parquet')"

# Requests with their outcomes: what `lockgate audit search --kind statement` shows, in one query.
STATEMENTS = f"""
WITH trail AS (SELECT * FROM {trail}),
outcomes AS (
  SELECT session, request, sum(rows)::BIGINT AS rows, sum(bytes)::BIGINT AS bytes, max(duration_us) AS duration_us,
         sum(masked)::BIGINT AS masked, min_by(error, sequence) FILTER (error IS NOT NULL) AS error
  FROM trail WHERE kind = 'outcome' GROUP BY ALL
)
SELECT r.shard || '-' || r.sequence AS id, strftime(r.time AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') AS time,
       r.session, r."user", r.groups, r.actor, r.target, r.client, r.application, r.claimed_user, r.statement, r.binds,
       r.classes, r.tables, r.decision, r.rule, o.rows, o.bytes, o.duration_us, o.error, o.masked
FROM trail r LEFT JOIN outcomes o USING (session, request)
WHERE r.kind = 'request' ORDER BY r.time, r.shard, r.sequence
"""
KINDS = f"SELECT kind, count(*) AS records FROM {trail} GROUP BY kind ORDER BY kind"
SCHEMA = f"SELECT column_name AS name, column_type AS type FROM (DESCRIBE SELECT * EXCLUDE (date) FROM {trail})"



# When the README's question is asked for.
README_BEGAN = "TIMESTAMPTZ '2026-11-20 03:12:00Z'"


def readme(connection):
    """The README's own question, word for word: what the archive holds is laid where and when it looks for it."""
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    query = next(block for block in re.findall(r"```\n(.*?)```", text, re.S) if "read_parquet" in block)
    shift = f"{README_BEGAN} + (time - (SELECT min(time) FROM {trail}))"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        day = pathlib.Path("data/archive/parquet/date=2026-11-20")
        day.mkdir(parents=True)
        moved = f"SELECT * EXCLUDE (date) REPLACE ({shift} AS time) FROM {trail}"
        connection.execute(f"COPY ({moved}) TO '{day}/moved.parquet' (FORMAT parquet)")
        answer = connection.execute(query)
        return [column[0] for column in answer.description], answer.fetchall()


connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
questions = {"statements": STATEMENTS, "kinds": KINDS, "schema": SCHEMA}
if question == "readme":
    names, rows = readme(connection)
else:
    answer = connection.execute(questions[question])
    names, rows = [column[0] for column in answer.description], answer.fetchall()
for row in rows:
    print(json.dumps(dict(zip(names, row)), default=str))
