from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.routers.base import mean_outcomes
from workers.routers.embedllm import EmbedLLM
from workers.training import one_thread

SETTINGS = {"dim": 5, "noise": 0.1, "epochs": 12, "batch_size": 32, "learning_rate": 0.02, "weight_decay": 0.001}


@pytest.fixture(autouse=True)
def alone():
    with one_thread():
        yield


def rng():
    return np.random.default_rng(4)


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


class Plain(torch.nn.Module):
    """The classifier of the paper's code on p_m * projection(x), for two classes; its intercept is the model's."""

    def __init__(self, weights, dim, n_models):
        super().__init__()
        projection = weights["projection"][:, :dim]
        self.projection = torch.nn.Linear(*projection.shape)
        self.projection.weight.data = tensor(projection.T)
        self.projection.bias.data = tensor(weights["shift"][0, :dim])
        self.P = torch.nn.Embedding.from_pretrained(torch.zeros(n_models, dim), freeze=False)
        self.classifier = torch.nn.Parameter(tensor(weights["classifier"][:dim, 0]))
        self.bias = torch.nn.Parameter(tensor(weights["bias"][0, :n_models]))

    def forward(self, x, model):
        right = (self.P(model) * self.projection(x)) @ self.classifier + self.bias[model]
        return torch.stack([torch.zeros_like(right), right], dim=1)


def test_agrees_with_two_class_cross_entropy_over_pairs_of_query_and_model(random_sides):
    train, queries = random_sides()
    ours = EmbedLLM(**SETTINGS).fit(train, rng()).predict(queries)
    stream = rng()
    net = Plain(EmbedLLM(**{**SETTINGS, "epochs": 0}).fit(train, stream).weights_, 5, 4)
    adam = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=0.001)
    for _ in range(12):
        order = stream.permutation(train.n)
        for i in range(0, train.n - 31, 32):
            batch = order[i : i + 32]
            X = train.X[batch] + np.float32(0.1) * stream.standard_normal((32, 6), dtype=np.float32)
            row, model = np.nonzero(~np.isnan(train.scores[batch]))
            labels = torch.from_numpy(train.scores[batch][row, model].astype(np.int64))
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(tensor(X[row]), torch.from_numpy(model)), labels).backward()
            adam.step()
    with torch.no_grad():
        x = tensor(queries.X)
        theirs = [net(x, torch.full((queries.n,), model)).softmax(dim=1)[:, 1].numpy() for model in range(4)]
    assert ours.scores == pytest.approx(np.stack(theirs, axis=1), abs=1e-4)
    assert np.ptp(ours.scores, axis=0).min() > 0.02
    assert (ours.costs == mean_outcomes(train)[1]).all()


def test_without_an_epoch_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = EmbedLLM(epochs=0).fit(train, rng()).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)


def test_scores_beyond_0_and_1_are_predicted_on_their_own_scale(random_sides):
    train, queries = random_sides()
    low, high = np.nanmin(train.scores), np.nanmax(train.scores)
    assert (low, high) == (0, 1)
    plain = EmbedLLM(**SETTINGS).fit(train, rng()).predict(queries).scores
    stretched = replace(train, scores=20.0 * train.scores - 5.0)
    found = EmbedLLM(**SETTINGS).fit(stretched, rng()).predict(queries).scores
    assert found == pytest.approx(20.0 * plain - 5.0, abs=1e-4)


def test_a_score_between_is_a_soft_label(make_side):
    side = make_side(np.ones((64, 2)) / np.sqrt(2), np.full((64, 2), [0.3, 0.8]), np.ones((64, 2)))
    predicted = EmbedLLM(epochs=30, noise=0.0, learning_rate=0.01).fit(side, rng()).predict(side).scores
    assert predicted == pytest.approx(side.scores, abs=0.01)


def test_the_order_of_the_models_does_not_matter(random_sides):
    train, queries = random_sides()
    order = [2, 0, 3, 1]
    moved = replace(
        train,
        models=tuple(train.models[i] for i in order),
        scores=train.scores[:, order],
        costs=train.costs[:, order],
    )
    ours = EmbedLLM(**SETTINGS).fit(train, rng()).predict(queries).scores
    assert EmbedLLM(**SETTINGS).fit(moved, rng()).predict(queries).scores == pytest.approx(ours[:, order], abs=1e-4)


@pytest.mark.parametrize("n_models", [1, 2, 100])
def test_any_number_of_models_and_constant_or_unobserved_outcomes(make_side, n_models):
    scores = np.ones((40, n_models))
    scores[:, n_models // 2 + 1 :] = np.nan
    side = make_side(np.eye(40), scores, np.zeros((40, n_models)))
    prediction = EmbedLLM(epochs=2).fit(side, rng()).predict(side)
    assert np.isfinite(prediction.scores).all() and np.isfinite(prediction.costs).all()


@pytest.mark.parametrize(("given", "message"), [({"dim": 0}, "dim"), ({"noise": -0.1}, "noise")])
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EmbedLLM(**given)
