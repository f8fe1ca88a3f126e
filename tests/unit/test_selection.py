"""Selections worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from workers.metrics import selection

SCORES = np.array([[1.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
COSTS = np.array([[0.5, 0.1, 0.25], [0.3, 0.3, 0.1]])


def test_utility_is_a_mean_in_hundredths() -> None:
    chosen = selection.one_hot(np.array([2, 0]), 3)
    assert selection.utility(chosen, SCORES, COSTS, 0.5) == pytest.approx(100 * (1 - 0.125 + 0.5 - 0.15) / 2)


def test_expectations_of_a_mixture() -> None:
    even = np.full((2, 3), 1 / 3)
    assert selection.utility(even, SCORES, COSTS, 1.0) == pytest.approx(100 * ((2 - 0.85) / 3 + (1 - 0.7) / 3) / 2)
    # Query 0: one model of three is optimal; query 1: two of three.
    assert selection.optimal_rate(even, SCORES, COSTS) == pytest.approx(0.5)
    assert selection.entropy(selection.shares(even)) == pytest.approx(np.log2(3))


@pytest.mark.parametrize(
    ("choices", "rate"),
    [
        ([2, 0], 1.0),  # the cheaper of the two best; either of two that tie in score and cost
        ([2, 1], 1.0),
        ([0, 0], 0.5),  # best, but not the cheapest of the best
        ([1, 2], 0.0),  # cheapest, but not best
    ],
)
def test_optimal_is_the_cheapest_of_the_best(choices: list[int], rate: float) -> None:
    assert selection.optimal_rate(selection.one_hot(np.array(choices), 3), SCORES, COSTS) == rate


@pytest.mark.parametrize(("short", "rate"), [(5e-10, 1.0), (2e-9, 0.0)])
def test_scores_within_1e_9_are_as_good(short: float, rate: float) -> None:
    scores, costs = np.array([[1.0, 1.0 - short]]), np.array([[0.5, 0.1]])
    assert selection.optimal_rate(selection.one_hot(np.array([1]), 2), scores, costs) == rate


def test_shares_and_entropy_in_bits() -> None:
    chosen = selection.one_hot(np.array([0, 0, 1, 2]), 4)
    shares = selection.shares(chosen)
    assert shares.tolist() == [0.5, 0.25, 0.25, 0]
    assert selection.entropy(shares) == pytest.approx(1.5)
    assert selection.entropy(shares) == pytest.approx(entropy(shares, base=2))


def test_entropy_of_one_model_is_a_positive_zero() -> None:
    assert str(selection.entropy(np.array([0.0, 1.0]))) == "0.0"
