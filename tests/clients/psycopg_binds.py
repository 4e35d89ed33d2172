"""psycopg 3 sends one NULL, one text and one binary value, for the audit to tell apart."""

import psycopg

with psycopg.connect("", autocommit=True) as connection:
    connection.execute("SELECT %s::text, %s::text, %b::bytea /* b2 */", (None, "text", b"\x00\xffA"))
