"""How large is a database of 10^5 units? Projected from the units of one benchmark in a finished run's database.

`python -m tests.benchmarks.size DATABASE.db --benchmark mmlu-pro`: copies the SQLite file, keeps that benchmark's
evaluate units alone, and measures what hangs on them after VACUUM; then the same on a PostgreSQL of its own, by what
`roadtest db copy` calls.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg

from orchestrator.store import maintenance
from orchestrator.store.copying import copy_database
from tests.postgres import postgres_server

#: Tables that grow with the units; the others are there once for each benchmark and split.
OF_UNITS = ("unit", "sweep_unit", "attempt", "metric", "frontier_point", "decision")
UNITS = 100_000


def keep_one(file: Path, benchmark: str) -> int:
    """Leave the evaluate units of one benchmark in a database; returns how many."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        kept = "SELECT u.id FROM unit u JOIN benchmark b ON b.id = u.benchmark_id WHERE b.name = ?"
        for table in ("metric", "frontier_point", "decision", "attempt", "sweep_unit"):
            connection.execute(f"DELETE FROM {table} WHERE unit_id NOT IN ({kept})", (benchmark,))
        connection.execute("DELETE FROM artifact")
        connection.execute("DELETE FROM event")
        connection.execute(f"DELETE FROM unit WHERE id NOT IN ({kept})", (benchmark,))
        connection.execute("VACUUM")
        return int(connection.execute("SELECT count(*) FROM unit").fetchone()[0])


def sqlite_bytes(file: Path) -> tuple[int, int]:
    """Bytes of what grows with the units, indexes included, and of all."""
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute(
            """SELECT m.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_master m ON m.name = d.name
               GROUP BY m.tbl_name"""
        ).fetchall()
    return sum(n for table, n in rows if table in OF_UNITS), sum(n for _, n in rows)


def postgres_bytes(url: str) -> tuple[int, int]:
    """The same on PostgreSQL."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("VACUUM FULL")
        rows = connection.execute(
            """SELECT relname, pg_total_relation_size(oid) FROM pg_class
               WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""
        ).fetchall()
    return sum(n for table, n in rows if table in OF_UNITS), sum(n for _, n in rows)


def show(name: str, n: int, of_units: int, total: int) -> None:
    """A line of the table."""
    projected = (of_units / n * UNITS + total - of_units) / 1e9
    sys.stdout.write(
        f"{name}: {of_units / n:.0f} bytes per unit ({n} units), the rest {(total - of_units) / 1e6:.0f} MB; "
        f"{UNITS} units: {projected:.2f} GB\n"
    )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("--benchmark", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rt-size-") as folder:
        file = Path(folder) / "size.db"
        with closing(sqlite3.connect(options.database)) as source, closing(sqlite3.connect(file)) as target:
            source.backup(target)
        maintenance.upgrade(f"sqlite:///{file}")
        n = keep_one(file, options.benchmark)
        show("sqlite", n, *sqlite_bytes(file))
        with postgres_server() as server:
            url = server.create_database()
            copy_database(f"sqlite:///{file}", url)
            show("postgresql", n, *postgres_bytes(url))


if __name__ == "__main__":
    main()
