"""The SQL of docs/sql.md gives every selection number that the report shows, and the right counts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.store import open_store
from orchestrator.store.views import NAMES as VIEWS
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
#: What names one result.
RESULT = ["sweep", "benchmark", "encoder", "router", "formulation", "train_size", "seed"]
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
    check_means(url, sweep)
    check_counts(url)
    check_disagreements(url, "zero-router")
    check_disagreements(url, "knn@10 blind twin")


def check_means(url: str, sweep: Sweep) -> None:
    """The third statement has every row of the leaderboard, which repeats routers without an encoder."""
    names = ["benchmark", "router", "formulation", "train_size"]
    means = query(statements()[2], db=url)
    means = means[means["sweep"] == sweep.name]
    shown = leaderboard(sweep.name, db=url).merge(means, on=names, suffixes=("", "_page"))
    shown = shown[shown["encoder_page"].isna() | (shown["encoder_page"] == shown["encoder"])]
    assert len(shown) == len(leaderboard(sweep.name, db=url))
    np.testing.assert_allclose(shown["utility"], shown["utility_mean"], rtol=0, atol=1e-9)


def check_counts(url: str) -> None:
    """By the fourth statement every result that decides names a model for each test query, at each preference."""
    counts = query(statements()[3], db=url)
    assert not counts.duplicated([*RESULT, "preference", "model"]).any()
    summed = counts.groupby([*RESULT, "preference"], dropna=False, as_index=False)["queries"].sum()
    results = query("SELECT * FROM results WHERE router <> 'random'", db=url)
    preferences = pd.DataFrame({"preference": ["low-cost", "balanced", "high-performance"]})
    expected = results[[*RESULT, "n_test"]].merge(preferences, how="cross")
    both = expected.merge(summed, on=[*RESULT, "preference"])
    assert len(both) == len(expected) == len(summed)
    assert (both["queries"] == both["n_test"]).all()


def check_disagreements(url: str, other: str) -> None:
    """The fifth statement, for knn@10 and another router, against the stored lists of decisions."""
    stored = query(
        """SELECT r.*, d.models FROM results r JOIN unit u ON u.key = r.unit_key
           JOIN decision d ON d.unit_id = u.id AND d.preference = 'balanced'""",
        db=url,
    )
    knn, others = (stored[stored["router"] == name] for name in ("knn@10", other))
    same = [name for name in RESULT if name != "router" and (name != "encoder" or others["encoder"].notna().all())]
    pairs = knn.merge(others, on=same, suffixes=("", "_other"))
    assert len(pairs) == len(knn)
    pairs["queries"] = [
        sum(a[k : k + 2] != b[k : k + 2] for k in range(0, len(a), 2))
        for a, b in zip(pairs["models"], pairs["models_other"], strict=True)
    ]
    shown = query(statements()[4].replace("'zero-router'", f"'{other}'"), db=url)
    names = [name for name in RESULT if name != "router"]
    assert not shown.duplicated([*names, "query_key"]).any()
    counted = shown.groupby(names).size()
    expected = pairs[pairs["queries"] > 0].set_index(names)["queries"].sort_index()
    assert counted.sort_index().to_dict() == expected.to_dict() != {}
    outcomes = query(
        """SELECT DISTINCT q.key, m.name, o.score
           FROM outcome o JOIN query q ON q.id = o.query_id JOIN model m ON m.id = o.model_id""",
        db=url,
    )
    score = outcomes.set_index(["key", "name"])["score"].to_dict()
    assert len(score) == len(outcomes)
    for row in shown.itertuples():
        assert row.a_model != row.b_model
        assert (row.a_score, row.b_score) == (score[row.query_key, row.a_model], score[row.query_key, row.b_model])


def test_several_of_everything(url: str) -> None:
    sweep: dict[str, Any] = {
        "name": "selection",
        "benchmarks": [{"name": "toolbox", "queries": 150, "tasks": "each+all"}],
        "encoders": ["hash-ngrams", {"name": "pairs", "use": "hash-ngrams", "n_max": 2}],
        "routers": ROUTERS,
        "formulation": ["utility", "selection"],
        "seeds": 2,
        "train_sizes": [0.5, 1.0],
        "protocol": {"bootstrap": 0},
    }
    check(url, Sweep.from_dict(sweep))
    # The same units under other names.
    renamed = {"name": "again", "encoders": [{"name": "ngrams", "use": "hash-ngrams"}], "formulation": ["utility"]}
    check(url, Sweep.from_dict(sweep | renamed))


def test_the_page_lists_every_view_with_its_columns(folder: Path) -> None:
    url = f"sqlite:///{folder}/empty.db"
    open_store(url).close()
    listed = re.findall(r"^\| `(\w+)` \| .* \| `(.*)` \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted(VIEWS)
    for view, columns in listed:
        assert columns.split(", ") == list(query(f"SELECT * FROM {view}", db=url).columns), view


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
