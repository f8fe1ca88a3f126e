from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from sklearn.linear_model import LogisticRegression

from workers.benchmarks.base import Model
from workers.errors import RouterError
from workers.metrics.areas import auc_path
from workers.metrics.frontier import choose, exact_path, walk
from workers.routers.base import Calls, Mixture, Prediction, mean_outcomes
from workers.routers.forc import FORC, assign
from workers.routers.logistic import chances, fit_heads

NAN = np.nan
RNG = np.random.default_rng(0)


@pytest.fixture
def outcomes():
    """Predictions of 3 models for 6 queries: small enough to try all 729 assignments."""

    def make(seed):
        rng = np.random.default_rng(seed)
        return Prediction(scores=rng.random((6, 3)), costs=rng.random((6, 3)) * [0.2, 0.5, 1.0])

    return make


def totals(prediction, models):
    rows = np.arange(len(models))
    return prediction.scores[rows, models].sum(), prediction.costs[rows, models].sum()


def test_heads_agree_with_scikit_learn_on_right_and_wrong(random_sides):
    train, queries = random_sides()
    ours = FORC(C=2.0).fit(train, RNG).predict(queries)
    for model in range(4):
        rows = ~np.isnan(train.scores[:, model])
        head = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000)
        head.fit(train.X[rows].astype(float), train.scores[rows, model].astype(int))
        theirs = head.predict_proba(queries.X.astype(float))[:, 1]
        assert ours.scores[:, model] == pytest.approx(theirs, abs=1e-4)
    assert (ours.costs == mean_outcomes(train)[1]).all()


def test_heads_minimise_the_cross_entropy_of_scores_in_between():
    rng = np.random.default_rng(3)
    X, s = rng.normal(size=(60, 4)), rng.random(60)
    s[:5] = [0, 1, 0.5, 0, 1]

    def loss(w):
        z = X @ w[:4] + w[4]
        return 1.5 * (np.logaddexp(0, z) - s * z).sum() + 0.5 * (w[:4] ** 2).sum()

    best = minimize(loss, np.zeros(5), tol=1e-10).x
    coefficients, intercepts = fit_heads(X, s[:, None], 1.5)
    assert coefficients[:, 0] == pytest.approx(best[:4], abs=1e-4)
    assert intercepts[0] == pytest.approx(best[4], abs=1e-4)


def test_heads_without_errors_or_without_two_classes_are_the_means(random_sides, make_side):
    train, queries = random_sides()
    prediction = FORC(C=0).fit(train, RNG).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-14)
    assert (prediction.costs == costs).all()
    constant = make_side(np.eye(3), [[1, 0, NAN], [1, 0, NAN], [1, 0, NAN]], np.ones((3, 3)))
    assert chances(constant.X, *fit_heads(constant.X, constant.scores, 1.0)).tolist() == [[1, 0, 0]] * 3


def with_tokens(side, tokens, prices):
    models = tuple(replace(model, price_in=price) for model, price in zip(side.models, prices, strict=True))
    return replace(side, models=models, extras={"input_tokens": np.asarray(tokens, dtype=float)})


def test_cost_is_tokens_times_price_plus_the_mean_output(make_side):
    # Cost 1 is 0.002 USD. 3 and 10 USD per 1M tokens; outputs cost 0.2 and 0.5 +- 0.1, whatever the prompt's length.
    tokens = np.array([100.0, 100.0, 300.0, 300.0])
    outputs = np.array([[0.2, 0.4], [0.2, 0.6], [0.2, 0.4], [0.2, 0.6]])
    costs = tokens[:, None] * [3.0, 10.0] / 1e6 / 0.002 + outputs
    train = with_tokens(make_side(np.eye(4), np.ones((4, 2)), costs), np.tile(tokens[:, None], 2), [3.0, 10.0])
    router = FORC(C=0).fit(train, RNG)
    asked = with_tokens(train, [[1000, 1000], [0, 0], [NAN, 200], [100, 100]], [3.0, 10.0])
    expected = [[1.7, 5.5], [0.2, 0.5], [costs[:, 0].mean(), 1.5], [0.35, 1.0]]
    assert router.predict(asked).costs == pytest.approx(np.array(expected))
    # Without counts of the prompts to route, the mean costs.
    plain = replace(asked, extras={})
    assert router.predict(plain).costs == pytest.approx(np.tile(costs.mean(axis=0), (4, 1)))


