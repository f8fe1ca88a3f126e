from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from workers.routers.base import mean_outcomes
from workers.routers.forward import network_outputs
from workers.routers.routerdc import RouterDC, chances_of_a_place, held_groups
from workers.training import one_thread

NAN = np.nan
ADAMW = {"epochs": 12, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.1}
SETTINGS = {
    "dim": 5,
    "top_k": 2,
    "last_k": 2,
    "clusters": 3,
    "temperature": 0.5,
    "cluster_weight": 0.7,
    "held": 0.0,
    **ADAMW,
}


@pytest.fixture(autouse=True)
def alone():
    with one_thread():
        yield


def rng():
    return np.random.default_rng(4)


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def brute_chances(row, places):
    """Share of all orders of the models in which each has a place, ties going to the first in order."""
    seen = [m for m in range(len(row)) if not np.isnan(row[m])]
    orders = list(permutations(seen))
    counts = np.zeros(len(row))
    for order in orders:
        for m in sorted(order, key=lambda m: -row[m])[: min(places, len(seen) // 2)]:
            counts[m] += 1
    return counts / len(orders)


@pytest.mark.parametrize("places", [1, 2, 3])
def test_ties_share_the_places_that_are_left(places):
    values = np.random.default_rng(0).integers(0, 3, size=(40, 5)).astype(float)
    values[np.random.default_rng(1).random(values.shape) < 0.3] = NAN
    values[0] = NAN
    expected = [brute_chances(row, places) for row in values]
    assert chances_of_a_place(values, places) == pytest.approx(np.array(expected), abs=1e-12)


def test_chances_by_hand():
    values = np.array(
        [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.9, 0.5, 0.5, 0.5, 0.1, 0.0, NAN], [1.0, NAN, NAN, NAN, NAN, NAN, 0]]
    )
    third = 1 / 3
    expected = [[2 * third] * 3 + [0] * 4, [1, third, third, third, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert chances_of_a_place(values, 2) == pytest.approx(np.array(expected))
    assert chances_of_a_place(np.array([[1.0]]), 3).tolist() == [[0.0]]


def pair_loss(anchor, positive, negatives, temperature=1.0):
    """-log of the positive's share; negatives come with weights."""
    cosine = torch.nn.functional.cosine_similarity
    right = torch.exp(cosine(anchor, positive, dim=0) / temperature)
    wrong = sum(weight * torch.exp(cosine(anchor, other, dim=0) / temperature) for weight, other in negatives)
    return -torch.log(right / (right + wrong))


def plain_loss(hidden, vectors, values, clusters, wish):
    """Both losses, query after query."""
    total = torch.zeros(())
    for i, row in enumerate(values):
        best, worst = brute_chances(row, 2), brute_chances(-row, 2)
        negatives = [(worst[m], vectors[m]) for m in range(len(row)) if worst[m] and row[m] <= 0.5]
        for m in range(len(row)):
            if best[m] and row[m] > 0:
                total = total + best[m] * pair_loss(hidden[i], vectors[m], negatives, 0.5)
        friends = [j for j in range(len(values)) if clusters[j] == clusters[i] and j != i]
        strangers = [j for j in range(len(values)) if clusters[j] != clusters[i]]
        if friends:
            friend = max(friends, key=lambda j: wish[i, j])
            met = sorted(strangers, key=lambda j: -wish[i, j])[:3]
            total = total + 0.7 * pair_loss(hidden[i], hidden[friend], [(1.0, hidden[j]) for j in met])
    return total / len(values)


@pytest.mark.parametrize("price", [None, 0.5])
def test_agrees_with_both_losses_written_plainly_and_torchs_adamw(random_sides, price):
    train, queries = random_sides()
    assert np.isnan(train.scores).any()
    settings = {**SETTINGS, "epochs": 4}
    router = RouterDC(**settings)
    ours = router.fit(train, rng()) if price is None else router.fit_selector(train, price, rng())
    stream = rng()
    start = RouterDC(**settings).network(train, price, stream)
    weights, clusters = start.parameters, start.tables["cluster"]
    assert len(set(clusters.tolist())) == 3
    linear = torch.nn.Linear(6, 5)
    linear.weight.data, linear.bias.data = tensor(weights["projection"][:, :5].T), tensor(weights["shift"][0, :5])
    vectors = torch.nn.Parameter(tensor(weights["models"][:, :5]))
    adamw = torch.optim.AdamW([*linear.parameters(), vectors], lr=0.01, weight_decay=0.1)
    values = train.scores if price is None else train.scores - price * train.costs
    for _ in range(4):
        order = stream.permutation(train.n)
        for begin in range(0, train.n - 31, 32):
            batch = order[begin : begin + 32]
            wish = stream.random((32, 32), dtype=np.float32)
            adamw.zero_grad()
            plain_loss(linear(tensor(train.X[batch])), vectors, values[batch], clusters[batch], wish).backward()
            adamw.step()
    with torch.no_grad():
        hidden = torch.nn.functional.normalize(linear(tensor(queries.X)), dim=1)
        cosines = (hidden @ torch.nn.functional.normalize(vectors, dim=1).T).numpy()
    assert network_outputs(ours._cosines, ours.weights_, queries.X) == pytest.approx(cosines, abs=1e-4)
    assert np.ptp(cosines, axis=1).max() > 0.05
    if price is not None:
        assert ours.select(queries).tolist() == cosines.argmax(axis=1).tolist()


def test_the_slope_is_the_least_squares_fit_within_queries(random_sides):
    train, queries = random_sides()
    train = replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))
    router = RouterDC(**SETTINGS).fit(train, rng())
    # With every cell observed: scores on cosines, with an intercept for every query and every model.
    dummies = np.vstack([np.repeat(np.eye(train.n), 4, axis=1), np.tile(np.eye(4), train.n)]).T
    cosines = network_outputs(router._cosines, router.weights_, train.X)
    design = np.column_stack([cosines.ravel(), dummies])
    slope = np.linalg.lstsq(design, train.scores.ravel(), rcond=None)[0][0]
    assert slope > 0
    assert router.slope_ == pytest.approx(slope)
    scores, costs = mean_outcomes(train)
    assert router.predict(train).scores.mean(axis=0) == pytest.approx(scores)
    assert (router.predict(queries).costs == costs).all()
    ranks = np.argsort(router.predict(queries).scores - scores + slope * router.centres_, axis=1)
    assert (ranks == np.argsort(network_outputs(router._cosines, router.weights_, queries.X), axis=1)).all()


def test_the_slope_is_fitted_on_prompts_that_taught_nothing(random_sides):
    train, _ = random_sides()
    settings = {**SETTINGS, "held": 0.25}
    router = RouterDC(**settings)
    router.network(train, None, rng())
    held = router._held
    assert held.sum() == 20
    ours = RouterDC(**settings).fit(train, rng())
    for kept_out in (True, False):
        rows = held if kept_out else ~held
        changed = np.where(rows[:, None], 1.0 - train.scores, train.scores)
        other = RouterDC(**settings).fit(replace(train, scores=changed), rng())
        same = all((other.weights_[name] == ours.weights_[name]).all() for name in ours.weights_)
        assert same == kept_out
        assert other.slope_ != ours.slope_


def test_whole_groups_are_held():
    groups = np.repeat(np.arange(100), 3)
    held = held_groups(groups, 0.2, rng())
    assert held.sum() == 60 and (held.reshape(100, 3).all(axis=1) == held.reshape(100, 3).any(axis=1)).all()
    assert not held_groups(np.array([5]), 0.2, rng()).any() and not held_groups(groups, 0.0, rng()).any()


def test_without_an_epoch_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = RouterDC(epochs=0).fit(train, rng()).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)
    chosen = RouterDC(epochs=0).fit_selector(train, 0.5, rng()).select(queries)
    assert (chosen == (scores - 0.5 * costs).argmax()).all()


