from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

from workers.errors import RouterError
from workers.routers.base import mean_outcomes
from workers.routers.tensoropera import TensorOpera, TensorOperaMLP, soft_labels

NAN = np.nan
SETTINGS = {"hidden": 9, "epochs": 6, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.001}


def rng():
    return np.random.default_rng(4)


def softmax(values):
    return np.exp(values) / np.exp(values).sum(axis=-1, keepdims=True)


def test_soft_labels_by_hand(make_side):
    side = make_side(np.eye(3), [[1, 0], [0.5, NAN], [0, 1]], [[0.2, 0.6], [0.4, NAN], [0.3, 0.2]])
    labels = soft_labels(side, None, 2.0)
    assert labels[0] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])
    assert labels[1] == pytest.approx([0.5, 0.5])  # the second model's mean score is 0.5
    utilities = np.array([0.5 - 0.5 * 0.4, 0.5 - 0.5 * 0.4])  # and its mean cost 0.4
    assert soft_labels(side, 0.5, 2.0)[1] == pytest.approx(softmax(2 * utilities))


def test_knn_head_averages_soft_labels_and_undoes_the_softmax(random_sides):
    train, queries = random_sides()
    model = KNeighborsRegressor(8, metric="cosine", algorithm="brute")
    shares = model.fit(train.X.astype(float), soft_labels(train, None, 10.0)).predict(queries.X.astype(float))
    prediction = TensorOpera(k=8).fit(train, rng()).predict(queries)
    scores, costs = mean_outcomes(train)
    logs = np.log(shares) / 10
    assert prediction.scores == pytest.approx(logs - logs.mean(axis=1, keepdims=True) + scores.mean(), abs=1e-9)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)))


def test_one_neighbour_gives_back_differences_of_scores(random_sides):
    train, _ = random_sides()
    train = replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))
    scores = TensorOpera(k=1).fit(train, rng()).predict(train).scores
    assert np.diff(scores, axis=1) == pytest.approx(np.diff(train.scores, axis=1), abs=1e-9)


def test_all_neighbours_are_blind_and_votes_go_to_the_largest_share(random_sides):
    train, queries = random_sides()
    scores = TensorOpera(k=80).fit(train, rng()).predict(queries).scores
    assert scores == pytest.approx(np.tile(scores[0], (queries.n, 1)), abs=1e-9)
    shares = soft_labels(train, 0.5, 10.0).mean(axis=0)
    assert (TensorOpera(k=80).fit_selector(train, 0.5, rng()).select(queries) == shares.argmax()).all()


@pytest.mark.parametrize("router", [TensorOpera(k=5), TensorOperaMLP(**SETTINGS)])
def test_ties_are_soft_and_go_to_the_cheaper(make_side, router):
    # Always equal scores and, at price 0, equal utility: the cheaper is named wherever it stands.
    X = np.random.default_rng(0).normal(size=(40, 3))
    for costs in ([0.9, 0.1], [0.1, 0.9]):
        side = make_side(X, np.ones((40, 2)), np.tile(costs, (40, 1)))
        assert (soft_labels(side, 0.0, 10.0) == 0.5).all()
        assert (router.fit_selector(side, 0.0, rng()).select(side) == np.argmin(costs)).all()


def test_the_order_of_models_does_not_matter(random_sides):
    train, queries = random_sides(n_models=5)
    columns = np.array([3, 0, 4, 1, 2])
    moved = replace(
        train,
        models=tuple(train.models[j] for j in columns),
        scores=train.scores[:, columns],
        costs=train.costs[:, columns],
    )
    for price in (0.0, 0.5):
        plain, other = (TensorOpera(k=7).fit_selector(side, price, rng()).select(queries) for side in (train, moved))
        assert (columns[other] == plain).all()


def test_mlp_head_agrees_with_torchs_cross_entropy(random_sides):
    train, queries = random_sides()
    ours = TensorOperaMLP(**SETTINGS).fit(train, rng()).predict(queries)
    stream = rng()
    start = TensorOperaMLP(**{**SETTINGS, "epochs": 0}).fit(train, stream).weights_
    inner, outer = torch.nn.Linear(6, 16), torch.nn.Linear(16, 4)
    inner.weight.data, inner.bias.data = (torch.tensor(start[name]).T.clone() for name in ("weight0", "bias0"))
    inner.bias.data = inner.bias.data.ravel()
    outer.weight.data, outer.bias.data = torch.tensor(start["weight1"]).T.clone(), torch.tensor(start["bias"])[0, :4]
    net = torch.nn.Sequential(inner, torch.nn.ReLU(), outer)
    adam = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.001)
    labels = torch.from_numpy(soft_labels(train, None, 10.0)).float()
    for _ in range(6):
        order = stream.permutation(train.n)
        for batch in (order[:32], order[32:64]):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(torch.from_numpy(train.X[batch])), labels[batch]).backward()
            adam.step()
    logits = net(torch.from_numpy(queries.X)).detach().double().numpy() / 10
    expected = logits - logits.mean(axis=1, keepdims=True) + mean_outcomes(train)[0].mean()
    assert ours.scores == pytest.approx(expected, abs=1e-4)


def test_without_an_epoch_the_mlp_predicts_training_means(random_sides):
    train, queries = random_sides()
    prediction = TensorOperaMLP(epochs=0).fit(train, rng()).predict(queries)
    for found, mean in zip((prediction.scores, prediction.costs), mean_outcomes(train), strict=True):
        assert found == pytest.approx(np.tile(mean, (queries.n, 1)), abs=1e-6)
        assert (found == found[:1]).all()
    shares = soft_labels(train, 0.5, 10.0).mean(axis=0)
    chosen = TensorOperaMLP(epochs=0).fit_selector(train, 0.5, rng()).select(queries)
    assert (chosen == shares.argmax()).all()


def test_the_mlp_learns_whose_queries_are_whose(make_side):
    X = np.random.default_rng(0).normal(size=(400, 2))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    first = X[:, 0] * X[:, 1] > 0
    side = make_side(X, np.column_stack([first, ~first]).astype(float), np.ones((400, 2)))
    scores = TensorOperaMLP(epochs=60, learning_rate=0.01).fit(side, rng()).predict(side).scores
    assert ((scores[:, 0] > scores[:, 1]) == first).mean() > 0.95


def test_k_must_come_from_somewhere(random_sides):
    train, queries = random_sides()
    with pytest.raises(RouterError, match="give k"):
        TensorOpera().fit(train, rng()).predict(queries)
    for given in ({"k": 0}, {"temperature": 0}, {"temperature": 101}):
        with pytest.raises(ValueError, match="must be"):
            TensorOpera(**given)


def test_candidates_hold_the_papers_temperature_and_the_blind_limit():
    drawn = TensorOpera.candidates(n_train=700, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[:2] == [{"k": 100, "temperature": 10.0}, {"k": 700, "temperature": 10.0}]
    assert min(drawn, key=TensorOpera.simplicity) == drawn[1]
