from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.errors import RouterError
from workers.routers.metallm import MetaLLM
from workers.sides import subset

NAN = np.nan


def rng():
    return np.random.default_rng(4)


class Fixed:
    """A stream that keeps the order of the queries and lets the earlier of tied models win."""

    def permutation(self, n):
        return np.arange(n)

    def choice(self, values):
        return values[0]


def linucb(train, *, price, alpha, ridge):
    """LinUCB as it is written, with an inverse for every step: the chosen models in order, A and b of each."""
    X = np.column_stack([np.ones(train.n), train.X.astype(float)])
    m, k = len(train.models), X.shape[1]
    A = [np.diag([1e-3, *[ridge] * (k - 1)]) for _ in range(m)]
    b, chosen = np.zeros((m, k, 2)), []
    for i, x in enumerate(X):
        bounds = np.full(m, -np.inf)
        for j in range(m):
            inverse = np.linalg.inv(A[j])
            score, cost = (inverse @ b[j]).T @ x
            if not np.isnan(train.scores[i, j]):
                bounds[j] = score - price * cost + alpha * np.sqrt(x @ inverse @ x)
        j = int((bounds >= bounds.max() - 1e-9).argmax())
        A[j] += np.outer(x, x)
        b[j] += np.outer(x, [train.scores[i, j], train.costs[i, j]])
        chosen.append(j)
    return chosen, A, b


