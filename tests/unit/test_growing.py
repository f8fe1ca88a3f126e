from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.errors import RouterError
from workers.routers.base import FitJob
from workers.routers.carrot import Carrot
from workers.routers.collaborative import CFItem, CFUser
from workers.routers.eagle import Eagle
from workers.routers.growing import appended, new_column, with_model
from workers.routers.knn import KNN
from workers.routers.tensoropera import TensorOpera
from workers.sides import subset

RNG = np.random.default_rng(0)
TABLES = [
    KNN(k=7),
    Carrot(k=5, k_cost=9),
    CFItem(k=2, cold=9),
    CFUser(k=9),
    TensorOpera(k=8),
]


def without(side, column):
    scores, costs = (np.delete(values, column, axis=1) for values in side.outcomes)
    models = tuple(model for j, model in enumerate(side.models) if j != column)
    return replace(side, models=models, scores=scores, costs=costs)


def unobserved(side, column, rows):
    scores, costs = (values.copy() for values in side.outcomes)
    scores[rows, column] = costs[rows, column] = np.nan
    return replace(side, scores=scores, costs=costs)


def elsewhere(side):
    """The same queries in a matrix of their own."""
    return replace(side, matrix=side.X, embedding_rows=np.arange(side.n), rows=np.arange(side.n))


def fresh(router):
    return type(router)(**router.params())


def same(one, other):
    assert one.scores.tobytes() == other.scores.tobytes()
    assert one.costs.tobytes() == other.costs.tobytes()


@pytest.mark.parametrize("router", TABLES, ids=lambda router: router.name)
def test_more_queries_are_as_if_they_had_been_there(random_sides, router):
    train, queries = random_sides()
    odd = np.arange(train.n) % 2 == 1
    old, new = (subset(train, np.flatnonzero(rows)) for rows in (~odd, odd))
    grown = fresh(router).fit(old, RNG).partial_fit(new, RNG).predict(queries)
    same(grown, fresh(router).fit(train, RNG).predict(queries))
    # Of another matrix, such as that of a saved router.
    moved = fresh(router).fit(elsewhere(old), RNG).partial_fit(new, RNG).predict(queries)
    assert moved.scores == pytest.approx(grown.scores, abs=1e-6)


@pytest.mark.parametrize("column", [0, 2, 3])
@pytest.mark.parametrize("router", TABLES, ids=lambda router: router.name)
def test_a_new_model_is_as_if_it_had_been_tried_on_the_labelled_queries(random_sides, router, column):
    train, queries = random_sides()
    labelled = np.arange(0, train.n, 4)
    rest = np.setdiff1d(np.arange(train.n), labelled)
    grown = fresh(router).fit(without(train, column), RNG).add_model(subset(train, labelled), RNG).predict(queries)
    same(grown, fresh(router).fit(unobserved(train, column, rest), RNG).predict(queries))


def test_labelled_queries_that_are_new_are_appended(random_sides):
    train, queries = random_sides()
    old, labelled = subset(train, np.arange(60)), subset(train, np.arange(50, 80))
    wider = with_model(without(old, 1), labelled)
    assert wider.n == 80
    assert np.isnan(wider.scores[:50, 1]).all()
    assert np.array_equal(wider.scores[50:], train.scores[50:], equal_nan=True)
    grown = KNN(k=5).fit(without(old, 1), RNG).add_model(labelled, RNG).predict(queries)
    same(grown, KNN(k=5).fit(unobserved(train, 1, np.arange(50)), RNG).predict(queries))
    apart = with_model(without(elsewhere(old), 1), labelled)
    assert apart.n == 90


def test_eagle_grows_in_both_ways(random_sides):
    train, queries = random_sides()
    router = Eagle().fit(without(subset(train, np.arange(40)), 3), RNG)
    router.partial_fit(without(subset(train, np.arange(40, 80)), 3), RNG)
    router.add_model(subset(train, np.arange(20)), RNG)
    prediction = router.predict(queries)
    assert prediction.scores.shape == (queries.n, 4)
    assert np.isfinite(prediction.scores).all()


def test_texts_and_extras_do_not_grow(random_sides):
    train, _ = random_sides()
    rich = replace(train, texts=("a",) * train.n, extras={"confidence": np.ones((train.n, 4))})
    grown = appended(subset(rich, np.arange(40)), subset(rich, np.arange(40, 80)))
    assert grown.texts is None and not grown.extras
    assert grown.tasks == train.tasks
    assert (grown.rows == train.rows).all()


def test_other_models_are_refused(random_sides):
    train, _ = random_sides()
    with pytest.raises(RouterError, match="not labelled with the models"):
        appended(train, without(train, 1))
    assert new_column([model.name for model in without(train, 2).models], train) == 2
    turned = replace(train, models=train.models[::-1])
    for old, labelled in ((train, train), (without(without(train, 0), 0), train), (without(train, 2), turned)):
        with pytest.raises(RouterError, match="to take one model in"):
            with_model(old, labelled)


@pytest.mark.parametrize("router", [*TABLES[1:], Eagle()], ids=lambda router: router.name)
def test_same_bits_alone_and_in_any_company(random_sides, router):
    train, queries = random_sides(n_train=300, n_queries=400, dim=40)
    other_train, other_queries = random_sides(n_train=200, n_queries=500, dim=40)
    other_train, other_queries = (replace(s, matrix=train.matrix) for s in (other_train, other_queries))
    varied = {
        "carrot": {"k": 40},
        "cf-item": {"cold": 50},
        "cf-user": {"weights": "uniform"},
        "tensoropera": {"k": 150},
        "eagle": {"neighbours": 30},
    }[router.name]
    prices = (None, 0.5) if "selection" in router.formulations else (None,)
    given = [
        ({**router.params(), **more}, t, q, price)
        for more in ({}, varied)
        for t, q in ((train, queries), (other_train, other_queries))
        for price in prices
    ]

    def job(params, t, q, price):
        stream = np.random.default_rng(5)
        return FitJob(router=type(router)(**params), train=t, queries=q, rng=stream, price=price)

    alone = [bits(next(type(router).predict_many([job(*each)]))) for each in given]
    order = np.random.default_rng(3).permutation(len(given))
    together = list(type(router).predict_many([job(*given[i]) for i in order]))
    assert [bits(together[list(order).index(i)]) for i in range(len(given))] == alone
    assert len(set(alone)) > len(given) // 2


def bits(fitted):
    answer = fitted.prediction
    return answer.tobytes() if isinstance(answer, np.ndarray) else answer.scores.tobytes() + answer.costs.tobytes()
