"""Asks DuckDB about an archive's Parquet files and prints JSON lines: `duckdb_archive.py ARCHIVE statements|kinds|schema|readme`."""
import json
import pathlib
import re
import sys

import duckdb

archive, question = sys.argv[1], sys.argv[2]
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



def readme():
    """The README's own question, of this archive and whatever day it is."""
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    query = next(block for block in re.findall(r"```\n(.*?)```", text, re.S) if "read_parquet" in block)
    query = query.replace("data/archive", archive).replace("public.orders", "orders").rstrip().rstrip(";")
    query = re.sub(r"BETWEEN '[^']*' AND '[^']*'", "BETWEEN '2000-01-01 00:00:00Z' AND '2100-01-01 00:00:00Z'", query)
    return f"SELECT count(*) AS statements, sum(rows)::BIGINT AS rows FROM ({query})"


connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
questions = {"statements": STATEMENTS, "kinds": KINDS, "schema": SCHEMA}
answer = connection.execute(readme() if question == "readme" else questions[question])
names = [column[0] for column in answer.description]
for row in answer.fetchall():
    print(json.dumps(dict(zip(names, row))))