def test_queries_are_drawn_to_the_models_that_answer_them(make_side):
    X = np.random.default_rng(0).normal(size=(600, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = np.hstack([X[:, :1] > 0, X[:, :1] < 0]).astype(float)
    side = make_side(X, scores, np.ones((600, 2)))
    router = RouterDC(learning_rate=0.003, epochs=20).fit(side, rng())
    assert ((router.predict(side).scores > 0.5) == (scores > 0.5)).mean() > 0.95
    chosen = RouterDC(learning_rate=0.003, epochs=20).fit_selector(side, 0.1, rng()).select(side)
    assert (chosen == scores.argmax(axis=1)).mean() > 0.95


def test_the_order_of_the_models_does_not_matter(random_sides):
    train, queries = random_sides()
    order = [2, 0, 3, 1]
    moved = replace(
        train,
        models=tuple(train.models[i] for i in order),
        scores=train.scores[:, order],
        costs=train.costs[:, order],
    )
    ours = RouterDC(**SETTINGS).fit(train, rng()).predict(queries).scores
    assert RouterDC(**SETTINGS).fit(moved, rng()).predict(queries).scores == pytest.approx(ours[:, order], abs=1e-3)
    chosen = RouterDC(**SETTINGS).fit_selector(train, 0.5, rng()).select(queries)
    again = RouterDC(**SETTINGS).fit_selector(moved, 0.5, rng()).select(queries)
    assert [order[i] for i in again] == chosen.tolist()


@pytest.mark.parametrize("n_models", [1, 2, 100])
def test_any_number_of_models_equal_queries_and_constant_or_unobserved_outcomes(make_side, n_models):
    scores = np.ones((40, n_models))
    scores[:, n_models // 2 + 1 :] = NAN
    scores[3] = NAN
    side = make_side(np.ones((40, 1)), scores, np.zeros((40, n_models)))
    prediction = RouterDC(epochs=2, batch_size=16).fit(side, rng()).predict(side)
    assert np.isfinite(prediction.scores).all() and np.isfinite(prediction.costs).all()
    assert RouterDC(epochs=2).fit_selector(side, 0.5, rng()).select(side).max() <= n_models // 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top_k": 0}, "top_k"),
        ({"clusters": 1.5}, "clusters"),
        ({"temperature": 0.01}, "temperature"),
        ({"held": 1.0}, "held"),
        ({"cluster_weight": -1.0}, "cluster_weight"),
        ({"learning_rate": 0}, "learning_rate"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RouterDC(**given)
