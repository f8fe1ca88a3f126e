"""What `describe` counts, by hand, and when it warns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.describe import describe

NAN = np.nan


def make(S: Any, C: Any, **changes: Any) -> Benchmark:
    n, m = np.shape(S)
    given: dict[str, Any] = {
        "name": "made",
        "queries": [f"q{i}" for i in range(n)],
        "prompts": [f"p{i}" for i in range(n)],
        "models": [Model(name=f"m{j}") for j in range(m)],
    }
    return Benchmark.build(**{**given, **changes}, S=S, C=C)


def test_counts_and_headroom_by_hand() -> None:
    b = make(
        [[0, 1], [1, 1], [0, 0], [NAN, 1], [1, NAN]],
        [[1, 4], [1, 4], [1, 4], [NAN, 4], [3, NAN]],
        prompts=["p", "q", "p", "r", "s"],
        tasks=["t", "t", "u", "u", "u"],
        models=[Model(name="small", family="S", price_in=0.1, price_out=0.2), Model(name="big")],
        meta={"licence": "MIT"},
    )
    d = describe(b)
    assert (d["n_queries"], d["n_models"], d["tasks"]) == (5, 2, {"t": 2, "u": 3})
    assert (d["n_groups"], d["n_source_groups"], d["n_duplicates"]) == (4, 4, 1)
    assert (d["n_missing"], d["missing_share"], d["n_complete"], d["complete_share"]) == (2, 0.2, 3, 0.6)
    assert d["c_ref"] == 4.0
    assert d["cost_spread"] == pytest.approx(4 / 1.5)  # small costs (1 + 1 + 1 + 3) / 4
    big, small = d["models"]
    assert (big["name"], big["n_observed"], big["mean_score"], big["cost_ratio"]) == ("big", 4, 0.75, 1.0)
    assert (small["family"], small["price_in"], small["price_out"]) == ("S", 0.1, 0.2)
    assert (small["mean_score"], small["mean_cost"], small["cost_ratio"]) == (0.5, 1.5, 0.375)
    # Three complete rows: small scores 1/3 at cost 1/4, big 2/3 at 1.
    h = d["headroom"]
    assert (h["best_single"], h["best_single_cost_ratio"]) == ("big", 1.0)
    assert h["best_single_score"] == pytest.approx(2 / 3)
    assert h["oracle_score"] == pytest.approx(2 / 3)
    # Hull (0,0) - (1/4, 1/3) - (1, 2/3): 1/24 + 3/4 * 1/2.
    assert h["zero_router_auc"] == pytest.approx(100 * (1 / 24 + 3 / 8))
    # Oracle: q0 big, q1 small, q2 small: (4 + 1 + 1) / 12 = 1/2 at 2/3; dearer, q0 small: 1/4 at 1/3.
    assert h["oracle_auc"] == pytest.approx(100 * (1 / 24 + 1 / 4 * 1 / 2 + 1 / 2 * 2 / 3))
    assert json.loads(json.dumps(d, allow_nan=False)) == d


def test_a_pool_too_large_for_the_auc_is_said() -> None:
    S = [[1, 1, NAN], [1, 1, NAN], [1, 0, 1], [1, NAN, 0], [0, 1, NAN]]
    d = describe(make(S, np.where(np.isnan(S), NAN, [[1.0, 2.0, 4.0]])))
    assert (d["n_complete"], d["auc_refused"]) == (1, True)
    assert "Only 1 of 5 queries" in d["warnings"][0]
    assert "AUC is refused: the pool is too large" in d["warnings"][0]
    assert "m2 (2), m1 (4), m0 (5)" in d["warnings"][0]


def test_half_of_the_rows_is_enough() -> None:
    d = describe(make([[1, 1], [1, NAN]], [[1, 2], [1, NAN]]))
    assert not d["auc_refused"]


def test_without_a_complete_row_there_is_no_headroom() -> None:
    d = describe(make([[1, NAN], [NAN, 1]], [[1, NAN], [NAN, 2]]))
    assert d["headroom"] is None
    assert d["auc_refused"]


@pytest.mark.parametrize(
    ("cost", "score", "warning"),
    [
        (0.09, 0.9, "m0, costs 0.09 of the dearest model's mean cost (under 0.1)"),
        (0.11, 0.9, None),
        (0.89, 0.9, None),
        (0.91, 0.9, "m0, costs 0.91 of the dearest model's mean cost (over 0.9)"),
        (0.5, 0.1, "m1, costs 1 of the dearest model's mean cost (over 0.9)"),
    ],
)
def test_a_best_single_model_that_decides_the_area_is_warned_of(cost: float, score: float, warning: str | None) -> None:
    # The oracle gains by the second query, so that routing is not pointless.
    d = describe(make([[score, 0.5, 0.0], [score, 0.5, 0.95]], [[cost, 1.0, 0.001]] * 2))
    assert (warning is None) == (d["warnings"] == [])
    assert warning is None or warning in d["warnings"][0]


def test_pools_without_anything_to_gain_are_warned_of() -> None:
    better = [[0.9, 0.2, 0.1], [0.8, 0.8, 0.0], [1.0, 0.2, 0.3]]
    (warning,) = describe(make(better, [[0.5, 1.0, 0.4]] * 3))["warnings"]
    assert warning.startswith(
        "Routing is pointless for quality: choosing the best model for every query would gain 0.0000"
    )
    assert "over m0 alone" in warning
    alone, *_ = describe(make([[0.5], [0.7]], [[1.0], [2.0]]))["warnings"]
    assert alone == "There is one model: nothing to route between."


def test_baselines_are_measured_on_test_sides_as_a_sweep_does() -> None:
    rng = np.random.default_rng(0)
    n = 200
    tasks = [f"t{i % 2}" for i in range(n)]
    # m0 answers t0 and m1 answers t1, at equal cost: knowing the task is worth as much as knowing everything.
    S = np.array([[i % 2 == 0, i % 2 == 1] for i in range(n)], dtype=float)
    d = describe(make(S, np.ones((n, 2)), tasks=tasks, prompts=[f"p{x}" for x in rng.permutation(n)]))
    found = d["on_test_sides"]
    # Cost 1 is reached by every choice: the hull from (0, 0) to (1, score) has half of the score's area.
    assert found["task-zero"] == found["task-oracle"] == found["oracle"] == pytest.approx(50.0)
    assert found["zero-router"] == pytest.approx(25.0, abs=5)
    assert describe(make([[0.5, 1.0]], [[1.0, 2.0]]))["on_test_sides"] is None


def test_equal_scores_make_the_cheaper_model_the_best_single() -> None:
    assert describe(make([[0.5, 0.5, 0.1]], [[1.0, 0.5, 0.01]]))["headroom"]["best_single"] == "m1"


def test_costs_that_hardly_differ_are_warned_of() -> None:
    d = describe(make([[0.1, 0.9]], [[1.0, 1.1]]))
    assert d["cost_spread"] == pytest.approx(1.1)
    assert any("only 1.10 times the cheapest" in warning for warning in d["warnings"])


def test_free_models_have_ratio_zero() -> None:
    d = describe(make([[0.25, 1.0]], [[0.0, 0.0]]))
    assert (d["c_ref"], d["cost_spread"]) == (0.0, None)
    assert [model["cost_ratio"] for model in d["models"]] == [0.0, 0.0]
    assert d["headroom"]["zero_router_auc"] == pytest.approx(100.0)
    assert any("Every cost is 0" in warning for warning in d["warnings"])
