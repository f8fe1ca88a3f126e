"""Studies: what they compute is units like any other, and their findings sit in SQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROUTERS = [
    "zero-router",
    {"name": "knn@5", "use": "knn", "k": 5},
    {"name": "ridge", "use": "linear", "penalty": 1.0},
]


@pytest.fixture
def run(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> Callable[..., Path]:
    def run(study: Any, **changes: Any) -> Path:
        keys = {"encoders": [{"name": "ngrams", "use": "hash-ngrams", "dim": 32}], "routers": ROUTERS, "seeds": 2}
        path = write_sweep(study=study, **{**keys, **changes})
        ended = cli("run", path, "--executor", "local", "--no-report")
        assert ended.code == 0, ended.err
        return path

    return run


def rows(cli: Any, query: str) -> list[dict[str, Any]]:
    ended = cli("sql", query, "--json")
    assert ended.code == 0, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def test_maintenance_finds_what_growing_a_router_finds(cli: Any, run: Any) -> None:
    run({"kind": "maintenance", "labelled": 10})
    assert rows(cli, "SELECT count(*) AS n FROM results") == [{"n": 0}]
    found = rows(cli, "SELECT * FROM findings WHERE quantity = 'auc_path' ORDER BY seed, position")
    assert {row["router"] for row in found} == {"knn@5"}  # the others have to be fitted anew
    assert {row["seed"] for row in found} == {0, 1}
    ways = [row["label"] for row in found if row["seed"] == 0]
    assert ways[:3] == ["queries: stale", "queries: updated", "queries: refit"]
    assert ways[3:] == ["model: stale", "model: updated", "model: refit", "model: refit, all labelled"]
    by_label = {row["label"]: row for row in found if row["seed"] == 0}
    # A table that took the labels in is the table that was made of them.
    assert by_label["queries: updated"]["value"] == by_label["queries: refit"]["value"]
    assert by_label["model: updated"]["x"] == 10
    assert by_label["queries: updated"]["measure"] == "maintenance"


def test_scaling_measures_each_size_and_bytes_grow_with_a_table(cli: Any, run: Any) -> None:
    run({"kind": "scaling", "sizes": [200, 400]})
    found = rows(cli, "SELECT router, quantity, x, value FROM findings ORDER BY router, quantity, x")
    assert {(row["router"], row["x"]) for row in found} == {(r, x) for r in ("knn@5", "ridge") for x in (200.0, 400.0)}
    value = {(row["router"], row["quantity"], row["x"]): row["value"] for row in found}
    assert value["knn@5", "router_bytes", 400.0] == pytest.approx(2 * value["knn@5", "router_bytes", 200.0], rel=0.01)
    assert value["ridge", "router_bytes", 400.0] == value["ridge", "router_bytes", 200.0]
    assert all(value[router, "route_us_per_query", 400.0] > 0 for router in ("knn@5", "ridge"))


def test_a_learning_curve_has_its_sizes_and_measures_nothing(cli: Any, run: Any) -> None:
    run("learning-curve", routers=["zero-router", {"name": "knn@1", "use": "knn", "k": 1}])
    sizes = rows(cli, "SELECT DISTINCT train_size FROM results ORDER BY 1")
    assert [row["train_size"] for row in sizes] == [0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0]
    assert rows(cli, "SELECT count(*) AS n FROM findings") == [{"n": 0}]


def test_locality_measures_the_embedding_and_evaluates_every_dose(cli: Any, run: Any) -> None:
    run({"kind": "locality", "doses": [0.5, 1.0], "permutations": 19})
    found = rows(
        cli, "SELECT label, value AS p FROM findings WHERE quantity = 'p' AND encoder = 'ngrams' ORDER BY label"
    )
    assert [row["label"] for row in found] == ["", "model-centred", "same task"]
    assert all(0.05 <= row["p"] <= 1 for row in found)
    curve = rows(cli, "SELECT label, x, value, low, high FROM findings WHERE quantity = 'agreement' ORDER BY label, x")
    assert [row["label"] for row in curve] == [""] * 15 + ["model-centred"] * 15
    assert all(point["low"] <= point["high"] for point in curve)
    labels = rows(cli, "SELECT DISTINCT label FROM findings WHERE quantity = 'apart' ORDER BY 1")
    assert [row["label"] for row in labels] == ["balanced", "high-performance", "low-cost", "score"]
    encoders = rows(cli, "SELECT DISTINCT encoder FROM results WHERE router = 'knn@5' ORDER BY 1")
    assert [row["encoder"] for row in encoders] == ["ngrams", "ngrams, 100% permuted", "ngrams, 50% permuted"]
    assert cli("report").code == 0
    page = Path("roadtest-report/small.html").read_text()
    assert "What is left without locality? ngrams" in page
    assert "Is performance local? ngrams" in page


def test_measures_resume_and_can_be_declared_void(cli: Any, run: Any) -> None:
    path = run({"kind": "scaling", "sizes": [200]})
    before = rows(cli, "SELECT unit_key, quantity, value FROM findings ORDER BY unit_key, position")
    again = cli("run", path, "--executor", "local", "--no-report")
    assert again.code == 0
    assert rows(cli, "SELECT unit_key, quantity, value FROM findings ORDER BY unit_key, position") == before
    assert rows(cli, "SELECT kind, state, n FROM progress WHERE kind = 'measure'") == [
        {"kind": "measure", "state": "done", "n": 2}
    ]


def test_a_fitted_encoder_is_refused_where_rows_must_not_depend_on_the_split(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path]
) -> None:
    path = write_sweep(study="scaling", encoders=["tfidf-svd"], routers=ROUTERS)
    ended = cli("plan", path)
    assert ended.code == 2
    assert "encoder 'tfidf-svd' is fitted on each split" in ended.err


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("scalling", "study.kind"),
        ({"kind": "locality", "dose": [0.5]}, "did you mean 'doses'"),
        ({"kind": "locality", "doses": [1.5]}, "1.5 is not a fraction"),
        ({"kind": "scaling", "sizes": []}, "study.sizes"),
    ],
)
def test_bad_studies_are_named(
    study: Any, message: str, cli: Any, tiny: Path, write_sweep: Callable[..., Path]
) -> None:
    ended = cli("plan", write_sweep(study=study))
    assert ended.code == 2
    assert message in ended.err
