from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.metrics.frontier import choose, exact_path
from workers.routers.base import mean_outcomes
from workers.routers.pairs import WinRateRouter, frontier_chain, outcomes_of_battles, scales

NAN = np.nan
RNG = np.random.default_rng(0)


class Told(WinRateRouter):
    """A router whose win rates are given."""

    def __init__(self, rates=None):
        self.rates = rates

    def fit(self, train, rng):
        self.keep_battles(train, None)
        return self

    def win_rates(self, queries):
        return np.asarray(self.rates)


def side_of(make_side, means, costs):
    """Two queries whose mean scores and costs are as given."""
    means = np.asarray(means)
    return make_side(np.eye(2), np.stack([means - 0.1, means + 0.1]), np.tile(costs, (2, 1)))


@pytest.mark.parametrize(
    ("means", "costs", "chain"),
    [
        ([0.3, 0.6, 0.8], [0.1, 0.3, 0.9], [0, 1, 2]),
        # The middle one lies below the line of its neighbours, exactly on it, and above it.
        ([0.3, 0.45, 0.7], [0.1, 0.5, 0.9], [0, 2]),
        ([0.3, 0.5, 0.7], [0.1, 0.5, 0.9], [0, 2]),
        ([0.3, 0.55, 0.7], [0.1, 0.5, 0.9], [0, 1, 2]),
        # Dearer and no better; dearer and worse; the cheapest is best; equal costs.
        ([0.5, 0.7, 0.7], [0.1, 0.2, 0.3], [0, 1]),
        ([0.8, 0.2, 0.5], [0.1, 0.2, 0.3], [0]),
        ([0.4, 0.6, 0.5], [0.2, 0.2, 0.2], [1]),
        ([0.6], [0.2], [0]),
        # Free of charge: the best alone.
        ([0.4, 0.6, 0.5], [0.0, 0.0, 0.0], [1]),
    ],
)
def test_the_chain_is_the_frontier_of_the_means(make_side, means, costs, chain):
    assert frontier_chain(side_of(make_side, means, costs)).tolist() == chain


def test_the_chain_does_not_depend_on_the_order_of_models_or_queries(random_sides):
    train, _ = random_sides(n_models=7, n_train=150)
    shuffled, rows = np.random.default_rng(1).permutation(7), np.random.default_rng(2).permutation(150)
    moved = replace(train, scores=train.scores[rows][:, shuffled], costs=train.costs[rows][:, shuffled])
    assert shuffled[frontier_chain(moved)].tolist() == frontier_chain(train).tolist()


def test_a_model_that_was_never_observed_is_on_no_chain(make_side):
    # The other one is the dearer by its mean: a model taken as of cost 1 would be the chain's first.
    side = make_side(np.eye(2), [[1, NAN], [0, NAN]], [[1.2, NAN], [1.4, NAN]])
    assert frontier_chain(side).tolist() == [0]


def test_battles_and_scales_by_hand():
    gaps = np.array([[1.0, 0.5], [0.0, -0.1], [-1.0, NAN], [NAN, 1e-12]])
    assert outcomes_of_battles(gaps) == pytest.approx(np.array([[1, 1], [0.5, 0], [0, NAN], [NAN, 0.5]]), nan_ok=True)
    assert scales(gaps).tolist() == pytest.approx([1.0, 0.3])
    assert scales(np.zeros((3, 1))).tolist() == [0.0]


def test_scores_add_up_along_the_chain_and_others_are_never_chosen(make_side):
    # Models 2 (0.5 at 0.1), 0 (0.75 at 0.3) and 3 (0.85 at 1) are the chain; 1 costs 0.9 and is worth 0.2.
    means, costs = [0.75, 0.2, 0.5, 0.85], [0.3, 0.9, 0.1, 1.0]
    side = side_of(make_side, means, costs)
    rates = [[0.8, 0.6], [0.1, 0.5]]
    router = Told(rates).fit(side, RNG)
    assert router.chain_.tolist() == [2, 0, 3]
    assert router.scales_ == pytest.approx([0.25, 0.1])
    prediction = router.predict(side)
    along = np.array([[0.5, 0.5 + 0.6 * 0.25, 0.65 + 0.2 * 0.1], [0.5, 0.5 - 0.8 * 0.25, 0.3]])
    assert prediction.scores[:, [2, 0, 3]] == pytest.approx(along)
    assert prediction.scores[:, 1] == pytest.approx([0.5 - 1, 0.3 - 1])
    assert prediction.costs[0] == pytest.approx([0.3, 1.0, 0.1, 1.0])
    for price in (0.0, 0.1, 1.0, 100.0):
        assert 1 not in choose(prediction, price)


def test_at_the_training_win_rates_it_predicts_the_training_means_of_binary_scores(random_sides):
    train, _ = random_sides(n_train=200)
    train = replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))
    battles = Told().keep_battles(train, None)
    router = Told(np.tile(battles.mean(axis=0), (train.n, 1))).fit(train, RNG)
    prediction, (scores, costs) = router.predict(train), mean_outcomes(train)
    assert prediction.scores[:, router.chain_] == pytest.approx(np.tile(scores[router.chain_], (train.n, 1)))
    assert prediction.costs[:, router.chain_] == pytest.approx(np.tile(costs[router.chain_], (train.n, 1)))


def test_with_two_models_the_price_of_cost_sweeps_routellms_threshold(make_side):
    rng = np.random.default_rng(3)
    scores = np.column_stack([rng.random(200) < 0.5, rng.random(200) < 0.8]).astype(float)
    side = make_side(rng.normal(size=(200, 3)), scores, np.tile([0.2, 0.9], (200, 1)))
    rates = rng.random(200)
    router = Told(rates[:, None]).fit(side, RNG)
    path = exact_path(router.predict(side), scores, side.costs)
    # Every threshold α of at least 1/2, as RouteLLM sweeps it: the strong model where p > α.
    thresholds = [0.5, *np.sort(rates[rates > 0.5])]
    strong = [rates > threshold for threshold in thresholds]
    swept = {(np.where(use, scores[:, 1], scores[:, 0]).mean(), np.where(use, 0.9, 0.2).mean()) for use in strong}
    found = set(zip(path.scores, path.costs, strict=True))
    assert len(found) == len(swept)
    assert np.array(sorted(found)) == pytest.approx(np.array(sorted(swept)))
    # And the price that a threshold stands for: λ = (2α - 1) · scale / (c_strong - c_weak).
    for threshold in (0.5, 0.63, 0.9):
        price = (2 * threshold - 1) * router.scales_[0] / (0.9 - 0.2)
        assert (choose(router.predict(side), price) == (rates > threshold)).all()


def test_the_selector_is_the_router_at_its_price(make_side):
    side = side_of(make_side, [0.4, 0.8], [0.2, 0.9])
    router = Told([[0.9], [0.6]]).fit(side, RNG)
    # Gains (2p - 1) · 0.4 are 0.32 and 0.08 for 0.7 more.
    for price, chosen in ((0.1, [1, 1]), (0.2, [1, 0]), (0.5, [0, 0])):
        router.price_ = price
        assert router.select(side).tolist() == chosen
