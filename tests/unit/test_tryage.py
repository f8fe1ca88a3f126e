from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.routers.base import mean_outcomes
from workers.routers.tryage import Tryage

SETTINGS = {"hidden": 16, "epochs": 6, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.001}


def rng():
    return np.random.default_rng(4)


def fitted(train, **given):
    return Tryage(**{**SETTINGS, **given}).fit(train, rng())


def test_agrees_with_a_torch_network_on_losses(random_sides):
    train, queries = random_sides()
    ours = fitted(train).predict(queries)
    # The same first weights and minibatches, from the job's stream.
    stream = rng()
    start = Tryage(**{**SETTINGS, "epochs": 0}).fit(train, stream).weights_
    orders = [stream.permutation(train.n) for _ in range(SETTINGS["epochs"])]
    first, second = torch.nn.Linear(6, 16), torch.nn.Linear(16, 4)
    for linear, layer in ((first, "hidden_"), (second, "")):
        linear.weight.data = torch.from_numpy(start[f"{layer}weight"][:, : linear.out_features].T.copy())
        linear.bias.data = torch.from_numpy(start[f"{layer}bias"][0, : linear.out_features].copy())
    net = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    losses = 1 - train.scores
    mean, sd = np.nanmean(losses, axis=0), np.nanstd(losses, axis=0)
    targets = torch.from_numpy((losses - mean) / sd).float()
    adam = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.001)
    for order in orders:
        for batch in order[:64].reshape(2, 32):
            adam.zero_grad()
            answer, loss = net(torch.from_numpy(train.X[batch])), 0.0
            for model in range(4):
                rows = ~np.isnan(train.scores[batch, model])
                loss = loss + torch.nn.functional.mse_loss(answer[rows, model], targets[batch[rows], model])
            loss.backward()
            adam.step()
    theirs = net(torch.from_numpy(queries.X)).detach().numpy() * sd + mean
    assert 1 - ours.scores == pytest.approx(theirs, abs=1e-4)
    assert (ours.costs == mean_outcomes(train)[1]).all()


def test_without_an_epoch_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = fitted(train, epochs=0).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-15)
    assert (prediction.costs == costs).all()


def test_the_selector_is_the_least_loss_plus_weighted_constraint(random_sides):
    train, queries = random_sides()
    losses, costs = 1 - fitted(train).predict(queries).scores, mean_outcomes(train)[1]
    for price in (0.1, 1.0):
        chosen = Tryage(**SETTINGS).fit_selector(train, price, rng()).select(queries)
        assert chosen.tolist() == (losses + price * costs).argmin(axis=1).tolist()


def test_models_that_tie_are_one_to_it(make_side):
    # Two models with the same outcomes keep the same outputs, so the cheaper is chosen, wherever it stands.
    generator = np.random.default_rng(0)
    X = generator.normal(size=(64, 5))
    scores = np.repeat((X[:, :1] > 0).astype(float), 2, axis=1)
    for prices, cheaper in (([0.4, 0.2], 1), ([0.2, 0.4], 0)):
        side = make_side(X, scores, np.tile(prices, (64, 1)))
        assert (Tryage(**SETTINGS).fit_selector(side, 0.1, rng()).select(side) == cheaper).all()


def test_a_width_that_is_no_multiple_of_16_is_padded_and_stays_so(random_sides):
    train, _ = random_sides()
    weights = fitted(train, hidden=9).weights_
    assert weights["hidden_weight"].shape == (6, 16) and weights["weight"].shape == (16, 16)
    assert not weights["hidden_weight"][:, 9:].any() and not weights["hidden_bias"][:, 9:].any()
    assert not weights["weight"][9:].any() and not weights["weight"][:, 4:].any() and weights["weight"][:9, :4].all()
    assert not weights["bias"][:, 4:].any() and weights["bias"][:, :4].all()


def test_a_model_never_observed_is_one_to_avoid(random_sides):
    train, queries = random_sides()
    scores = train.scores.copy()
    scores[:, 2] = np.nan
    unseen = replace(train, scores=scores, costs=np.where(np.isnan(scores), np.nan, train.costs))
    prediction = fitted(unseen).predict(queries)
    assert prediction.scores[:, 2] == pytest.approx(0.0, abs=1e-6)
    assert (prediction.costs[:, 2] == 1).all()


def test_refusals():
    with pytest.raises(ValueError, match="hidden must be a whole number"):
        Tryage(hidden=0)
    with pytest.raises(ValueError, match="multiple of 16"):
        Tryage(batch_size=100)
