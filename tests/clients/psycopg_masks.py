"""psycopg 3 under masks: the ways its users ask, and never the value."""

import psycopg

from cases import run

SECRETS = ("4111111111111111", "5500005555555559", "078-05-1120", "219-09-9999")


def connect():
    return psycopg.connect("", autocommit=True, prepare_threshold=0)


def nothing_secret(rows):
    text = repr(rows)
    assert not any(secret in text for secret in SECRETS), text


def rows_in_text_and_binary_are_masked_when_prepared():
    with connect() as connection:
        for binary in (False, True, False):
            for _ in range(3):
                cursor = connection.cursor(binary=binary)
                try:
                    cursor.execute("SELECT id, card_number, ssn FROM customers WHERE id < %s ORDER BY id", (3,))
                except psycopg.errors.InsufficientPrivilege:
                    assert binary
                    continue
                rows = cursor.fetchall()
                assert len(rows) == 2 and rows[0][0] == 1, rows
                nothing_secret(rows)


def copy_out_is_masked_or_refused():
    with connect() as connection:
        for query in ("COPY customers TO STDOUT", "COPY (SELECT ssn FROM customers) TO STDOUT (FORMAT csv)"):
            try:
                with connection.cursor().copy(query) as copy:
                    nothing_secret(b"".join(bytes(block) for block in copy).decode())
            except psycopg.errors.InsufficientPrivilege:
                pass
        assert connection.execute("SELECT 1").fetchone() == (1,)


def a_named_cursor_is_masked_or_refused():
    with psycopg.connect("") as connection:
        try:
            with connection.cursor(name="portions") as cursor:
                cursor.execute("SELECT card_number, ssn FROM customers")
                nothing_secret(cursor.fetchall())
        except psycopg.errors.InsufficientPrivilege:
            pass


run([rows_in_text_and_binary_are_masked_when_prepared, copy_out_is_masked_or_refused, a_named_cursor_is_masked_or_refused])
