"""Cascades: who is called and who answers, by enumeration and plain loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from workers.errors import RouterError
from workers.routers.base import resolve_params
from workers.routers.cascade import Cascade
from workers.routers.chain_search import search_chains
from workers.routers.chains import by_cost, calls_along, filled_outcomes, mean_of_settings, priced
from workers.routers.frugalgpt import FrugalGPT
from workers.sides import hidden

NAN = np.nan


def rng():
    return np.random.default_rng(0)


def test_calls_along_a_chain_are_those_of_all_outcomes_of_acceptance():
    accepted = np.random.default_rng(1).random((2, 3, 3))
    answers, called = calls_along(np.array([3, 0, 1]), accepted, 5)
    expected_answers, expected_called = np.zeros((2, 3, 5)), np.zeros((2, 3, 5))
    for k, i in np.ndindex(2, 3):
        for flips in product([False, True], repeat=3):
            chance = np.prod([a if flip else 1 - a for a, flip in zip(accepted[k, i], flips, strict=True)])
            for place, model in enumerate((3, 0, 1)):
                expected_called[k, i, model] += chance
                if flips[place] or place == 2:
                    expected_answers[k, i, model] += chance
                    break
    assert answers == pytest.approx(expected_answers)
    assert called == pytest.approx(expected_called)
    scores, costs = np.random.default_rng(2).random((2, 3, 5))
    mean_scores, mean_costs = mean_of_settings(answers, called, scores, costs)
    assert mean_scores == pytest.approx([(answers[k] * scores).sum() / 3 for k in range(2)])
    assert mean_costs == pytest.approx([(called[k] * costs).sum() / 3 for k in range(2)])


def test_priced_settings_are_on_the_frontier_the_dearest_first():
    # (0.3, 0.5) lies below the line from (0.1, 0.4) to (0.6, 0.9); (0.8, 0.9) pays for nothing; 5 repeats 1.
    costs, scores = np.array([0.6, 0.1, 0.3, 0.8, 0.05, 0.1]), np.array([0.9, 0.4, 0.5, 0.9, 0.1, 0.4])
    assert priced(scores, costs).tolist() == [0, 1, 4]


def test_unobserved_outcomes_count_as_means_and_equal_costs_put_the_better_first(make_side):
    side = make_side(np.eye(3), [[1, 0, NAN], [0, 1, 1], [NAN, 1, 1]], [[0.2, 0.1, 0], [0.4, 0.5, 0.3], [0, 0.3, 0.3]])
    scores, costs = filled_outcomes(side)
    assert scores.tolist() == [[1, 0, 1], [0, 1, 1], [0.5, 1, 1]]
    assert costs == pytest.approx(np.array([[0.2, 0.1, 0.3], [0.4, 0.5, 0.3], [0.3, 0.3, 0.3]]))
    assert by_cost(side).tolist() == [2, 1, 0]


def outcomes(n=30, n_models=4, seed=0):
    random = np.random.default_rng(seed)
    scores = random.choice([0.0, 0.5, 1.0], size=(n, n_models), p=[0.3, 0.3, 0.4])
    return scores, random.random((n, n_models)) * np.array([0.8, 0.1, 0.4, 0.2])[:n_models]


def original(scores, costs, order, threshold, budget, wrong):
    """One query of the original's loop, for given errors of the judge: score and cost."""
    left, spent, last = budget, 0.0, None
    for place, model in enumerate(order):
        if place and costs[model] >= left:
            break
        spent += costs[model]
        left -= costs[model]
        last = scores[model]
        if (last >= threshold) != wrong[place]:
            break
    return last, spent


@pytest.mark.parametrize("error", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("settings", ["budgets", "thresholds"])
def test_the_simulated_cascade_is_the_originals_expectation(make_side, error, settings):
    scores, costs = outcomes()
    side = make_side(np.ones((30, 2)), scores, costs)
    router = Cascade(error=error, settings=settings).fit(side, rng())
    assert router.chain_.tolist() == np.argsort(costs.mean(axis=0)).tolist()
    calls = router.predict(side)
    s = np.einsum("knm,nm->kn", calls.answers, scores)
    c = np.einsum("knm,nm->kn", calls.called, costs)
    assert (np.diff(calls.train_costs) < 0).all()
    for k, (threshold, budget) in enumerate(zip(router.thresholds_, router.budgets_, strict=True)):
        for i in range(30):
            expected = np.zeros(2)
            for wrong in product([False, True], repeat=4):
                chance = np.prod([error if w else 1 - error for w in wrong])
                if chance:
                    expected += chance * np.array(
                        original(scores[i], costs[i], router.chain_, threshold, budget, wrong)
                    )
            assert (s[k, i], c[k, i]) == pytest.approx(tuple(expected))
    assert (calls.train_scores, calls.train_costs) == (pytest.approx(s.mean(axis=1)), pytest.approx(c.mean(axis=1)))


def test_the_cascades_dearest_setting_asks_until_an_answer_is_right(make_side):
    scores, costs = [[0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]], np.tile([0.1, 0.2, 1.0], (4, 1))
    side = make_side(np.eye(4), scores, costs)
    calls = Cascade().fit(side, rng()).predict(side)
    assert calls.answers[0].argmax(axis=1).tolist() == [1, 2, 0, 2]
    assert calls.called[0].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1]]
    assert calls.called[-1].tolist() == [[1, 0, 0]] * 4


