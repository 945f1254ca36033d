"""Applies the *.sql files of a folder that have not been applied yet, each in one transaction, in order."""

import os
import pathlib
import sys

import psycopg2

connection = psycopg2.connect(os.environ["DATABASE_URL"])
with connection, connection.cursor() as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, at timestamptz DEFAULT now())")
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.sql")):
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO schema_migrations (name) VALUES (%s) ON CONFLICT DO NOTHING", (path.name,))
        if cursor.rowcount:
            cursor.execute(path.read_text())
            print(f"applied {path.name}")
        else:
            print(f"already there: {path.name}")
