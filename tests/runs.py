"""What do tests that run sweeps share? A small sweep, the command in its own process, bit-for-bit comparison."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

#: Every kind of router: a reference, baselines, fixed, tuned, and blind twins, on one slice of one embedding.
SWEEP: Mapping[str, Any] = {
    "name": "small",
    "benchmarks": [{"name": "toolbox", "queries": 400}],
    "encoders": ["hash-ngrams"],
    "routers": [
        "oracle",
        "zero-router",
        "task-zero",
        {"name": "knn@10", "use": "knn", "k": 10, "twin": True},
        "knn",
        {"name": "linear", "twin": True},
    ],
    "seeds": 4,
    "protocol": {"bootstrap": 20, "tuning_budget": 6},
}

#: Columns of `unit` that are part of a result, and all rows that hang on it but for what is observed.
_TABLES = {
    "unit": """SELECT u.key, u.kind, u.state, u.n_train, u.n_validation, u.n_test, u.chosen, u.bootstrap,
                      u.embedding_sha256, u.result_digest FROM unit u ORDER BY u.key""",
    "metric": """SELECT u.key, m.name, m.value FROM metric m JOIN unit u ON u.id = m.unit_id
                 WHERE m.name NOT IN ('fit_seconds', 'route_us_per_query') ORDER BY u.key, m.name""",
    "frontier_point": """SELECT u.key, f.position, f.cost, f.score, f.price_of_cost, f.on_hull
                         FROM frontier_point f JOIN unit u ON u.id = f.unit_id ORDER BY u.key, f.position""",
    "decision": """SELECT u.key, d.preference, d.models FROM decision d JOIN unit u ON u.id = d.unit_id
                   ORDER BY u.key, d.preference""",
    "artifact": "SELECT embedding, start, stop, sha256, n_rows, dim FROM artifact ORDER BY embedding, start",
}


def write_sweep(folder: Path, **changes: Any) -> Path:
    """Write the small sweep, with some keys changed."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}))
    return path


def command(*arguments: str | Path) -> list[str]:
    """The `roadtest` command of this interpreter."""
    code = "import sys; sys.argv[0] = 'roadtest'; from orchestrator.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of roadtest, and some more."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ROADTEST_")}
    return {**kept, **more}


def roadtest(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    expect: int | None = 0,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, where its database is, and check its exit code unless any will do."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**(env or {})), capture_output=True, text=True, timeout=timeout
    )
    assert expect in (None, done.returncode), f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def run(sweep: Path, *options: str | Path, expect: int = 0, env: Mapping[str, str] | None = None) -> str:
    """`roadtest run` without a report, in the sweep file's folder; returns what it said on stderr."""
    return roadtest("run", sweep.name, "--no-report", *options, cwd=sweep.parent, env=env, expect=expect).stderr


#: A folder with a SQLite database, or the URL of a PostgreSQL database.
Database = Path | str


def select(database: Database, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a database; bound values (`?`) on SQLite alone."""
    if isinstance(database, str):
        import psycopg

        with psycopg.connect(database.replace("+psycopg", "")) as server:
            return server.execute(sql).fetchall()  # type: ignore[arg-type]
    with closing(sqlite3.connect(f"file:{database / 'roadtest.db'}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql, values).fetchall()


def deterministic(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every deterministic column of a database, by table, under content keys instead of row ids."""
    return {table: select(database, sql) for table, sql in _TABLES.items()}


def assert_same_results(
    database: Database, undisturbed: Mapping[str, Sequence[tuple[Any, ...]]], *, but: Collection[str] = ()
) -> None:
    """Fail unless every deterministic column is the undisturbed run's, bit for bit, and no divergence was seen.

    Args:
        database: To compare.
        undisturbed: As `deterministic` gave it.
        but: Keys of units that are left out.
    """
    found = deterministic(database)
    for table, every in undisturbed.items():
        rows = [row for row in every if row[0] not in but]
        assert rows, f"nothing to compare in {table}"
        ours = [row for row in found[table] if row[0] not in but]
        first = next((pair for pair in zip_longest(ours, rows) if pair[0] != pair[1]), None)
        assert first is None, f"{table} differs, first: {first[0]!r} instead of {first[1]!r}"
    assert select(database, "SELECT * FROM event WHERE kind = 'divergence'") == []


def outcomes(database: Database) -> Counter[str]:
    """Attempts by outcome."""
    return Counter(outcome for (outcome,) in select(database, "SELECT outcome FROM attempt"))


def executed_again(database: Database) -> list[tuple[Any, ...]]:
    """Units that got another attempt after one that was done."""
    return select(
        database,
        """SELECT u.key, later.outcome FROM attempt done JOIN attempt later
           ON later.unit_id = done.unit_id AND later.id > done.id JOIN unit u ON u.id = done.unit_id
           WHERE done.outcome = 'done'""",
    )


def write_plugin(folder: Path, module: str, source: str, **routers: str) -> Path:
    """Lay a router's file out as an installed package; returns the folder for PYTHONPATH.

    Args:
        folder: Where to write.
        module: Name of the file.
        source: Its content.
        routers: Class of each entry point.
    """
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    points = "\n".join(f"{name} = {module}:{cls}" for name, cls in routers.items())
    (info / "entry_points.txt").write_text(f"[roadtest.routers]\n{points}\n")
    return folder


def write_fragile(folder: Path) -> Path:
    """Lay the fragile router out as an installed package; returns the folder for PYTHONPATH."""
    return write_plugin(folder, "fragile", (Path(__file__).parent / "fragile.py").read_text(), fragile="Fragile")
