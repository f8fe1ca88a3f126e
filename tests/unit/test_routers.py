from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from workers.errors import RouterError
from workers.routers.base import Mixture, Prediction, mean_outcomes, resolve_params, router_class, routers
from workers.routers.labels import most_voted, spread_labels

NAN = np.nan
BUILT_IN = [
    *("best-single", "cheapest", "dearest", "knn", "linear", "mlp"),
    *("oracle", "random", "task-oracle", "task-zero", "zero-hindsight", "zero-router"),
]
RNG = np.random.default_rng(0)


@pytest.fixture
def small(make_side):
    """Three models: m0 cheap and weak, m1 mid-priced and best, m2 dear; m1 and m2 tie on the last query."""
    scores = [[0, 1, 1], [1, 1, 0], [0, 0.5, NAN], [0, 1, 1]]
    costs = [[0.1, 0.4, 0.8], [0.1, 0.2, 1.2], [0.1, 0.6, NAN], [0.1, 0.5, 0.5]]
    return make_side(np.eye(4), scores, costs, ("a", "a", "b", "b"))


def fitted(name, side):
    return router_class(name)().fit(side, RNG)


def test_our_routers_are_found_by_name():
    assert set(BUILT_IN) <= set(routers())


def test_an_unknown_router_or_parameter_names_the_nearest():
    with pytest.raises(RouterError, match="did you mean 'linear'"):
        router_class("linaer")
    with pytest.raises(RouterError, match="did you mean 'similarity'"):
        resolve_params(router_class("knn"), {"similarty": "cosine"})
    with pytest.raises(RouterError, match="it has none"):
        resolve_params(router_class("oracle"), {"k": 3})


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("knn", {"k": 0}),
        ("knn", {"k": 1.5}),
        ("knn", {"k": True}),
        ("knn", {"k": 5, "similarity": "dot"}),
        ("knn", {"k": 5, "weights": "gaussian"}),
        ("knn", {"k": 5, "weights": "softmax", "tau": 0}),
        ("knn", {"similarity": "centered"}),
        ("linear", {"penalty": -1}),
        ("linear", {"penalty": "lots"}),
        ("mlp", {"epochs": -1}),
        ("mlp", {"hidden": 0}),
        ("mlp", {"learning_rate": 0}),
    ],
)
def test_a_bad_value_is_a_router_error_that_names_the_router(name, given):
    with pytest.raises(RouterError, match=f"router '{name}'"):
        resolve_params(router_class(name), given)


@pytest.mark.parametrize("name", BUILT_IN)
def test_params_make_the_same_router_again(name):
    cls = router_class(name)
    params = resolve_params(cls, {})
    assert cls(**params).params() == params
    assert set(cls.tunables) <= set(params)


@pytest.mark.parametrize("name", BUILT_IN)
def test_only_routers_that_read_embeddings_and_no_outcomes_have_a_blind_twin(name):
    cls = router_class(name)
    if name in ("knn", "linear", "mlp"):
        cls.check_twin()
    else:
        with pytest.raises(RouterError, match="no blind twin"):
            cls.check_twin()