def test_a_model_without_a_price_costs_its_mean(make_side):
    tokens = np.array([[100.0, 100.0], [300.0, 300.0]])
    costs = np.column_stack([tokens[:, 0] * 1e-3 + 0.1, [0.4, 0.8]])
    train = with_tokens(make_side(np.eye(2), np.ones((2, 2)), costs), tokens, [5.0, None])
    assert FORC(C=0).fit(train, RNG).predict(train).costs == pytest.approx(np.array([[0.2, 0.6], [0.4, 0.6]]))


def test_no_output_costs_less_than_nothing(make_side):
    # The first model answers long prompts at length. Tokens are 50 either side of their means, costs 1 and 0: the
    # common slope is (2 * 50 * 1 + 0) / (4 * 50^2) = 0.01 a token, but 0.5 for 200 tokens allows 0.0025.
    tokens = np.array([[100.0, 100.0], [200.0, 200.0]])
    train = with_tokens(make_side(np.eye(2), np.ones((2, 2)), [[1.0, 0.5], [3.0, 0.5]]), tokens, [1.0, 1.0])
    router = FORC(C=0).fit(train, RNG)
    assert router.rates_ == pytest.approx([0.0025, 0.0025])
    assert router.output_costs_ == pytest.approx([1.625, 0.125])


def test_zero_costs_and_equal_prompts_have_no_price_per_token(make_side):
    side = make_side(np.eye(2), np.ones((2, 2)), np.zeros((2, 2)))
    assert (FORC(C=0).fit(with_tokens(side, [[1, 1], [5, 5]], [1.0, 2.0]), RNG).rates_ == 0).all()
    side = make_side(np.eye(2), np.ones((2, 2)), [[0.1, 0.2], [0.3, 0.4]])
    fitted = FORC(C=0).fit(with_tokens(side, [[7, 7], [7, 7]], [1.0, 2.0]), RNG)
    assert (fitted.rates_ == 0).all()
    assert fitted.predict(with_tokens(side, [[1, 1], [5, 5]], [1.0, 2.0])).costs[0] == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize("seed", range(8))
def test_the_assignment_is_the_best_of_all(outcomes, seed):
    prediction = outcomes(seed)
    everything = np.array(list(itertools.product(range(3), repeat=6)))
    scores, costs = np.array([totals(prediction, models) for models in everything]).T
    for budget in np.linspace(costs.min(), costs.max(), 7):
        score, cost = totals(prediction, assign(prediction, float(budget)))
        assert cost <= budget * (1 + 1e-5)
        assert score == pytest.approx(scores[costs <= budget + 1e-12].max(), abs=1e-9)


def greedy_by_loop(prediction, budget):
    """FORC's loop, query after query, with the cheapest models' costs set aside."""
    room, models = budget - prediction.costs.min(axis=1).sum(), []
    for scores, costs in zip(prediction.scores, prediction.costs, strict=True):
        best, cheapest = scores.argmax(), costs.argmin()
        more = costs[best] - costs[cheapest]
        models.append(best if more <= room else cheapest)
        room -= more if more <= room else 0.0
    return models


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_first_come_first_served(outcomes, seed):
    prediction = outcomes(seed)
    least, most = prediction.costs.min(axis=1).sum(), prediction.costs.max(axis=1).sum()
    for budget in np.linspace(least + 1e-9, most, 12):
        chosen = assign(prediction, float(budget), "greedy")
        assert chosen.tolist() == greedy_by_loop(prediction, budget)
        score, cost = totals(prediction, chosen)
        assert cost <= budget * (1 + 1e-12)
        assert score <= totals(prediction, assign(prediction, float(budget)))[0] + 1e-9


def test_greedy_by_hand():
    # Dear and best for all: 1.0 against 0.1. A budget of 2.3 sets 4 * 0.1 aside and upgrades two, for 0.9 each.
    prediction = Prediction(scores=np.tile([0.2, 0.9], (4, 1)), costs=np.tile([0.1, 1.0], (4, 1)))
    assert assign(prediction, 2.3, "greedy").tolist() == [1, 1, 0, 0]
    # The second cannot be paid; the third can.
    costs = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 0.5], [0.1, 1.0]])
    assert assign(replace(prediction, costs=costs), 1.8, "greedy").tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("strategy", ["ilp", "greedy"])
