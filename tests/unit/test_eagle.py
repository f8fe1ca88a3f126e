from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from workers.metrics.frontier import choose
from workers.routers.base import mean_outcomes
from workers.routers.eagle import ORDERS, START, Eagle, battles, expected, local_ratings, played
from workers.sides import subset

NAN = np.nan


def rng():
    return np.random.default_rng(3)


def by_hand(ratings, outcomes, k):
    """One query's simultaneous battles, written out."""
    moved = list(ratings)
    present = [i for i, s in enumerate(outcomes) if not np.isnan(s)]
    for i in present:
        surprises = []
        for j in present:
            if i != j:
                result = 1.0 if outcomes[i] > outcomes[j] else 0.5 if outcomes[i] == outcomes[j] else 0.0
                surprises.append(result - 1 / (1 + 10 ** ((ratings[j] - ratings[i]) / 400)))
        if surprises:
            moved[i] += k * sum(surprises) / len(surprises)
    return moved


def shuffled(side, columns):
    return replace(
        side,
        models=tuple(side.models[j] for j in columns),
        scores=side.scores[:, columns],
        costs=side.costs[:, columns],
    )


def test_a_trace_of_two_models_by_hand():
    # Plain Elo at K = 32: win 1000:1000 -> +16; loss at 1016:984, expected 1 / (1 + 10^(-32/400)) = 0.545922;
    # draw at 998.530:1001.470, expected 0.495771.
    ratings = np.array([1000.0, 1000.0])
    trace = []
    for row in battles(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])):
        ratings = played(ratings, row, 32.0)
        trace.append(ratings)
    assert trace[0] == pytest.approx([1016, 984])
    assert trace[1] == pytest.approx([1016 - 32 * 0.5459220, 984 + 32 * 0.5459220], abs=1e-4)
    assert trace[2] == pytest.approx([998.530496 + 32 * (0.5 - 0.4957696), 1001.469504 - 32 * 0.0042304], abs=1e-3)


def test_battles_of_one_query_are_simultaneous_means_over_the_opponents():
    outcomes = np.array([[1, 0, 1, 0.5], [0, NAN, 1, 1], [NAN, NAN, 1, NAN], [0, 0, 0, 0]])
    ratings = np.array([1000.0, 1100.0, 950.0, 1010.0])
    for row, fought in zip(outcomes, battles(outcomes), strict=True):
        after = played(ratings, fought, 24.0)
        assert after == pytest.approx(by_hand(ratings, row, 24.0), abs=1e-9)
        ratings = after


def test_neighbours_fight_from_the_farthest_to_the_nearest():
    outcomes = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    index = np.array([[1, 2, 0]])
    ratings = [START, START]
    for query in (0, 2, 1):
        ratings = by_hand(ratings, outcomes[query], 32.0)
    assert local_ratings(battles(outcomes), 32.0, index, np.ones((1, 3)))[0] == pytest.approx(ratings)


def test_global_ratings_are_played_in_random_orders(make_side):
    # Five times the same query: every order is the same.
    side = make_side(np.eye(5), np.tile([1.0, 0.0, 0.5], (5, 1)), np.ones((5, 3)))
    ratings = [START] * 3
    for _ in range(5):
        ratings = by_hand(ratings, [1.0, 0.0, 0.5], 32.0)
    found = Eagle().fit(side, rng()).ratings_
    assert found == pytest.approx(np.tile(ratings, (ORDERS, 1)))


def test_the_mean_over_orders_forgets_the_order_of_the_benchmark(make_side):
    # The first model wins the first 300 queries, then loses 100: in order a rating far below, on average above.
    scores = np.repeat([[1.0, 0.0], [0.0, 1.0]], [300, 100], axis=0)
    ratings = Eagle().fit(make_side(np.eye(400), scores, np.ones((400, 2))), rng()).ratings_.mean(axis=0)
    assert ratings[0] > ratings[1]


def test_a_prediction_by_hand(make_side):
    train = make_side([[1, 0], [0, 1]], [[1.0, 0.0], [1.0, 1.0]], [[0.2, 0.1], [0.4, 0.1]])
    router = Eagle(global_weight=0.25, neighbours=1).fit(train, rng())
    prediction = router.predict(train)
    # Local ratings on the first query: 1016 and 984.
    gap = 0.25 * (router.ratings_[:, 0] - router.ratings_[:, 1]).mean() + 0.75 * 32
    win = 1 / (1 + 10 ** (-gap / 400))
    # Expected against a random one of the pool, itself included: (½ + win) / 2; the mean score is (1 + ½) / 2.
    assert prediction.scores[0] == pytest.approx([0.75 + win - 0.5, 0.75 + 0.5 - win])
    assert prediction.costs[0] == pytest.approx([0.3, 0.1])


def test_expected_results_are_differences_of_binary_scores():
    # Chances p of scoring 1, independent: E[result] = ½ + (p - p') / 2 by enumeration.
    p = np.array([0.9, 0.4, 0.7])
    results = np.zeros((3, 3))
    for scores in itertools.product((0, 1), repeat=3):
        s = np.array(scores)
        chance = np.prod(np.where(s, p, 1 - p))
        results += chance * (0.5 + 0.5 * np.sign(s[:, None] - s))
    assert results.mean(axis=1) * 2 - 1 + p.mean() == pytest.approx(p)


