"""Every statement of docs/cookbook.md returns what the page shows, on both databases, and what it shows is true."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.corrected_t import nadeau_bengio
from orchestrator.store.copying import copy_database
from orchestrator.store.reading import run_query
from orchestrator.store.tables import metadata
from orchestrator.store.view_columns import VIEWS
from roadtest import compare
from tests.cookbook import PAGE, Recipe, answer, build, recipes
from tests.postgres import PostgresServer

RECIPES = recipes(PAGE.read_text(encoding="utf-8"))
SQL_PAGE = PAGE.with_name("sql.md")
#: Common table expressions of the views themselves, which SQLite names instead of the view.
INSIDE_VIEWS = {"named", "centre"}


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page's database."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROADTEST_DB", "ROADTEST_HOME", "ROADTEST_ARTIFACTS", "ROADTEST_SHARED"):
            patch.delenv(name, raising=False)
        yield build(tmp_path_factory.mktemp("cookbook"))


@pytest.fixture(scope="module")
def copied(sqlite_url: str, running_postgres: PostgresServer) -> Iterator[str]:
    """The same on PostgreSQL."""
    url = running_postgres.create_database()
    copy_database(sqlite_url, url)
    yield url
    running_postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> str:
    """The page's database, once on either."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "copied"))


def recipe(beginning: str) -> Recipe:
    """The one question that begins so."""
    [found] = [one for one in RECIPES if one.question.startswith(beginning)]
    return found


def asked(url: str, beginning: str) -> pd.DataFrame:
    """Its answer."""
    return run_query(url, recipe(beginning).sql)


