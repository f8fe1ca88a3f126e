from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.routers.base import mean_outcomes
from workers.routers.factorised import MLPMF, LinearMF
from workers.routers.forward import network_outputs
from workers.routers.labels import spread_labels
from workers.training import one_thread

ADAM = {"epochs": 25, "batch_size": 32, "learning_rate": 0.02, "weight_decay": 0.001}
LINEAR = {"dim": 5, "alpha": 10.0, **ADAM}
MLP = {"dim": 5, "hidden": 7, "alpha": 0.1, **ADAM}
BOTH = [(LinearMF, LINEAR), (MLPMF, MLP)]


@pytest.fixture(autouse=True)
def alone():
    with one_thread():
        yield


def rng():
    return np.random.default_rng(4)


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def complete(side):
    return replace(side, scores=np.nan_to_num(side.scores), costs=np.nan_to_num(side.costs))


def with_models(side, order):
    kept = {"models": tuple(side.models[i] for i in order)}
    if side.scores is not None:
        kept |= {"scores": side.scores[:, order], "costs": side.costs[:, order]}
    return replace(side, **kept)


def beginning(cls, settings, train, fit):
    """The weights before the first step, and the minibatches that a job's stream gives after them."""
    stream = rng()
    weights = fit(cls(**{**settings, "epochs": 0}), train, stream).weights_
    orders = [stream.permutation(train.n) for _ in range(settings["epochs"])]
    return weights, [order[i : i + 32] for order in orders for i in range(0, train.n - 31, 32)]


class PlainLinear(torch.nn.Module):
    """x W e_m + b_m, output by output and model by model."""

    def __init__(self, weights, dim, n_models, n_outputs):
        super().__init__()
        projection = weights["projection"].reshape(len(weights["projection"]), n_outputs, -1)[:, :, :dim]
        self.projections = torch.nn.ParameterList([tensor(projection[:, i]) for i in range(n_outputs)])
        self.embedding = torch.nn.Embedding.from_pretrained(torch.zeros(n_models, dim), freeze=False)
        bias = weights["bias"].reshape(n_outputs, -1)[:, :n_models]
        self.bias = torch.nn.Parameter(tensor(bias.T))

    def forward(self, x, model):
        vector = self.embedding(torch.tensor(model))
        return torch.stack([x @ W @ vector for W in self.projections], dim=-1) + self.bias[model]


class PlainMLP(torch.nn.Module):
    """Layers on [x ; e_m], plus an intercept per model."""

    def __init__(self, weights, dim, hidden, n_models, n_outputs):
        super().__init__()
        first = np.vstack([weights["queries0"][:, :hidden], weights["models0"][:dim, :hidden]])
        layers = [(first, weights["bias0"]), (weights["weight1"][:hidden, :hidden], weights["bias1"])]
        linears = [torch.nn.Linear(*weight.shape) for weight, _ in layers]
        for linear, (weight, bias) in zip(linears, layers, strict=True):
            linear.weight.data, linear.bias.data = tensor(weight.T), tensor(bias[0, :hidden])
        last = torch.nn.Linear(hidden, n_outputs, bias=False)
        last.weight.data = tensor(weights["outputs"][:hidden].T)
        assert last.weight.any() == (n_outputs == 1)
        self.layers = torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1], torch.nn.ReLU(), last)
        self.embedding = torch.nn.Embedding.from_pretrained(torch.zeros(n_models, dim), freeze=False)
        self.bias = torch.nn.Parameter(tensor(weights["bias"][:, 0]))

    def forward(self, x, model):
        vector = self.embedding(torch.tensor(model)).expand(len(x), -1)
        return self.layers(torch.cat([x, vector], dim=1)) + self.bias[model]


def plain(cls, weights, n_outputs):
    if cls is LinearMF:
        return PlainLinear(weights, LINEAR["dim"], 4, n_outputs)
    return PlainMLP(weights, MLP["dim"], MLP["hidden"], 4, n_outputs)


@pytest.mark.parametrize(("cls", "settings"), BOTH)
def test_agrees_with_a_plain_torch_module_that_takes_model_after_model(random_sides, cls, settings):
    train, queries = random_sides()
    assert np.isnan(train.scores).any()
    ours = cls(**settings).fit(train, rng()).predict(queries)
    start, batches = beginning(cls, settings, train, lambda router, side, stream: router.fit(side, stream))
    net = plain(cls, start, 2)
    targets = np.stack([train.scores, train.costs], axis=-1)
    mean, sd = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
    adam = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=0.001)
    for batch in batches:
        adam.zero_grad()
        loss = torch.zeros(())
        for model in range(4):
            some = batch[~np.isnan(train.scores[batch, model])]
            found = net(tensor(train.X[some]), model)
            error = (found - tensor((targets[some, model] - mean[model]) / sd[model])) ** 2
            loss = loss + error[:, 0].mean() + settings["alpha"] * error[:, 1].mean()
        loss.backward()
        adam.step()
    with torch.no_grad():
        theirs = np.stack([net(tensor(queries.X), model).numpy() for model in range(4)], axis=1) * sd + mean
    assert np.abs(theirs[:, :, 0] - mean[:, 0]).max() > 0.05
    assert ours.scores == pytest.approx(theirs[:, :, 0], abs=1e-4)
    assert ours.costs == pytest.approx(theirs[:, :, 1], abs=1e-4)