def test_importing_the_routers_loads_no_heavy_library():
    code = (
        "import sys; from workers.routers.base import routers; routers(); "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'pandas', 'sentence_transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_means_are_over_observed_cells_and_nobody_should_choose_the_unseen(make_side):
    side = make_side(np.eye(2), [[1, NAN, NAN], [0, 0.5, NAN]], [[0.2, NAN, NAN], [0.4, 0.3, NAN]])
    scores, costs = mean_outcomes(side)
    assert scores == pytest.approx([0.5, 0.5, 0.0])
    assert costs == pytest.approx([0.3, 0.3, 1.0])


def test_zero_router_repeats_training_means(small):
    prediction = fitted("zero-router", small).predict(small)
    assert prediction.scores[3] == pytest.approx([1 / 4, 3.5 / 4, 2 / 3])
    assert prediction.costs[0] == pytest.approx([0.1, 1.7 / 4, 2.5 / 3])


def test_task_zero_uses_the_task_and_falls_back(small):
    router = fitted("task-zero", small)
    queries = replace(small, tasks=("a", "b", "new", "a"))
    scores = router.predict(queries).scores
    assert scores[0] == pytest.approx([0.5, 1, 0.5])
    assert scores[1] == pytest.approx([0, 0.75, 1])
    assert scores[2] == pytest.approx([1 / 4, 3.5 / 4, 2 / 3])


def test_task_zero_gives_a_model_unseen_on_a_task_its_overall_mean(make_side):
    side = make_side(np.eye(3), [[1, 1], [0, 0], [1, NAN]], np.ones((3, 2)), ("a", "a", "b"))
    assert fitted("task-zero", side).predict(side).scores[2] == pytest.approx([1, 0.5])


@pytest.mark.parametrize(("name", "model"), [("best-single", 1), ("cheapest", 0), ("dearest", 2)])
def test_fixed_models(small, name, model):
    router = fitted(name, small)
    assert (router.predict(small).probabilities == np.eye(3)[model]).all()
    assert (router.fit_selector(small, 0.5, RNG).select(small) == model).all()


def test_fixed_models_break_ties_by_the_other_mean(make_side):
    side = make_side(np.eye(2), [[1, 1, 0], [1, 1, 1]], [[0.5, 0.3, 0.3], [0.5, 0.3, 0.3]])
    assert fitted("best-single", side).model_ == 1
    assert fitted("cheapest", side).model_ == 1
    dear = make_side(np.eye(2), [[0, 1, 1], [1, 1, 1]], [[0.5, 0.5, 0.3], [0.5, 0.5, 0.3]])
    assert fitted("dearest", dear).model_ == 1


def test_random_is_uniform_in_both_formulations(small):
    router = fitted("random", small)
    for mixture in (router.predict(small), router.fit_selector(small, 1.0, RNG).select(small)):
        assert isinstance(mixture, Mixture)
        assert (mixture.probabilities == 1 / 3).all()


def test_the_oracle_selects_by_true_utility(small):
    complete = replace(small, scores=np.nan_to_num(small.scores), costs=np.nan_to_num(small.costs, nan=2.0))
    oracle = fitted("oracle", small)
    assert (oracle.predict(complete).scores == complete.scores).all()
    # u = s - c / 2: rows (-.05, .8, .6), (.95, .9, -.6), (-.05, .2, -1), (-.05, .75, .75): a tie of equal costs.
    assert list(oracle.fit_selector(small, 0.5, RNG).select(complete)) == [1, 0, 1, 1]


def test_zero_router_selects_by_mean_utility(small):
    # Means: scores (.25, .875, .667), costs (.1, .425, .833).
    for price, model in ((0.1, 1), (1.0, 1), (3.0, 0)):
        assert (router_class("zero-router")().fit_selector(small, price, RNG).select(small) == model).all()


def test_references_read_test_means(small):
    complete = replace(small, scores=np.nan_to_num(small.scores), costs=np.nan_to_num(small.costs, nan=2.0))
    assert fitted("zero-hindsight", small).predict(complete).scores[0] == pytest.approx([0.25, 0.875, 0.5])
    assert fitted("task-oracle", small).predict(complete).scores[2] == pytest.approx([0, 0.75, 0.5])


def test_only_references_may_read_hidden_outcomes(small):
    hidden = replace(small, scores=None, costs=None)
    with pytest.raises(RouterError, match="only references may"):
        fitted("oracle", small).predict(hidden)


@pytest.mark.parametrize("name", ["zero-router", "task-zero", "knn", "linear", "mlp"])
def test_predictions_are_finite_for_every_query_and_model(name, random_sides):
    train, queries = random_sides()
    params = {"knn": {"k": 3}, "linear": {"penalty": 1}, "mlp": {"epochs": 1}}.get(name, {})
    prediction = router_class(name)(**params).fit(train, np.random.default_rng(1)).predict(queries)
    assert isinstance(prediction, Prediction)
    for values in (prediction.scores, prediction.costs):
        assert values.shape == (queries.n, 4)
        assert np.isfinite(values).all()


def test_labels_go_to_the_cheapest_best_utility_models():
    scores = np.array([[1, 1, 0], [1, 1, 1], [1, NAN, 0.5], [NAN, NAN, NAN], [0.5, 1.0, 0.2]])
    costs = np.array([[0.5, 0.2, 0.1], [0.3, 0.3, 0.9], [0.4, NAN, 0.1], [NAN, NAN, NAN], [0.0, 0.5, 0.3]])
    labels = spread_labels(scores, costs, 1.0)
    assert labels[0].tolist() == [0, 1, 0]
    assert labels[1].tolist() == [0.5, 0.5, 0]
    assert labels[2].tolist() == [1, 0, 0]
    assert labels[3].tolist() == [0, 0, 0]
    # Utilities .5, .5, -.1: equal, and the first is the cheaper.
    assert labels[4].tolist() == [1, 0, 0]


def test_most_voted_breaks_ties_by_mean_cost_then_order():
    votes = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4]])
    assert most_voted(votes, np.array([0.9, 0.5, 0.5])).tolist() == [1, 1, 2]


@pytest.mark.parametrize(("name", "params"), [("knn", {"k": 9}), ("linear", {"penalty": 1.0})])
def test_a_selector_does_not_depend_on_the_order_of_the_models(name, params, random_sides):
    train, queries = random_sides(n_models=5)
    shuffled = np.array([3, 0, 4, 1, 2])
    moved = replace(
        train,
        models=tuple(train.models[j] for j in shuffled),
        scores=train.scores[:, shuffled],
        costs=train.costs[:, shuffled],
    )
    for price in (1.0, 0.1, 0.0):
        plain = router_class(name)(**params).fit_selector(train, price, RNG).select(queries)
        other = router_class(name)(**params).fit_selector(moved, price, RNG).select(queries)
        assert (shuffled[other] == plain).all()


def test_the_readmes_table_has_a_row_for_each_router():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")}
    assert {name for name, cls in routers().items() if cls.__module__.startswith("workers.")} <= rows
    assert "not in this version" not in readme


@pytest.mark.parametrize("name", routers())
def test_each_router_says_what_it_is_and_where_it_comes_from(name):
    cls = routers()[name]
    assert 0 < len(cls.summary) <= 80
    assert cls.source or not cls.needs_embedding  # baselines and references are the protocol's
