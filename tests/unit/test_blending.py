from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.metrics.frontier import walk
from workers.metrics.summary import both_areas
from workers.routers.base import Calls
from workers.routers.baselines import ZeroRouter
from workers.routers.blending import Blending, undominated
from workers.units import ProtocolOptions

RNG = np.random.default_rng(0)


@pytest.fixture
def three(make_side):
    """Means (cost, score) of (0.1, 0.5), (0.4, 0.8) and (1, 0.9): all on their frontier."""
    scores = [[0.4, 0.9, 0.8], [0.6, 0.7, 1.0]]
    costs = [[0.05, 0.5, 0.9], [0.15, 0.3, 1.1]]
    return make_side(np.eye(2), scores, costs)


def test_sets_that_no_other_beats_by_hand(three):
    blending = Blending().fit(three, RNG)
    # {0, 2} (0.55, 0.7) and {0, 1, 2} (0.5, 0.733) fall to model 1 alone at (0.4, 0.8).
    expected = [[0, 0, 1], [0, 0.5, 0.5], [0, 1, 0], [0.5, 0.5, 0], [1, 0, 0]]
    assert blending.shares_ == pytest.approx(np.array(expected))
    assert blending.train_costs_ == pytest.approx([1.0, 0.7, 0.4, 0.25, 0.1])
    assert blending.train_scores_ == pytest.approx([0.9, 0.85, 0.8, 0.65, 0.5])


def test_every_query_pays_for_one_call_whoever_answers(three):
    calls = Blending().fit(three, RNG).predict(three)
    assert isinstance(calls, Calls)
    assert calls.called is calls.answers and calls.answers.shape == (5, 2, 3)
    path = walk(calls, *three.outcomes).path()
    assert path.costs == pytest.approx([1.0, 0.7, 0.4, 0.25, 0.1])
    assert path.scores == pytest.approx([0.9, 0.85, 0.8, 0.65, 0.5])


def test_a_price_of_cost_chooses_a_set_by_training_means(three):
    calls = Blending().fit(three, RNG).predict(three)
    # The chain's slopes are 1 and 1/6.
    assert [calls.setting(price) for price in (0.0, 0.1, 0.5, 2.0)] == [0, 0, 2, 4]


def test_a_larger_size_adds_larger_sets(make_side):
    # A frontier that is almost a line, so that hardly any blend is beaten.
    costs = np.array([[0.1, 0.2, 0.55, 1.0]])
    side = make_side([[1.0]], 0.3 + 0.5 * costs - 0.001 * costs**2, costs)
    sizes = [set((Blending(size=k).fit(side, RNG).shares_ > 0).sum(axis=1).tolist()) for k in (1, 2, 3)]
    assert sizes == [{1}, {1, 2}, {1, 2, 3}]


def test_blends_of_one_are_the_zero_router(random_sides):
    train, queries = random_sides(n_models=6)
    rng = np.random.default_rng(4)
    scores, costs = rng.random((queries.n, 6)), rng.random((queries.n, 6))
    options = ProtocolOptions()
    ours, zero = (r.fit(train, RNG).predict(queries) for r in (Blending(size=1), ZeroRouter()))
    assert both_areas(ours, scores, costs, options) == pytest.approx(both_areas(zero, scores, costs, options))


def test_the_order_of_the_models_does_not_matter(random_sides):
    train, queries = random_sides(n_models=5)
    shuffled = np.array([3, 0, 4, 1, 2])
    moved = replace(train, scores=train.scores[:, shuffled], costs=train.costs[:, shuffled])
    plain, other = (Blending().fit(side, RNG).predict(queries) for side in (train, moved))
    assert other.answers == pytest.approx(plain.answers[..., shuffled])


def test_equal_models_make_one_setting(make_side):
    side = make_side(np.eye(2), [[1, 1, 1], [0, 0, 0]], np.full((2, 3), 0.3))
    assert len(Blending().fit(side, RNG).shares_) == 1


def test_undominated_by_hand():
    scores, costs = np.array([0.5, 0.5, 0.4, 0.9, 0.9, 0.9]), np.array([0.2, 0.2, 0.1, 0.8, 0.7, 0.7])
    assert undominated(scores, costs).tolist() == [4, 0, 2]


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="size must be a whole number"):
        Blending(size=0)