@pytest.mark.parametrize(("cls", "settings"), BOTH)
def test_the_selector_agrees_with_torchs_cross_entropy(random_sides, cls, settings):
    train, queries = random_sides()
    train = complete(train)
    ours = cls(**settings).fit_selector(train, 0.5, rng())
    start, batches = beginning(
        cls, settings, train, lambda router, side, stream: router.fit_selector(side, 0.5, stream)
    )
    net = plain(cls, start, 1)
    labels = tensor(spread_labels(train.scores, train.costs, 0.5))
    adam = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=0.001)
    for batch in batches:
        adam.zero_grad()
        logits = torch.cat([net(tensor(train.X[batch]), model) for model in range(4)], dim=1)
        torch.nn.functional.cross_entropy(logits, labels[batch]).backward()
        adam.step()
    with torch.no_grad():
        logits = torch.cat([net(tensor(queries.X), model) for model in range(4)], dim=1)
    outputs = network_outputs(ours.forward, ours.weights_, queries.X)
    assert outputs[:, :, 0] == pytest.approx(logits.numpy(), abs=1e-3)
    assert np.ptp(outputs, axis=0).max() > 0.1
    assert ours.select(queries).tolist() == logits.argmax(dim=1).tolist()


@pytest.mark.parametrize("cls", [LinearMF, MLPMF])
def test_without_an_epoch_it_is_the_zero_router(random_sides, cls):
    train, queries = random_sides()
    prediction = cls(epochs=0).fit(train, rng()).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)
    shares = spread_labels(*train.outcomes, 0.5).sum(axis=0)
    assert (cls(epochs=0).fit_selector(train, 0.5, rng()).select(queries) == shares.argmax()).all()


@pytest.mark.parametrize(("cls", "settings"), BOTH)
def test_the_order_of_the_models_does_not_matter(random_sides, cls, settings):
    train, queries = random_sides()
    order = [2, 0, 3, 1]
    ours = cls(**settings).fit(train, rng()).predict(queries)
    moved = cls(**settings).fit(with_models(train, order), rng()).predict(with_models(queries, order))
    assert moved.scores == pytest.approx(ours.scores[:, order], abs=1e-4)
    chosen = cls(**settings).fit_selector(train, 0.5, rng()).select(queries)
    again = cls(**settings).fit_selector(with_models(train, order), 0.5, rng()).select(with_models(queries, order))
    assert [order[i] for i in again] == chosen.tolist()


@pytest.mark.parametrize("cls", [LinearMF, MLPMF])
def test_it_learns_models_that_answer_opposite_queries(make_side, cls):
    X = np.random.default_rng(0).normal(size=(600, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = np.hstack([X[:, :1] > 0, X[:, :1] < 0, X[:, 1:2] > 0]).astype(float)
    side = make_side(X, scores, 1.0 + X[:, :1] * [[1.0, 0.0, -1.0]])
    predicted = cls(epochs=150, learning_rate=0.01).fit(side, rng()).predict(side)
    assert ((predicted.scores > 0.5) == (scores > 0.5)).mean() > 0.95
    assert predicted.costs == pytest.approx(side.costs, abs=0.1)
    # The first two models are never both right, and cost the same to the selector.
    free = replace(side, costs=np.zeros_like(side.costs), scores=side.scores * [1.0, 1.0, 0.0])
    chosen = cls(epochs=30, learning_rate=0.01).fit_selector(free, 0.5, rng()).select(free)
    assert free.scores[np.arange(600), chosen].mean() > 0.95


@pytest.mark.parametrize("cls", [LinearMF, MLPMF])
@pytest.mark.parametrize("n_models", [1, 2, 100])
def test_any_number_of_models_and_constant_or_unobserved_outcomes(make_side, cls, n_models):
    X = np.eye(40)
    scores, costs = np.ones((40, n_models)), np.zeros((40, n_models))
    scores[:, n_models // 2 + 1 :] = np.nan
    side = make_side(X, scores, costs)
    prediction = cls(epochs=2).fit(side, rng()).predict(side)
    assert np.isfinite(prediction.scores).all() and np.isfinite(prediction.costs).all()
    assert cls(epochs=2).fit_selector(side, 0.5, rng()).select(side).max() <= n_models // 2


@pytest.mark.parametrize("cls", [LinearMF, MLPMF])
def test_candidates_draw_the_weight_of_the_cost(cls):
    drawn = cls.candidates(n_train=100, budget=20, fixed={}, rng=rng())
    assert drawn[0] == {**{key: cls().params()[key] for key in cls.tunables}, "epochs": cls.most_epochs}
    assert {config["alpha"] for config in drawn} == {0.1, 1.0, 10.0} == set(cls.space()["alpha"])
    assert all(set(config) == set(cls.tunables) for config in drawn)
    assert min(drawn, key=cls.simplicity)["learning_rate"] == min(config["learning_rate"] for config in drawn)


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (LinearMF, {"alpha": 0.0}, "alpha"),
        (LinearMF, {"alpha": float("inf")}, "alpha"),
        (LinearMF, {"dim": 0}, "dim"),
        (MLPMF, {"hidden": 0}, "hidden"),
        (MLPMF, {"depth": 1}, "depth"),
        (MLPMF, {"epochs": -1}, "epochs"),
    ],
)
def test_what_makes_no_sense_is_refused(cls, given, message):
    with pytest.raises(ValueError, match=message):
        cls(**given)
