"""The SQL of docs/sql.md gives every selection number that the report shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.sweep import Sweep
from roadtest import leaderboard, query, run

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
ROUTERS = [
    "oracle",
    "random",
    "best-single",
    "cheapest",
    "dearest",
    "zero-router",
    "task-zero",
    {"name": "knn@10", "use": "knn", "k": 10, "twin": True},
]
SELECTION = re.compile(r"utility_\w+|(selection_entropy|optimal_selection_rate|share):.+")


def statements() -> list[str]:
    """Every SQL statement of the page, in order."""
    return re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def recomputed(url: str) -> pd.Series:
    """The page's first two statements: value by unit and metric."""
    frame = pd.concat([query(sql, db=url) for sql in statements()[:2]])
    return frame.set_index(["unit_key", "name"])["value"].astype(float).sort_index()


def stored(url: str) -> pd.Series:
    """The same numbers as the units stored them."""
    frame = query("SELECT u.key AS unit_key, m.name, m.value FROM metric m JOIN unit u ON u.id = m.unit_id", db=url)
    frame = frame[frame["name"].str.fullmatch(SELECTION)]
    return frame.set_index(["unit_key", "name"])["value"].astype(float).sort_index()


def check(url: str, sweep: Sweep) -> None:
    """Run a sweep and compare all of its selection numbers with the page's SQL."""
    assert run(sweep, db=url, executor="local", workers=1).exit_code == 0
    ours, theirs = recomputed(url), stored(url)
    assert len(theirs) > 0
    assert list(ours.index) == list(theirs.index)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    means = query(statements()[2], db=url)
    shown = leaderboard(sweep.name, db=url)
    for row in means.itertuples():
        same = shown[
            (shown["benchmark"] == row.benchmark)
            & (shown["router"] == row.router)
            & (shown["formulation"] == row.formulation)
        ]
        np.testing.assert_allclose(same["utility_mean"], row.utility, rtol=0, atol=1e-9)


def test_toolbox(url: str) -> None:
    sweep = Sweep.from_dict(
        {
            "name": "selection",
            "benchmarks": [{"name": "toolbox", "queries": 150, "tasks": "each+all"}],
            "encoders": ["hash-ngrams"],
            "routers": ROUTERS,
            "formulation": ["utility", "selection"],
            "seeds": 2,
            "protocol": {"bootstrap": 0},
        }
    )
    check(url, sweep)
    for sql in statements()[3:]:
        assert len(query(sql, db=url)) > 0


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}")
def test_real_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADTEST_SHARED", str(SHARED))
    sweep = Sweep.from_dict(
        {
            "name": "real",
            "benchmarks": [
                {"name": "rb", "path": "data/tables/routerbench_part", "embed": "question", "tasks": "each+all"}
            ],
            "encoders": ["hash-ngrams"],
            "routers": ROUTERS,
            "formulation": ["utility", "selection"],
            "seeds": 2,
            "protocol": {"bootstrap": 0},
        }
    )
    check(f"sqlite:///{folder}/real.db", sweep)


def test_dearest_outcome_as_unit_of_cost(folder: Path) -> None:
    """The replacement that the page names for `cost_normalizer: max_observed`."""
    url = f"sqlite:///{folder}/max.db"
    sweep = Sweep.from_dict(
        {
            "name": "max",
            "benchmarks": [{"name": "toolbox", "queries": 150}],
            "encoders": ["hash-ngrams"],
            "routers": ["oracle", "zero-router", {"name": "knn@10", "use": "knn", "k": 10}],
            "seeds": 2,
            "protocol": {"bootstrap": 0, "cost_normalizer": "max_observed"},
        }
    )
    assert run(sweep, db=url, executor="local", workers=1).exit_code == 0
    text = PAGE.read_text(encoding="utf-8").replace("\n", " ")
    replacement = re.search(r"put `(\(SELECT max.*?\))` in the place of `b.c_ref`", text)
    assert replacement is not None
    frame = query(statements()[0].replace("b.c_ref", replacement[1]), db=url)
    ours = frame.set_index(["unit_key", "name"])["value"].astype(float).sort_index()
    np.testing.assert_allclose(ours, stored(url)[ours.index], rtol=0, atol=1e-9)
    assert not np.allclose(recomputed(url)[ours.index], ours)