def test_the_cascade_may_ask_the_frontier_alone_and_must_see_outcomes(make_side):
    side = make_side(np.eye(3), np.tile([0.5, 0.2, 1.0], (3, 1)), np.tile([0.1, 0.2, 1.0], (3, 1)))
    assert Cascade(chain="frontier").fit(side, rng()).chain_.tolist() == [0, 2]
    with pytest.raises(RouterError, match="reads the outcomes"):
        Cascade().fit(side, rng()).predict(hidden(side))


@pytest.mark.parametrize("second", [False, True])
def test_the_chain_search_finds_what_plain_loops_find(second):
    random = np.random.default_rng(3)
    n, n_models, quantiles = 25, 4, 5
    scores, costs = outcomes(n)
    judged = np.round(0.5 * scores + 0.5 * random.random((n, n_models)), 1)  # many ties
    again = np.round(0.5 * scores[:, None] + 0.5 * random.random((n, n_models, n_models)), 1) if second else None
    found = search_chains(judged, scores, costs, quantiles, again)

    def quantile(values, k):
        return np.sort(values)[int(np.ceil(n * k / quantiles)) - 1]

    tried = {}
    for length in (1, 2, 3):
        for chain in permutations(range(n_models), length):
            for levels in product(range(1, quantiles + 1), repeat=length - 1):
                g = [judged[:, chain[0]], again[:, chain[0], chain[1]] if second and length > 1 else None]
                g[1] = judged[:, chain[1]] if g[1] is None and length > 1 else g[1]
                total, rows = np.zeros(2), np.arange(n)
                for place, model in enumerate(chain):
                    total[1] += costs[rows, model].sum()
                    last = place == length - 1
                    limit = -np.inf if last else quantile(g[place], levels[place])
                    accepted = np.ones(len(rows), bool) if last else g[place][rows] > limit
                    total[0] += scores[rows[accepted], model].sum()
                    rows = rows[~accepted]
                tried[chain, levels] = total / n
    means = np.array(list(tried.values()))
    assert len(found.scores) > 3
    assert (np.diff(found.costs) < 0).all() and (np.diff(found.scores) < 0).all()
    for score, cost, chain in zip(found.scores, found.costs, found.chains, strict=True):
        assert score == pytest.approx(means[means[:, 1] <= cost + 1e-9, 0].max())
        names = tuple(int(m) for m in chain if m >= 0)
        assert any(np.allclose(mean, (score, cost)) for (tried_chain, _), mean in tried.items() if tried_chain == names)
    cheapest = costs.mean(axis=0).min()
    assert found.costs[-1] == pytest.approx(cheapest)
    assert found.scores[0] == pytest.approx(means[:, 0].max())


def confident(make_side, n=200, seed=0):
    """Three models at costs 0.1, 0.3 and 1; a confidence that knows whether the answer is right."""
    random = np.random.default_rng(seed)
    scores = (random.random((n, 3)) < [0.5, 0.7, 0.9]).astype(float)
    side = make_side(random.normal(size=(n, 4)), scores, np.tile([0.1, 0.3, 1.0], (n, 1)))
    return replace(side, extras={"confidence": 0.2 + 0.6 * scores})


def test_with_a_perfect_confidence_frugalgpt_stops_at_the_first_right_answer(make_side):
    train, queries = confident(make_side), confident(make_side, seed=1)
    router = FrugalGPT(scorer="confidence").fit(train, rng())
    calls = router.predict(hidden(queries))
    s, c = mean_of_settings(calls.answers, calls.called, *queries.outcomes)
    assert s[0] == pytest.approx(queries.scores.max(axis=1).mean())
    first, second = queries.scores[:, 0], queries.scores[:, 1]
    assert c[0] == pytest.approx((0.1 + (1 - first) * 0.3 + (1 - first) * (1 - second) * 1.0).mean())
    assert c[-1] == pytest.approx(0.1)
    ts, tc = mean_of_settings(
        *(getattr(router.predict(hidden(train)), a) for a in ("answers", "called")), *train.outcomes
    )
    assert (router.train_scores_, router.train_costs_) == (pytest.approx(ts), pytest.approx(tc))