def test_the_ends_of_the_budget(outcomes, strategy):
    prediction = outcomes(0)
    assert assign(prediction, np.inf, strategy).tolist() == prediction.scores.argmax(axis=1).tolist()
    least = float(prediction.costs.min(axis=1).sum())
    assert assign(prediction, least, strategy).tolist() == prediction.costs.argmin(axis=1).tolist()
    with pytest.raises(RouterError, match=r"below .* what the cheapest model of every query costs"):
        assign(prediction, 0.99 * least, strategy)


@pytest.mark.parametrize("price", [0.05, 0.3, 0.6, 1.5])
def test_a_price_is_optimal_for_the_budget_that_it_spends(outcomes, price):
    # Everett 1963: what a price of cost chooses no assignment beats at the same total cost.
    for seed in range(5):
        prediction = outcomes(seed)
        score, cost = totals(prediction, choose(prediction, price))
        assert totals(prediction, assign(prediction, cost * (1 + 1e-9)))[0] == pytest.approx(score, abs=1e-9)


def test_the_walk_over_prices_is_the_linear_relaxation(outcomes):
    prediction = outcomes(1)
    path = exact_path(prediction, prediction.scores, prediction.costs)
    for budget in np.linspace(prediction.costs.min(axis=1).sum(), 6 * path.costs.max(), 9):
        relaxed = linprog(
            -prediction.scores.ravel(),
            A_ub=prediction.costs.reshape(1, -1),
            b_ub=[budget + 1e-12],
            A_eq=np.kron(np.eye(6), np.ones(3)),
            b_eq=np.ones(6),
        )
        between = np.interp(budget / 6, path.costs[::-1], path.scores[::-1])
        assert -relaxed.fun / 6 == pytest.approx(between, abs=1e-7)


def test_a_large_assignment_is_solved_to_the_end():
    rng = np.random.default_rng(0)
    prediction = Prediction(scores=rng.random((300, 8)), costs=rng.random((300, 8)) * np.linspace(0.1, 1, 8))
    score, cost = totals(prediction, assign(prediction, 40.0))
    assert cost <= 40.0 * (1 + 1e-5)
    path = exact_path(prediction, prediction.scores, prediction.costs)
    relaxed = 300 * np.interp(40.0 / 300, path.costs[::-1], path.scores[::-1])
    # At most one query's choice away from the relaxation.
    assert relaxed - 1 < score <= relaxed + 1e-6


def test_strategies_of_one_operating_point(make_side):
    # P by training means: 0.5, 0.75 and 0.75 for costs 0.1, 0.6 and 0.4.
    scores = [[1, 1, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]]
    side = make_side(np.eye(4), scores, np.tile([0.1, 0.6, 0.4], (4, 1)))
    for params, model in (
        ({"strategy": "max"}, 2),
        ({"strategy": "threshold"}, 2),
        ({"strategy": "threshold", "threshold": 0.4}, 0),
        ({"strategy": "threshold", "threshold": 0.75}, 1),
    ):
        answer = FORC(C=0, **params).fit(side, RNG).predict(side)
        assert isinstance(answer, Mixture)
        assert (answer.probabilities == np.eye(3)[model]).all(), params
        for price in (0.1, 1.0):
            assert (FORC(C=0, **params).fit_selector(side, price, RNG).select(side) == model).all()


def test_greedy_has_the_settings_that_a_budget_mixes(random_sides):
    train, queries = random_sides()
    router = FORC(C=1.0, strategy="greedy").fit(train, RNG)
    calls, prediction = router.predict(queries), FORC(C=1.0).fit(train, RNG).predict(queries)
    assert isinstance(calls, Calls)
    assert calls.answers.argmax(axis=2).tolist() == [
        prediction.scores.argmax(axis=1).tolist(),
        prediction.costs.argmin(axis=1).tolist(),
    ]
    own = FORC(C=1.0).fit(train, RNG).predict(train)
    best = own.scores.argmax(axis=1)
    seen = np.where(np.isnan(train.costs), own.costs, train.costs)[np.arange(train.n), best]
    assert calls.train_costs[0] == pytest.approx(seen.mean())
    # The dearest first; free cost buys score, dear cost none.
    assert calls.train_costs[0] > calls.train_costs[1]
    for price, expected in ((0.0, calls.answers[0]), (100.0, calls.answers[1])):
        chosen = FORC(C=1.0, strategy="greedy").fit_selector(train, price, RNG).select(queries)
        assert chosen.tolist() == expected.argmax(axis=1).tolist()