def test_global_ratings_alone_are_blind_to_queries(random_sides):
    train, queries = random_sides()
    scores = Eagle(global_weight=1.0).fit(train, rng()).predict(queries).scores
    assert (scores == scores[:1]).all()


def test_models_that_do_the_same_are_predicted_the_same_and_the_cheaper_is_chosen(random_sides):
    train, queries = random_sides(n_models=3)
    scores = np.nan_to_num(train.scores)[:, [1, 0, 0, 2]]
    tied = replace(
        train, models=(*train.models, train.models[0]), scores=scores, costs=np.ones_like(scores) * [0.4, 0.3, 0.2, 0.5]
    )
    prediction = Eagle().fit(tied, rng()).predict(queries)
    assert (prediction.scores[:, 1] == prediction.scores[:, 2]).all()
    assert not (choose(prediction, 0.0) == 1).any()
    assert (choose(prediction, 0.0) == 2).any()


@pytest.mark.parametrize("price", [None, 0.5])
def test_the_order_of_models_does_not_matter(random_sides, price):
    train, queries = random_sides(n_models=5)
    columns = np.array([3, 0, 4, 1, 2])
    if price is None:
        plain = Eagle().fit(train, rng()).predict(queries).scores
        other = Eagle().fit(shuffled(train, columns), rng()).predict(queries).scores
        assert other == pytest.approx(plain[:, columns], abs=1e-9)
    else:
        plain = Eagle().fit_selector(train, price, rng()).select(queries)
        other = Eagle().fit_selector(shuffled(train, columns), price, rng()).select(queries)
        assert (columns[other] == plain).all()


def test_the_order_in_which_queries_are_handed_in_does_not_matter(random_sides):
    train, queries = random_sides()
    moved = subset(train, np.random.default_rng(1).permutation(train.n))
    plain, other = (Eagle().fit(side, rng()).predict(queries).scores for side in (train, moved))
    assert other == pytest.approx(plain, abs=1e-9)


def test_as_a_selector_battles_are_about_utility(make_side):
    # Equal scores; at a price the cheaper wins every battle.
    side = make_side(np.eye(6), np.ones((6, 2)), np.tile([0.9, 0.1], (6, 1)))
    router = Eagle().fit_selector(side, 0.5, rng())
    assert (router.ratings_[:, 1] > router.ratings_[:, 0]).all()
    assert (router.select(side) == 1).all()


def test_more_queries_are_played_from_the_ratings_that_there_are(make_side):
    first = make_side(np.eye(4)[:1], [[1.0, 0.0]], [[0.2, 0.1]])
    more = make_side(np.eye(4)[1:], np.tile([0.0, 1.0], (3, 1)), np.ones((3, 2)))
    router = Eagle().fit(first, rng()).partial_fit(more, rng())
    ratings = by_hand([START, START], [1.0, 0.0], 32.0)
    for _ in range(3):
        ratings = by_hand(ratings, [0.0, 1.0], 32.0)
    assert router.ratings_ == pytest.approx(np.tile(ratings, (ORDERS, 1)))
    assert router.train_.n == 4
    # The neighbours of a query near the new ones are the new ones.
    assert router.predict(more).scores[0, 1] > router.predict(more).scores[0, 0]


def test_a_new_model_enters_at_the_mean_and_moves_alone(make_side):
    old = make_side(np.eye(3), [[1.0, 0.0]] * 3, np.ones((3, 2)))
    router = Eagle().fit(old, rng())
    before = router.ratings_.copy()
    wide = make_side(np.eye(3), [[1.0, 0.0, 1.0]] * 3, np.ones((3, 3)))
    labelled = subset(replace(wide, matrix=old.matrix), np.array([1]))
    router.add_model(labelled, rng())
    expected_new = by_hand([*before[0], before[0].mean()], [1.0, 0.0, 1.0], 32.0)[2]
    assert router.ratings_[0] == pytest.approx([*before[0], expected_new])
    assert np.isnan(router.train_.scores[[0, 2], 2]).all()
    assert router.predict(old).scores.shape == (3, 3)


def test_a_model_never_observed_is_nobodys_choice(make_side):
    side = make_side(np.eye(3), [[1, NAN, 0], [0, NAN, 0], [1, NAN, 1]], np.ones((3, 3)) * 0.2)
    prediction = Eagle(neighbours=2).fit(side, rng()).predict(side)
    means = mean_outcomes(side)
    assert (prediction.scores[:, 1] == means[0][1]).all() and means[0][1] == 0
    assert not (Eagle().fit_selector(side, 0.5, rng()).select(side) == 1).any()


def test_expected_results_of_a_pair_sum_to_one():
    results = expected(np.array([1000.0, 1400.0]))
    assert results == pytest.approx(np.array([[0.5, 1 / 11], [10 / 11, 0.5]]))


def test_candidates_hold_the_papers_setting_and_the_blind_limit():
    drawn = Eagle.candidates(n_train=500, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[0] == Eagle().params()
    assert drawn[1]["global_weight"] == 1.0
    assert min(drawn, key=Eagle.simplicity) == drawn[1]
    assert all(5 <= config["neighbours"] <= 200 for config in drawn[2:])


@pytest.mark.parametrize("given", [{"global_weight": 1.5}, {"neighbours": 0}, {"k_factor": 0}, {"k_factor": True}])
def test_impossible_parameters_are_refused(given):
    with pytest.raises(ValueError, match="must be"):
        Eagle(**given)
