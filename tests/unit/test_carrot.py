from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from workers.errors import RouterError
from workers.metrics.frontier import choose
from workers.routers.base import mean_outcomes
from workers.routers.carrot import Carrot
from workers.routers.knn import KNN

RNG = np.random.default_rng(0)


def test_scores_and_costs_have_neighbours_of_their_own(random_sides):
    train, queries = random_sides()
    train = replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))
    prediction = Carrot(k=4, k_cost=17).fit(train, RNG).predict(queries)
    for found, targets, k in ((prediction.scores, train.scores, 4), (prediction.costs, train.costs, 17)):
        model = KNeighborsRegressor(k, metric="cosine", algorithm="brute").fit(train.X.astype(float), targets)
        assert found == pytest.approx(model.predict(queries.X.astype(float)), abs=1e-12)


def test_with_one_k_it_is_knn(random_sides):
    train, queries = random_sides()
    ours, knn = (router.fit(train, RNG).predict(queries) for router in (Carrot(k=6, k_cost=6), KNN(k=6)))
    assert ours.scores == pytest.approx(knn.scores, abs=1e-12)
    assert ours.costs == pytest.approx(knn.costs, abs=1e-12)


def test_linear_heads_agree_with_scikit_learn(random_sides):
    train, queries = random_sides()
    prediction = Carrot(head="linear", C=2.0, penalty=3.0).fit(train, RNG).predict(queries)
    for model in range(4):
        rows = ~np.isnan(train.scores[:, model])
        X, s = train.X[rows].astype(float), train.scores[rows, model]
        logistic = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(X, s.astype(int))
        chances = logistic.predict_proba(queries.X.astype(float))[:, 1]
        assert prediction.scores[:, model] == pytest.approx(chances, abs=1e-4)
        ridge = Ridge(alpha=3.0).fit(X, train.costs[rows, model])
        assert prediction.costs[:, model] == pytest.approx(ridge.predict(queries.X.astype(float)), abs=1e-8)


@pytest.mark.parametrize("given", [{"k": 80, "k_cost": 80}, {"head": "linear", "C": 0.0, "penalty": "infinite"}])
def test_the_blind_limits_are_the_zero_router(random_sides, given):
    train, queries = random_sides()
    prediction = Carrot(**given).fit(train, RNG).predict(queries)
    for found, mean in zip((prediction.scores, prediction.costs), mean_outcomes(train), strict=True):
        assert found == pytest.approx(np.tile(mean, (queries.n, 1)), abs=1e-12)


@pytest.mark.parametrize("given", [{"k": 5, "k_cost": 50}, {"head": "linear", "C": 1.0, "penalty": 1.0}])
def test_the_selector_plugs_in(random_sides, given):
    train, queries = random_sides()
    prediction = Carrot(**given).fit(train, RNG).predict(queries)
    assert (Carrot(**given).fit_selector(train, 0.5, RNG).select(queries) == choose(prediction, 0.5)).all()


def test_linear_heads_keep_no_table_and_cannot_grow(random_sides):
    train, _ = random_sides()
    router = Carrot(head="linear", C=1.0, penalty=1.0).fit(train, RNG)
    assert router.n_bytes == 2 * (6 * 4 + 4) * 8
    for grow in (router.partial_fit, router.add_model):
        with pytest.raises(RouterError, match="fit it anew"):
            grow(train, RNG)


@pytest.mark.parametrize(
    ("given", "missing"), [({}, "k"), ({"k": 3}, "k_cost"), ({"head": "linear", "C": 1.0}, "penalty")]
)
def test_parameters_must_come_from_somewhere(random_sides, given, missing):
    with pytest.raises(RouterError, match=f"give {missing}"):
        Carrot(**given).fit(random_sides()[0], RNG)


@pytest.mark.parametrize(
    "given", [{"head": "mlp"}, {"k": 0}, {"head": "linear", "k": 3}, {"C": 1.0}, {"head": "linear", "C": -1.0}]
)
def test_impossible_parameters_are_refused(given):
    with pytest.raises(ValueError, match="must be"):
        Carrot(**given)


def test_candidates_of_either_head_hold_its_blind_limit():
    rng = np.random.default_rng(1)
    knn = Carrot.candidates(n_train=700, budget=20, fixed={}, rng=rng)
    assert knn[:2] == [{"k": 64, "k_cost": 64}, {"k": 700, "k_cost": 700}]
    assert {config["k"] for config in knn} <= {2, 4, 8, 16, 32, 64, 128, 256, 512, 700}
    linear = Carrot.candidates(n_train=700, budget=20, fixed={"head": "linear"}, rng=rng)
    assert linear[1] == {"C": 0.0, "penalty": "infinite"}
    for drawn, fixed in ((knn, {}), (linear, {"head": "linear"})):
        assert len(drawn) == 20
        assert min(drawn, key=lambda config: Carrot.simplicity({**Carrot().params(), **fixed, **config})) == drawn[1]