def test_the_page_shows_what_its_statements_return(sqlite_url: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(RECIPES) == text.count("\n### ") == text.count("```sql\n") > 20
    found = {one.question: answer(sqlite_url, one.sql) for one in RECIPES}
    outdated = [one.question for one in RECIPES if not one.agrees(found[one.question])]
    assert outdated == [], "run: python -m tests.cookbook"
    for one in RECIPES:
        rows = run_query(sqlite_url, one.sql)
        assert len(one.output.splitlines()) == len(rows) + 1 > 1, f"{one.question}: no rows, or too wide to print"


def test_a_changed_answer_is_noticed() -> None:
    one = Recipe(question="?", sql="", output="router  auc\nknn    50.1234\n", observed=False, span=(0, 0))
    assert one.agrees("router  auc\nknn    50.1235\n")
    assert not one.agrees("router  auc\nknn    50.1334\n")
    assert not one.agrees("router  auc\nmlp    50.1234\n")
    assert not one.agrees("router  auc\nknn    50.1234\nmlp  1\n")
    seconds = Recipe(question="?", sql="", output="router  seconds\nknn    1.5\n", observed=True, span=(0, 0))
    assert seconds.agrees("router  seconds\nmlp    0.5\n")
    assert not seconds.agrees("router  hours\nmlp    0.5\n")
    assert not seconds.agrees("router  seconds\n")


def test_postgresql_answers_the_same(sqlite_url: str, copied: str) -> None:
    different = {}
    for one in RECIPES:
        lite, postgres = run_query(sqlite_url, one.sql), run_query(copied, one.sql)
        try:
            pd.testing.assert_frame_equal(lite, postgres, rtol=1e-9, atol=1e-9, check_dtype=False)
        except AssertionError as error:
            different[one.question] = str(error)
    assert different == {}


@pytest.mark.parametrize("page", [PAGE, SQL_PAGE], ids=lambda page: page.name)
def test_statements_read_only_what_is_promised(sqlite_url: str, page: Path) -> None:
    promised = {f"{t.name}.{c.name}" for t in metadata.tables.values() for c in t.columns if c.info.get("join")}
    promised |= {f"{name}.{column}" for name, view in VIEWS.items() for column in view.columns}
    statements = re.findall(r"```sql\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert statements
    read: set[str] = set()

    def watch(action: int, table: str | None, column: str | None, _: str | None, inside: str | None) -> int:
        if action == sqlite3.SQLITE_READ and column and inside not in {*VIEWS, *INSIDE_VIEWS}:
            read.add(f"{table}.{column}")
        return sqlite3.SQLITE_OK

    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.set_authorizer(watch)
        for sql in statements:
            assert not any(re.search(rf"\b{name}\b", sql) for name in INSIDE_VIEWS), sql
            read.clear()
            connection.execute(f"EXPLAIN {sql}").fetchall()
            assert read, sql
            assert read <= promised, f"{sorted(read - promised)} in {sql}"


def results(url: str, **where: Any) -> pd.DataFrame:
    """Rows of `results` of the sweep `cookbook` at the full training size."""
    frame = run_query(url, "SELECT * FROM results WHERE sweep = 'cookbook' AND train_size = 1 ORDER BY seed")
    for column, value in where.items():
        frame = frame[frame[column].isna() if value is None else frame[column] == value]
    return frame


def decisions(url: str, preference: str) -> pd.DataFrame:
    """Decisions of `cookbook` at the full training size under `wordllama`, with the outcomes of every model."""
    frame = run_query(
        url,
        f"""SELECT d.*, q.task, u.privileged, u.twin FROM decisions d JOIN unit u ON u.key = d.unit_key
            JOIN query q ON q.benchmark_id = u.benchmark_id AND q.key = d.query_key
            WHERE d.sweep = 'cookbook' AND d.train_size = 1 AND d.preference = '{preference}'""",
    )
    return frame[frame["encoder"].isna() | (frame["encoder"] == "wordllama")]


def outcomes(url: str, value: str) -> pd.DataFrame:
    """Scores or costs of the sweep's benchmark. [query, model]"""
    frame = run_query(
        url,
        """SELECT q.key, m.name, o.score, o.cost FROM outcome o JOIN query q ON q.id = o.query_id
           JOIN model m ON m.id = o.model_id JOIN benchmark b ON b.id = q.benchmark_id WHERE b.name = 'toolbox'""",
    )
    return frame.pivot(index="key", columns="name", values=value)


def test_intervals_are_those_of_the_verdicts(sqlite_url: str) -> None:
    shown = asked(sqlite_url, "Which router is best, and how sure").set_index("router")
    assert len(shown) == 11
    for router, row in shown.iterrows():
        rows = results(sqlite_url, router=router)
        rows = rows[rows["encoder"].isna() | (rows["encoder"] == "wordllama")]
        expected = nadeau_bengio(rows["auc_path"], rows["n_train"], rows["n_test"])
        # The page's quantile has four decimals.
        np.testing.assert_allclose([row["low"], row["high"]], expected.ci95, rtol=1e-4)
    pair = asked(sqlite_url, "Is one router really better").set_index("encoder")
    measured = compare("knn", "zero-router", sweep="cookbook", db=sqlite_url)
    measured = measured[measured["metric"] == "auc_path"].set_index("encoder")
    assert sorted(pair.index) == sorted(measured.index) == ["n-grams", "wordllama"]
    ours, theirs = pair.loc[measured.index], measured
    np.testing.assert_allclose(ours["difference"], theirs["difference"], rtol=1e-9)
    np.testing.assert_allclose(ours[["low", "high"]], theirs["ci95"].tolist(), rtol=1e-4)


def test_twins_encoders_and_curves_pair_the_right_rows(sqlite_url: str) -> None:
    def series(router: str, encoder: str | None) -> Any:
        return results(sqlite_url, router=router, encoder=encoder).set_index("seed")["auc_path"]

    twins = asked(sqlite_url, "Which routers learned").set_index(["router", "encoder", "train_size"])
    learned = series("ridge@1", "wordllama") - series("ridge@1 blind twin", "wordllama")
    row = twins.loc[("ridge@1", "wordllama", 1.0)]
    assert (row["learned"], row["won"], row["splits"]) == (pytest.approx(learned.mean()), (learned > 0).sum(), 5)
    encoders = asked(sqlite_url, "Which encoder is better").set_index(["router", "train_size"])
    apart = series("knn", "wordllama") - series("knn", "n-grams")
    assert encoders.loc[("knn", 1.0), "difference"] == pytest.approx(apart.mean())
    curve = asked(sqlite_url, "How many labels").set_index(["router", "train_size"])
    gained = series("ridge@1", "wordllama") - series("zero-router", None)
    assert curve.loc[("ridge@1", 1.0), "above_zero_router"] == pytest.approx(gained.mean())
    assert curve.loc[("ridge@1", 0.25), "labels"] < curve.loc[("ridge@1", 1.0), "labels"] / 3


def test_choices_are_counted_right(sqlite_url: str) -> None:
    chosen = decisions(sqlite_url, "high-performance")
    knn = chosen[chosen["router"] == "knn"]
    shares = asked(sqlite_url, "Which models does a router send").set_index("model")
    expected = knn["model"].value_counts(normalize=True)
    np.testing.assert_allclose(shares.loc[expected.index, "high_performance"], expected)
    np.testing.assert_allclose(shares.sum(), 1.0)

    scores, costs = outcomes(sqlite_url, "score"), outcomes(sqlite_url, "cost")
    dearest = costs.mean().idxmax()
    rows = knn[knn["model"] == dearest]
    vain = [
        bool(((costs.loc[row.query_key] < row.cost) & (scores.loc[row.query_key] >= row.score)).any())
        for row in rows.itertuples()
    ]
    shown = asked(sqlite_url, "Who chose the dearest").set_index("router").loc["knn"]
    assert 0 < shown["share"] == pytest.approx(len(rows) / len(knn))
    assert 0 < shown["in_vain"] == pytest.approx(np.mean(vain))

    right = asked(sqlite_url, "How often is the choice right").set_index("router")
    measured = run_query(
        sqlite_url,
        """SELECT r.router, avg(m.value) AS optimal FROM results r JOIN unit u ON u.key = r.unit_key
           JOIN metric m ON m.unit_id = u.id AND m.name = 'optimal_selection_rate:high-performance'
           WHERE r.sweep = 'cookbook' AND r.train_size = 1 AND (r.encoder = 'wordllama' OR r.encoder IS NULL)
                 AND r.router <> 'random' GROUP BY r.router""",
    ).set_index("router")["optimal"]
    assert len(right) == len(measured)
    np.testing.assert_allclose(right["optimal"], measured[right.index], rtol=1e-9)


def test_hard_queries_and_best_routers_by_task(sqlite_url: str) -> None:
    scores, costs = outcomes(sqlite_url, "score"), outcomes(sqlite_url, "cost")
    routed = decisions(sqlite_url, "high-performance")
    routed = routed[~routed["privileged"].astype(bool) & ~routed["twin"].astype(bool)]
    lost = scores.max(axis=1) - routed.groupby("query_key")["score"].mean()
    shown = asked(sqlite_url, "Which queries are hardest")
    np.testing.assert_allclose(shown["lost"], lost.nlargest(len(shown)))
    np.testing.assert_allclose(shown["lost"], lost[shown["query_key"]])

    balanced = decisions(sqlite_url, "balanced")
    balanced = balanced[~balanced["privileged"].astype(bool) & ~balanced["twin"].astype(bool)]
    balanced = balanced.assign(utility=100 * (balanced["score"] - 0.5 * balanced["cost"] / costs.mean().max()))
    mean = balanced.groupby(["task", "router"])["utility"].mean()
    best = asked(sqlite_url, "Which router is best at which task").set_index("task")
    np.testing.assert_allclose(best["utility"], mean.groupby("task").max()[best.index])


def test_targets_and_budgets_read_the_frontier(sqlite_url: str) -> None:
    points = run_query(
        sqlite_url,
        "SELECT * FROM frontier WHERE sweep = 'cookbook' AND train_size = 1 AND router = 'ridge@1 blind twin'",
    )
    points = points[points["encoder"] == "wordllama"]
    cheapest = points[points["score"] >= 0.6].groupby("seed")["cost"].min()
    row = asked(sqlite_url, "What does a given quality").set_index("router").loc["ridge@1 blind twin"]
    assert (row["splits"], row["cost"]) == (len(cheapest), pytest.approx(cheapest.mean()))
    assert row["splits"] < 5  # it misses the target somewhere
    best = points[points["cost"] <= 0.25].groupby("seed")["score"].max()
    row = asked(sqlite_url, "What quality does a given").set_index("router").loc["ridge@1 blind twin"]
    assert (row["splits"], row["score"]) == (len(best), pytest.approx(best.mean()))


def test_trouble_is_found(sqlite_url: str) -> None:
    """Against what `tests.tiny` leaves out, `tests.cookbook` breaks and the sweep files change."""
    missing = asked(sqlite_url, "What is missing")
    assert missing[["model", "queries", "observed", "missing"]].to_numpy().tolist() == [["large", 60, 53, 7]]
    failed = asked(sqlite_url, "What failed")
    assert failed[["router", "message", "units", "attempts"]].to_numpy().tolist() == [
        ["knn@5", "broken on purpose", 2, 3]
    ]
    assert asked(sqlite_url, "What was skipped")["units"].sum() == 5
    changed = asked(sqlite_url, "What changed").set_index("router")["same"].to_dict()
    assert changed == {"knn@20": 0, "ridge@1": 5, "zero-router": 5}


def test_tuning_is_counted_by_text_and_by_json(either: str) -> None:
    counted = asked(either, "What did tuning choose").set_index("choice")
    text = PAGE.read_text(encoding="utf-8")
    on_sqlite, on_postgresql = re.search(
        r"is `(chosen ->> .*?)` on SQLite and `(chosen::.*?)` on PostgreSQL", text
    ).groups()  # type: ignore[union-attr]
    frame = run_query(
        either,
        f"""SELECT encoder, chosen, {on_sqlite if either.startswith("sqlite") else on_postgresql} AS k FROM results
            WHERE sweep = 'cookbook' AND router = 'knn' AND train_size = 1""",
    )
    params = [json.loads(chosen)["params"] for chosen in frame["chosen"]]
    assert [int(k) for k in frame["k"]] == [found["k"] for found in params]
    frame = frame.assign(
        small=[found["k"] < 10 for found in params], cosine=[p["similarity"] == "cosine" for p in params]
    )
    for column, encoder in (("wordllama", "wordllama"), ("n_grams", "n-grams")):
        rows = frame[frame["encoder"] == encoder]
        assert counted[column].get("k at most 9", 0) == rows["small"].sum()
        assert counted.loc["k from 10 to 99", column] == (~rows["small"]).sum()
        assert counted.loc["cosine", column] == rows["cosine"].sum() > 0