def test_greedy_budgets_over_random_arrivals_lie_between_its_settings(random_sides):
    train, queries = random_sides(n_queries=200)
    router = FORC(C=1.0, strategy="greedy").fit(train, RNG)
    prediction = FORC(C=1.0).fit(train, RNG).predict(queries)
    first, last = (
        np.array(totals(prediction, answers.argmax(axis=1))) / 200 for answers in router.predict(queries).answers
    )
    budget, found = 200 * (first[1] + last[1]) / 2, []
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(200)
        arriving = Prediction(scores=prediction.scores[order], costs=prediction.costs[order])
        found.append(np.array(totals(arriving, assign(arriving, budget, "greedy"))) / 200)
    assert np.mean(found, axis=0) == pytest.approx((first + last) / 2, abs=0.01)


def test_each_strategy_has_a_frontier_and_the_dual_has_the_largest(random_sides):
    train, queries = random_sides(n_queries=200)
    truth = FORC(C=1.0).fit(train, RNG).predict(queries)
    areas = {
        strategy: auc_path(
            walk(FORC(C=1.0, strategy=strategy).fit(train, RNG).predict(queries), truth.scores, truth.costs).path()
        )
        for strategy in ("ilp", "greedy", "max", "threshold")
    }
    assert max(areas, key=areas.get) == "ilp"
    assert len(set(areas.values())) == 4


def test_a_fitted_router_assigns_batches(random_sides):
    train, queries = random_sides()
    prediction = FORC(C=1.0).fit(train, RNG).predict(queries)
    budget = 1.2 * float(prediction.costs.min(axis=1).sum())
    for strategy in ("ilp", "greedy"):
        router = FORC(C=1.0, strategy=strategy).fit(train, RNG)
        assert router.within(queries, budget).tolist() == assign(prediction, budget, strategy).tolist()
    with pytest.raises(RouterError, match="knows no budget"):
        FORC(C=1.0, strategy="max").fit(train, RNG).within(queries, budget)


def test_a_price_selects_by_predicted_utility(random_sides):
    train, queries = random_sides()
    prediction = FORC(C=1.0).fit(train, RNG).predict(queries)
    for price in (0.1, 0.5, 1.0):
        chosen = FORC(C=1.0).fit_selector(train, price, RNG).select(queries)
        assert chosen.tolist() == (prediction.scores - price * prediction.costs).argmax(axis=1).tolist()


@pytest.mark.parametrize("strategy", ["ilp", "greedy", "max", "threshold"])
def test_the_order_of_the_models_changes_nothing(random_sides, strategy):
    train, queries = random_sides(n_models=5)
    order = np.array([3, 0, 4, 1, 2])
    models = tuple(Model(name=f"m{j}") for j in order)
    moved = replace(train, models=models, scores=train.scores[:, order], costs=train.costs[:, order])
    for price in (0.1, 1.0):
        plain = FORC(C=1.0, strategy=strategy).fit_selector(train, price, RNG).select(queries)
        other = FORC(C=1.0, strategy=strategy).fit_selector(moved, price, RNG).select(queries)
        assert (order[other] == plain).all()


def test_C_must_come_from_somewhere(random_sides):
    with pytest.raises(RouterError, match="give C"):
        FORC().fit(random_sides()[0], RNG)


def test_candidates_hold_the_default_and_the_blind_limit():
    drawn = FORC.candidates(n_train=100, budget=20, fixed={}, rng=np.random.default_rng(1))
    assert len(drawn) == len({config["C"] for config in drawn}) == 20
    assert drawn[:2] == [{"C": 1.0}, {"C": 0.0}]
    assert min(drawn, key=FORC.simplicity) == {"C": 0.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"C": -1}, "C must be a number"),
        ({"strategy": "ILP"}, "strategy must be one of"),
        ({"strategy": "threshold", "threshold": 2}, "threshold must be a number"),
        ({"threshold": 0.3}, "read by strategy `threshold` alone"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ValueError, match=message):
        FORC(**given)
