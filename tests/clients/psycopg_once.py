"""Runs one statement with the environment's connection and prints its first value."""
import sys

import psycopg

with psycopg.connect("") as connection:
    print(connection.execute(sys.argv[1]).fetchone()[0])
