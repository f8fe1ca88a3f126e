from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.routers.base import mean_outcomes
from workers.routers.labels import spread_labels
from workers.routers.mlp import MLP

SETTINGS = {"hidden": 7, "epochs": 12, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.001}


def rng():
    return np.random.default_rng(4)


def filled(side):
    return replace(side, scores=np.nan_to_num(side.scores), costs=np.nan_to_num(side.costs))


def beginning(fit, n):
    """The layers before the first step, and the minibatches that a job's stream gives after them."""
    stream = rng()
    weights = fit(MLP(**{**SETTINGS, "epochs": 0}), stream).weights_
    orders = [stream.permutation(n) for _ in range(SETTINGS["epochs"])]
    size = SETTINGS["batch_size"]
    return weights, [order[i : i + size] for order in orders for i in range(0, n - size + 1, size)]


def network(weights, model):
    """A torch network with one model's weights."""
    linears = []
    for layer in range(3):
        weight, bias = weights[f"weight{layer}"], weights[f"bias{layer}"]
        if layer == 0:
            weight = weight.transpose(1, 0, 2)
        linear = torch.nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data = torch.from_numpy(weight[model].T.copy())
        linear.bias.data = torch.from_numpy(bias[model, 0].copy())
        linears += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*linears[:-1])


def test_agrees_with_one_torch_network_per_model_on_its_observed_rows(random_sides):
    train, queries = random_sides()
    ours = MLP(**SETTINGS).fit(train, rng()).predict(queries)
    start, batches = beginning(lambda mlp, stream: mlp.fit(train, stream), train.n)
    for model in range(4):
        rows = ~np.isnan(train.scores[:, model])
        targets = np.column_stack([train.scores[:, model], train.costs[:, model]])
        mean, sd = targets[rows].mean(axis=0), targets[rows].std(axis=0)
        net = network(start, model)
        adam = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.001)
        for batch in batches:
            some = batch[rows[batch]]
            x, y = torch.from_numpy(train.X[some]), torch.from_numpy((targets[some] - mean) / sd).float()
            adam.zero_grad()
            loss = torch.nn.functional.mse_loss(net(x), y) * 2  # the mean over two outputs halves their sum
            loss.backward()
            adam.step()
        theirs = net(torch.from_numpy(queries.X)).detach().numpy() * sd + mean
        assert np.column_stack([ours.scores[:, model], ours.costs[:, model]]) == pytest.approx(theirs, abs=1e-4)


def test_the_selector_agrees_with_torchs_cross_entropy(random_sides):
    train, queries = random_sides()
    train = filled(train)
    ours = MLP(**SETTINGS).fit_selector(train, 0.5, rng())
    start, batches = beginning(lambda mlp, stream: mlp.fit_selector(train, 0.5, stream), train.n)
    nets = [network(start, model) for model in range(4)]
    labels = torch.from_numpy(spread_labels(train.scores, train.costs, 0.5)).float()
    adam = torch.optim.Adam([p for net in nets for p in net.parameters()], lr=0.01, weight_decay=0.001)
    for batch in batches:
        adam.zero_grad()
        logits = torch.cat([net(torch.from_numpy(train.X[batch])) for net in nets], dim=1)
        torch.nn.functional.cross_entropy(logits, labels[batch]).backward()
        adam.step()
    logits = torch.cat([net(torch.from_numpy(queries.X)) for net in nets], dim=1).detach().numpy()
    assert ours._outputs(queries)[:, :, 0] == pytest.approx(logits, abs=1e-4)
    assert ours.select(queries).tolist() == logits.argmax(axis=1).tolist()


def test_without_an_epoch_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = MLP(epochs=0).fit(train, rng()).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)


def test_without_an_epoch_the_selector_names_the_most_frequent_label(random_sides):
    train, queries = random_sides()
    shares = spread_labels(train.scores, train.costs, 0.5).sum(axis=0)
    assert (MLP(epochs=0).fit_selector(train, 0.5, rng()).select(queries) == shares.argmax()).all()


def test_it_learns_what_a_linear_model_cannot(make_side):
    X = np.random.default_rng(0).normal(size=(600, 2))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = (X[:, :1] * X[:, 1:] > 0).astype(float)
    side = make_side(X, scores, np.ones((600, 1)))
    predicted = MLP(epochs=60, learning_rate=0.01).fit(side, rng()).predict(side).scores
    assert ((predicted > 0.5) == (scores > 0.5)).mean() > 0.95


def test_layers_and_widths_are_as_asked(random_sides):
    train, _ = random_sides()
    weights = MLP(hidden=9, depth=4, epochs=3).fit(train, rng()).weights_
    # Widths are rounded up to 16 with units that stay at zero.
    assert [weights[f"weight{i}"].shape for i in range(4)] == [(6, 4, 16), (4, 16, 16), (4, 16, 16), (4, 16, 2)]
    assert not weights["weight1"][:, 9:].any() and not weights["weight1"][:, :, 9:].any()
    assert weights["weight1"][:, :9, :9].all() and not weights["bias0"][:, :, 9:].any()
    assert {k: v.shape for k, v in MLP(depth=1, epochs=1).fit(train, rng()).weights_.items()} == {
        "weight0": (6, 4, 2),
        "bias0": (4, 1, 2),
    }


def test_the_number_of_torch_threads_changes_neither_the_bits_nor_the_setting(random_sides):
    train, queries = random_sides(n_train=300, dim=64)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(MLP(epochs=2).fit(train, rng()).predict(queries).scores.tobytes())
            assert torch.get_num_threads() == threads
        assert found[0] == found[1]
    finally:
        torch.set_num_threads(before)


def test_candidates_hold_the_default_and_the_blind_limit():
    drawn = MLP.candidates(n_train=100, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[0] == {**{key: MLP().params()[key] for key in MLP.tunables}, "epochs": MLP.most_epochs}
    assert MLP.stages(drawn[0])[0] == 0 and MLP.stages(drawn[0])[-1] == MLP.most_epochs
