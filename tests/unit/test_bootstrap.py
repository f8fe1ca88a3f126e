"""Resamples against the same areas of really repeated queries."""

from __future__ import annotations

import numpy as np
import pytest

from workers.metrics import areas, bootstrap, frontier
from workers.routers.base import Mixture, Prediction

GROUPS = [f"q{i:03}" for i in range(200)]


def test_draws_resample_whole_groups() -> None:
    counts = bootstrap.multiplicities(GROUPS, 0, "suite", "prompt", 500)
    assert counts.shape == (500, 200)
    assert counts.min() == 0
    assert (counts.sum(axis=1) == 200).all()
    # Each count is binomial(200, 1/200): variance 199/200, and its mean over 100 000 counts is exactly 1.
    assert counts.var() == pytest.approx(199 / 200, abs=0.03)
    # Mean of one group over 500 draws: sd 0.045.
    assert np.abs(counts.mean(axis=0) - 1).max() < 0.25


def test_draws_depend_on_seed_suite_and_column_alone() -> None:
    draws = bootstrap.multiplicities(GROUPS, 0, "suite", "prompt", 20)
    np.testing.assert_array_equal(draws, bootstrap.multiplicities(GROUPS, 0, "suite", "prompt", 20))
    np.testing.assert_array_equal(draws[:5], bootstrap.multiplicities(GROUPS, 0, "suite", "prompt", 5))
    for other in ((1, "suite", "prompt"), (0, "other", "prompt"), (0, "suite", "question")):
        assert (draws != bootstrap.multiplicities(GROUPS, *other, 20)).any()


@pytest.mark.parametrize("lambda_", ["exact", "grid"])
@pytest.mark.parametrize("block", [1, 1000, 1_000_000])
def test_areas_are_those_of_repeated_queries(
    lambda_: frontier.Lambda, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    rng = np.random.default_rng(0)
    s, c, scores = (rng.random((40, 4)) for _ in range(3))
    costs = rng.random((40, 4)) * np.array([0.1, 0.5, 1.0, 2.0])
    draws = rng.integers(0, 4, (12, 40))
    found = bootstrap.bootstrap_areas(frontier.walk(Prediction(scores=s, costs=c), scores, costs, lambda_), draws)
    for area, draw in zip(found, draws, strict=True):
        rows = np.repeat(np.arange(40), draw)
        again = frontier.walk(Prediction(scores=s[rows], costs=c[rows]), scores[rows], costs[rows], lambda_)
        assert area == pytest.approx(areas.auc_path(again.path()), abs=1e-9)


def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    s, c, scores, costs = (rng.random((60, 5)) * 1.5 for _ in range(4))
    walk = frontier.exact_walk(Prediction(scores=s, costs=c), scores, costs)
    draws = rng.integers(0, 3, (50, 60))
    whole = bootstrap.bootstrap_areas(walk, draws)
    monkeypatch.setattr(bootstrap, "BLOCK", 1)
    assert whole.tolist() == bootstrap.bootstrap_areas(walk, draws).tolist()


def test_every_query_once_is_the_area_itself() -> None:
    rng = np.random.default_rng(2)
    s, c, scores, costs = (rng.random((30, 3)) for _ in range(4))
    walk = frontier.exact_walk(Prediction(scores=s, costs=c), scores, costs)
    ones = np.ones((1, 30), dtype=np.int32)
    assert bootstrap.bootstrap_areas(walk, ones).tolist() == [areas.auc_path(walk.path())]


def test_a_mixture_resamples_its_expectation() -> None:
    # Expected (cost, score) per query: (0.5, 0.5) and (0.5, 1); a draw with query 1 twice and query 0 once.
    mixture = Mixture(probabilities=np.full((2, 2), 0.5))
    walk = frontier.mixture_walk(mixture, np.array([[1.0, 0.0], [1.0, 1.0]]), np.full((2, 2), 0.5))
    assert bootstrap.bootstrap_areas(walk, np.array([[1, 2]])) == pytest.approx([100 * 2.5 / 3 * 0.75])


def test_a_draw_without_any_test_query_is_nan() -> None:
    scores, costs = np.ones((2, 2)), np.full((2, 2), 0.5)
    walk = frontier.exact_walk(Prediction(scores=scores, costs=costs), scores, costs)
    assert np.isnan(bootstrap.bootstrap_areas(walk, np.array([[0, 0], [1, 1]]))).tolist() == [True, False]