def test_an_answer_without_a_confidence_is_given_only_as_the_last(make_side):
    train = confident(make_side)
    router = FrugalGPT(scorer="confidence").fit(train, rng())
    unsure = replace(train, extras={"confidence": np.full((200, 3), NAN)})
    calls = router.predict(hidden(unsure))
    lasts = [router.pool_[chain[chain >= 0][-1]] for chain in router.chains_]
    assert [answers.argmax(axis=1).tolist() for answers in calls.answers] == [[last] * 200 for last in lasts]


def test_frugalgpt_learns_from_answers_whose_words_tell(make_side):
    def told(seed):
        side = confident(make_side, seed=seed)
        words = np.array(["perhaps so", "surely"], dtype=object)[side.scores.astype(int)]
        return replace(side, extras={"response": words})

    train, queries = told(0), told(1)
    router = FrugalGPT().fit(train, rng())
    calls = router.predict(hidden(queries))
    s, _ = mean_of_settings(calls.answers, calls.called, *queries.outcomes)
    assert s[0] == pytest.approx(queries.scores.max(axis=1).mean())
    # Other columns, the same chains.
    order = np.array([2, 0, 1])

    def moved(side):
        return replace(
            side,
            models=tuple(side.models[j] for j in order),
            scores=side.scores[:, order],
            costs=side.costs[:, order],
            extras={name: values[:, order] for name, values in side.extras.items()},
        )

    again = FrugalGPT().fit(moved(train), rng()).predict(hidden(moved(queries)))
    assert (again.answers == calls.answers[..., order]).all()
    assert (again.called == calls.called[..., order]).all()


def test_agreement_with_the_first_answer_decides_about_the_second(make_side):
    """Two cheap models say the same only when they are right; no confidence says so."""
    random = np.random.default_rng(0)

    def told():
        scores = (random.random((300, 3)) < [0.6, 0.6, 1.0]).astype(float)
        wrong = np.array(["north", "south", "east", "west"], dtype=object)[random.integers(0, 4, size=(300, 3))]
        words = np.where(scores == 1, "up", wrong + np.array([" a", " b", " c"], dtype=object))
        side = make_side(random.normal(size=(300, 4)), scores, np.tile([0.05, 0.06, 1.0], (300, 1)))
        return replace(side, extras={"response": words, "confidence": np.full((300, 3), 0.5)})

    train, queries = told(), told()
    areas = {}
    for agreement in (False, True):
        router = FrugalGPT(scorer="confidence", agreement=agreement).fit(train, rng())
        calls = router.predict(hidden(queries))
        s, c = mean_of_settings(calls.answers, calls.called, *queries.outcomes)
        areas[agreement] = s[c < 0.75].max()
    # Both cheap ones right: 0.36 of the queries, at 0.11; the others at 1.11, all right: 0.75 a query in all.
    assert areas[True] > areas[False] + 0.1


def test_of_many_models_chains_are_made_of_those_near_the_frontier(make_side):
    scores = np.tile([0.2, 0.6, 0.5, 0.9, 0.1], (10, 1))
    side = make_side(np.eye(10), scores, np.tile([0.1, 0.2, 0.2, 1.0, 0.9], (10, 1)))
    side = replace(side, extras={"confidence": np.full((10, 5), 0.5)})
    # The frontier is m0, m1, m3; m2 is 0.1 below it, m4 0.77.
    assert FrugalGPT(scorer="confidence", pool=4).fit(side, rng()).pool_.tolist() == [0, 1, 2, 3]
    assert FrugalGPT(scorer="confidence", pool=3).fit(side, rng()).pool_.tolist() == [0, 1, 3]


def test_requirements_follow_the_parameters():
    assert FrugalGPT().requirements() == ("response",)
    assert FrugalGPT(agreement=True).requirements() == ("response",)
    assert FrugalGPT(scorer="confidence").requirements() == ("confidence",)
    assert FrugalGPT(scorer="confidence", agreement=True).requirements() == ("confidence", "response")


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (Cascade, {"error": 1.5}, "error must be a number within"),
        (Cascade, {"settings": "prices"}, "settings must be one of budgets, thresholds"),
        (Cascade, {"chain": "some"}, "chain must be one of all, frontier"),
        (FrugalGPT, {"scorer": "oracle"}, "scorer must be one of learned, confidence"),
        (FrugalGPT, {"quantiles": 1}, "quantiles must be a whole number"),
        (FrugalGPT, {"penalty": 0}, "penalty must be a number above 0"),
        (FrugalGPT, {"agreement": 1}, "agreement must be true or false"),
    ],
)
def test_bad_values_are_refused(cls, given, message):
    with pytest.raises(RouterError, match=message):
        resolve_params(cls, given)
