from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.analysis.panels import panels
from orchestrator.analysis.tuning import expected_best, tunings


def split(router: str, seed: int, scores: Sequence[float] | None = None, **columns: Any) -> dict[str, Any]:
    """A result, tuned when it has validation scores; anything else overrides the defaults."""
    chosen = None
    if scores is not None:
        outcome = {"params": {"k": 10 + seed, "weights": "uniform"}, "criterion": "auc_path", "folds": 1}
        chosen = json.dumps(outcome | {"score": max(scores), "scores": list(scores)})
    defaults = {
        "benchmark": "toolbox", "encoder": "minilm", "router": router, "seed": seed, "train_size": 1.0, "n_train": 700,
        "n_test": 200, "formulation": "utility", "auc": 80.0, "auc_path": 80.0, "auc_rel": 0.5, "utility_mean": 40.0,
        "privileged": False, "query_blind": False, "twin_of": None, "sweep_position": 0, "chosen": chosen,
        "tuning_seconds": None if chosen is None else 1.0,
    }  # fmt: skip
    return defaults | columns


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8))
def test_expected_best_is_the_mean_over_all_subsets(scores: list[float]) -> None:
    for b in range(1, len(scores) + 1):
        every = np.mean([max(subset) for subset in combinations(scores, b)])
        assert expected_best(scores, b) == pytest.approx(every, abs=1e-9)


def test_expected_best_by_hand() -> None:
    # Pairs of 1, 2, 4: the larger ones are 2, 4 and 4.
    assert [expected_best([4, 1, 2], b) for b in (1, 2, 3)] == pytest.approx([7 / 3, 10 / 3, 4])
    # The largest of b of 1 ... n is (n + 1) b / (b + 1) on average (David & Nagaraja, Order Statistics).
    assert expected_best(range(1, 2001), 500) == pytest.approx(2001 * 500 / 501, rel=1e-12)


@pytest.mark.parametrize("b", [0, 4])
def test_no_draw_outside_the_scores(b: int) -> None:
    with pytest.raises(ValueError, match=f"draw {b} of 3"):
        expected_best([1, 2, 3], b)


def test_means_over_splits() -> None:
    frame = pd.DataFrame(
        [
            split("zero", 0, encoder=None),
            split("knn", 1, [50, 70, 60, 60], sweep_position=2, tuning_seconds=3),
            split("knn", 0, [30, 10, 20], sweep_position=2, tuning_seconds=2),
            split("knn twin", 0, [30, 10, 20], sweep_position=2, twin_of="knn"),
            split("linear", 0, [5], sweep_position=1),
        ]
    )
    [panel] = panels(frame)
    linear, knn = tunings(panel)
    assert (linear.router, linear.best_of, linear.n_splits) == ("linear", (5.0,), 1)
    assert (knn.router, knn.n_splits, knn.n_configurations, knn.folds) == ("knn", 2, (3, 4), (1,))
    # Of 10, 20, 30: 20, 80/3, 30. Of 50, 60, 60, 70: 60, (60 * 3 + 70 * 3) / 6 = 65, (60 + 70 * 3) / 4 = 67.5.
    assert knn.best_of == pytest.approx((40, (80 / 3 + 65) / 2, 48.75))
    assert (knn.best, knn.seconds, knn.criterion) == (50, 2.5, "auc_path")
    assert knn.chosen == {"k": (10, 11), "weights": ("uniform", "uniform")}


def test_a_selection_of_both_kinds_of_folds() -> None:
    frame = pd.DataFrame([split("knn", seed, [1.0, 2.0]) for seed in range(3)])
    outcome = json.loads(frame["chosen"][0]) | {"folds": 5, "criterion": "utility_mean"}
    frame = frame.assign(formulation="selection", auc=math.nan, chosen=[json.dumps(outcome), *frame["chosen"][1:]])
    [tuning] = tunings(panels(frame)[0])
    assert (tuning.folds, tuning.criterion) == ((1, 5), "utility_mean")


def test_fixed_routers_have_no_tuning() -> None:
    assert tunings(panels(pd.DataFrame([split("knn", 0), split("zero", 0, encoder=None)]))[0]) == []
