"""`sql` and `export` read the same of both databases, only read, and write Parquet that other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.store.copying import copy_database
from orchestrator.store.reading import run_query
from orchestrator.store.view_columns import VIEWS
from orchestrator.sweep import Sweep
from roadtest import run
from tests.postgres import PostgresServer
from tests.tiny import write_tables


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small sweep, done; no study, so that `findings` is empty, and no failure."""
    folder = tmp_path_factory.mktemp("reading")
    sweep = {
        "name": "small",
        "benchmarks": [{"name": "tiny", "path": str(write_tables(folder / "tiny"))}],
        "encoders": ["hash-ngrams"],
        "routers": ["oracle", "zero-router", {"name": "knn@5", "use": "knn", "k": 5}],
        "seeds": 2,
        "protocol": {"bootstrap": 0},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROADTEST_DB", "ROADTEST_HOME", "ROADTEST_ARTIFACTS"):
            patch.delenv(name, raising=False)
        assert run(Sweep.from_dict(sweep), db=f"sqlite:///{folder}/roadtest.db", executor="local").exit_code == 0
        yield f"sqlite:///{folder}/roadtest.db"


@pytest.fixture(scope="module")
def on_postgresql(on_sqlite: str, running_postgres: PostgresServer) -> Iterator[str]:
    """The same rows."""
    url = running_postgres.create_database()
    copy_database(on_sqlite, url)
    yield url
    running_postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> str:
    """The database, once on either."""
    return str(request.getfixturevalue(f"on_{request.param}"))


#: Numbers as both databases have them: an integer beside NULL, a sum and a mean of integers, doubles, text.
NUMBERS = """SELECT kind, max(seed) AS seed, count(*) AS n, sum(n_test) AS tests, avg(n_test) AS mean,
                    max(seconds) AS seconds FROM unit GROUP BY kind ORDER BY kind"""


def test_sql_prints_the_same_json_and_csv_of_both_databases(cli: Any, on_sqlite: str, on_postgresql: str) -> None:
    printed = []
    for url in (on_sqlite, on_postgresql):
        found = [cli("sql", NUMBERS, "--db", url, form).out for form in ("--json", "--csv")]
        rows = json.loads(found[0])
        assert [row["kind"] for row in rows] == ["embed", "evaluate"]
        embed, evaluate = rows
        assert (embed["seed"], embed["tests"], embed["mean"]) == (None, None, None)
        assert (type(evaluate["seed"]), type(evaluate["tests"]), type(evaluate["mean"])) == (int, int, float)
        head, first, second = found[1].splitlines()
        assert head == "kind,seed,n,tests,mean,seconds"
        assert first.split(",")[:5] == ["embed", "", "1", "", ""]
        assert second.split(",")[1] == str(evaluate["seed"])
        assert float(second.split(",")[5]) == evaluate["seconds"]
        printed.append([row | {"mean": row["mean"] and round(row["mean"], 9)} for row in rows])
    assert printed[0] == printed[1]


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_sql_only_reads_whatever_it_prints(cli: Any, either: str, form: str) -> None:
    before = run_query(either, "SELECT count(*) AS n FROM unit")
    for hostile in ("WITH gone AS (DELETE FROM unit RETURNING id) SELECT * FROM gone", "SELECT 1; DROP TABLE unit"):
        ended = cli("sql", hostile, "--db", either, form)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("error: ")
    assert run_query(either, "SELECT count(*) AS n FROM unit").equals(before)


def test_parquet_is_read_by_pandas_and_duckdb(cli: Any, either: str, tmp_path: Path) -> None:
    import duckdb

    assert cli("export", "--db", either, "--sweep", "small", "--out", tmp_path).code == 0
    assert {path.stem for path in tmp_path.glob("*.parquet")} == set(VIEWS)
    kinds = {"text": "VARCHAR", "integer": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN"}
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        for name, view in VIEWS.items():
            file = str(tmp_path / f"{name}.parquet")
            types = [row[1] for row in duck.execute("DESCRIBE SELECT * FROM read_parquet(?)", [file]).fetchall()]
            assert types == [kinds.get(column.kind, "TIMESTAMP WITH TIME ZONE") for column in view.columns.values()], (
                name
            )
            numbers = [
                column for column, found in view.columns.items() if found.kind in ("integer", "double", "boolean")
            ]
            summed = ", ".join([*(f"sum(CAST({column} AS DOUBLE)), count({column})" for column in numbers), "count(*)"])
            [sums] = duck.execute(f"SELECT {summed} FROM read_parquet(?)", [file]).fetchall()
            frame = run_query(either, f"SELECT * FROM {name} WHERE sweep = 'small'")
            expected = [v for c in numbers for v in (frame[c].astype(float).sum(min_count=1), frame[c].count())]
            ours = np.array([np.nan if value is None else value for value in sums], dtype=float)
            np.testing.assert_allclose(ours, [*expected, len(frame)], rtol=1e-12, err_msg=name)
            by_pandas = pd.read_parquet(file)
            assert list(by_pandas.columns) == list(view.columns)
            for column in numbers:
                np.testing.assert_array_equal(
                    by_pandas[column].astype(float), frame[column].astype(float), err_msg=column
                )
        # A question asked of the files alone.
        answered = duck.execute(
            "SELECT router, avg(auc_path) FROM read_parquet(?) WHERE encoder = 'hash-ngrams' GROUP BY router",
            [str(tmp_path / "results.parquet")],
        ).fetchall()
    board = run_query(
        either,
        "SELECT router, auc_path_mean FROM leaderboard WHERE sweep = 'small' AND encoder = 'hash-ngrams'",
    ).set_index("router")["auc_path_mean"]
    assert [router for router, _ in answered] == ["knn@5"]
    for router, mean in answered:
        assert mean == pytest.approx(board[router], rel=1e-12)