@pytest.fixture
def world(make_side):
    """300 queries, more than a block of the router's, of three models."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(300, 4))
    scores = (draw.random((300, 3)) < 0.5 + 0.3 * np.tanh(X[:, :3])).astype(float)
    scores[draw.random((300, 3)) < 0.1] = NAN
    scores[np.isnan(scores).all(axis=1), 0] = 1.0
    return make_side(X, scores, draw.random((300, 3)) * [0.2, 0.5, 1.0])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_agrees_with_linucb_written_out(world, alpha):
    router = MetaLLM(price=0.3, alpha=alpha, ridge=2.0).fit(world, Fixed())
    chosen, A, b = linucb(world, price=0.3, alpha=alpha, ridge=2.0)
    assert router.calls_.tolist() == np.bincount(chosen, minlength=3).tolist()
    for j in range(3):
        assert router.inverse_[j] == pytest.approx(np.linalg.inv(A[j]), rel=1e-6, abs=1e-6)
        assert router.coefficients_[j] == pytest.approx(np.linalg.inv(A[j]) @ b[j], abs=1e-6)
    inputs, prediction = np.column_stack([np.ones(300), world.X]), router.predict(world)
    called = np.unique(chosen)
    assert prediction.scores[:, called] == pytest.approx((inputs @ router.coefficients_[..., 0].T)[:, called])
    assert prediction.costs[:, called] == pytest.approx((inputs @ router.coefficients_[..., 1].T)[:, called])


def test_what_the_other_models_did_is_never_read(world):
    chosen, _, _ = linucb(world, price=0.5, alpha=1.0, ridge=1.0)
    others = np.arange(3) != np.array(chosen)[:, None]
    scores = np.where(others & ~np.isnan(world.scores), 0.77, world.scores)
    told = [MetaLLM().fit(side, Fixed()).predict(world).scores for side in (world, replace(world, scores=scores))]
    assert (told[0] == told[1]).all()


def test_a_trace_by_hand(make_side):
    # Rewards are 1 - 1/2 and 0.8 - 0.1/2. With n calls of a model the bound is reward · n / (n + 0.001) +
    # 1 / √(n + 0.001): either model first, then the other (31.6), then the second (1.75 > 1.50), the first
    # (1.50 > 1.46), and the second three times (1.46, 1.33, 1.25 > 1.21); then 1.21 > 1.20 for the first.
    side = make_side(np.tile([1.0, 0.0], (8, 1)), np.tile([1.0, 0.8], (8, 1)), np.tile([1.0, 0.1], (8, 1)))
    for n, calls in ((2, [1, 1]), (3, [1, 2]), (4, [2, 2]), (7, [2, 5]), (8, [3, 5])):
        router = MetaLLM(price=0.5, alpha=1.0, ridge="infinite").fit(subset(side, np.arange(n)), rng())
        assert router.calls_.tolist() == calls
    assert router.predict(side).scores[0] == pytest.approx([3 / 3.001, 4 / 5.001])
    assert router.predict(side).costs[0] == pytest.approx([3 / 3.001, 0.5 / 5.001])


def test_without_exploration_it_stays_with_what_pays(make_side):
    side = make_side(np.tile([1.0, 0.0], (50, 1)), np.tile([1.0, 0.9], (50, 1)), np.tile([1.0, 0.1], (50, 1)))
    first = set()
    for seed in range(20):
        router = MetaLLM(price=0.5, alpha=0.0).fit(side, np.random.default_rng(seed))
        assert sorted(router.calls_.tolist()) == [0, 50]
        first.add(int(router.calls_.argmax()))
        # The model that was never tried is predicted as one never observed.
        prediction, untried = router.predict(side), int(router.calls_.argmin())
        assert prediction.scores[0, untried] == 0.0 and prediction.costs[0, untried] == 1.0
    assert first == {0, 1}


def test_an_infinite_ridge_looks_at_no_query(random_sides):
    train, queries = random_sides()
    prediction = MetaLLM(ridge="infinite").fit(train, rng()).predict(queries)
    assert (prediction.scores == prediction.scores[0]).all()


def test_a_query_of_which_nothing_was_observed_teaches_nothing(make_side):
    side = make_side(np.eye(3), [[NAN, NAN], [1, NAN], [NAN, 0.5]], np.full((3, 2), 0.5))
    router = MetaLLM(ridge="infinite").fit(side, rng())
    assert router.calls_.tolist() == [1, 1]
    assert router.predict(side).scores[0] == pytest.approx([1 / 1.001, 0.5 / 1.001])


def test_models_of_equal_bounds_are_equally_likely(make_side):
    side = make_side(np.ones((1, 2)), [[1.0, 1.0, 1.0]], [[0.1, 0.1, 0.1]])
    chosen = [int(MetaLLM().fit(side, np.random.default_rng(seed)).calls_.argmax()) for seed in range(300)]
    assert np.bincount(chosen) == pytest.approx(100, abs=30)


def test_more_queries_go_on_where_it_stopped(random_sides):
    train, queries = random_sides(n_train=600)
    at_once = MetaLLM().fit(train, Fixed())
    halves = MetaLLM().fit(subset(train, np.arange(350)), Fixed())
    halves.inverse_.flags.writeable = halves.coefficients_.flags.writeable = halves.calls_.flags.writeable = False
    halves.partial_fit(subset(train, np.arange(350, 600)), Fixed())
    assert halves.calls_.tolist() == at_once.calls_.tolist()
    assert halves.predict(queries).scores == pytest.approx(at_once.predict(queries).scores, abs=1e-8)


def test_a_new_model_starts_from_all_its_labelled_queries(random_sides):
    train, queries = random_sides(n_models=4)
    old = replace(
        train,
        models=(train.models[0], *train.models[2:]),
        scores=train.scores[:, [0, 2, 3]],
        costs=train.costs[:, [0, 2, 3]],
    )
    router = MetaLLM(ridge=3.0).fit(old, rng())
    before = router.predict(queries)
    labelled = subset(train, np.arange(0, 80, 2))
    router.add_model(labelled, rng())
    after = router.predict(queries)
    assert (after.scores[:, [0, 2, 3]] == before.scores).all()
    tried = ~np.isnan(labelled.scores[:, 1])
    X = np.column_stack([np.ones(labelled.n), labelled.X])[tried]
    theta = np.linalg.solve(np.diag([1e-3, *[3.0] * 6]) + X.T @ X, X.T @ labelled.scores[tried, 1])
    assert after.scores[:, 1] == pytest.approx(np.column_stack([np.ones(30), queries.X]) @ theta, abs=1e-9)
    assert router.models_ == [model.name for model in train.models] and router.calls_[1] == tried.sum()
    with pytest.raises(RouterError, match="one more"):
        router.add_model(labelled, rng())


def test_a_selector_learns_at_its_preference(make_side):
    # The strong model gains 0.5 for 0.9 more: worth it below a price of 0.56.
    side = make_side(np.tile([1.0, 0.0], (300, 1)), np.tile([0.5, 1.0], (300, 1)), np.tile([0.1, 1.0], (300, 1)))
    for price, model in ((0.1, 1), (1.0, 0)):
        router = MetaLLM().fit_selector(side, price, rng())
        assert (router.select(side) == model).all()
        assert router.calls_.argmax() == model


def test_candidates_hold_the_released_settings_and_the_blind_limit():
    drawn = MetaLLM.candidates(n_train=100, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[:3] == [
        {"alpha": 1.0, "ridge": 1.0},
        {"alpha": 1.0, "ridge": "infinite"},
        {"alpha": 0.0, "ridge": 12.94},
    ]
    assert len(MetaLLM.candidates(n_train=100, budget=2, fixed={}, rng=rng())) == 2
    assert min(drawn, key=MetaLLM.simplicity) == drawn[1]
    assert MetaLLM.online


@pytest.mark.parametrize("bad", [{"price": -1}, {"alpha": "x"}, {"ridge": 0}, {"ridge": "none"}])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        MetaLLM(**bad)
