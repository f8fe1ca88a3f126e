from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from workers.routers.base import mean_outcomes
from workers.routers.zooter import Zooter, softmax_of_observed
from workers.training import one_thread

SETTINGS = {"hidden": 7, "epochs": 12, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.001}


@pytest.fixture(autouse=True)
def alone():
    with one_thread():
        yield


def rng():
    return np.random.default_rng(4)


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def smoothed(side, rewards, beta):
    """r* query by query."""
    tasks = np.array(side.tasks)
    tags = [np.nanmean(rewards[tasks == task], axis=0) for task in side.tasks]
    return beta * rewards + (1 - beta) * np.array(tags)


def plain(weights, hidden, n_models):
    first = torch.nn.Linear(len(weights["weight"]), hidden)
    first.weight.data, first.bias.data = tensor(weights["weight"][:, :hidden].T), tensor(weights["shift"][0, :hidden])
    last = torch.nn.Linear(hidden, n_models)
    torch.nn.init.zeros_(last.weight)
    last.bias.data = tensor(weights["bias"][0, :n_models])
    return torch.nn.Sequential(first, torch.nn.GELU(), last)


@pytest.mark.parametrize("price", [None, 0.5])
def test_agrees_with_torchs_divergence_of_one_query_after_the_other(random_sides, price):
    train, queries = random_sides()
    fit = (lambda r, s: r.fit(train, s)) if price is None else (lambda r, s: r.fit_selector(train, price, s))
    ours = fit(Zooter(**SETTINGS), rng())
    stream = rng()
    net = plain(fit(Zooter(**{**SETTINGS, "epochs": 0}), stream).weights_, 7, 4)
    targets = smoothed(train, train.scores - (price or 0.0) * train.costs, 0.3)
    adam = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.001)
    for _ in range(12):
        order = stream.permutation(train.n)
        for start in range(0, train.n - 31, 32):
            adam.zero_grad()
            loss = torch.zeros(())
            for i in order[start : start + 32]:
                seen = np.flatnonzero(~np.isnan(targets[i]))
                log_found = net(tensor(train.X[i]))[seen].log_softmax(dim=0)
                wanted = tensor(softmax(targets[i, seen]))
                loss = loss + torch.nn.functional.kl_div(log_found, wanted, reduction="sum")
            (loss / 32).backward()
            adam.step()
    logits = net(tensor(queries.X)).detach().numpy()
    if price is None:
        scores = mean_outcomes(train)[0]
        expected = logits - logits.mean(axis=1, keepdims=True) + scores.mean()
        assert ours.predict(queries).scores == pytest.approx(expected, abs=1e-4)
        assert (ours.predict(queries).costs == mean_outcomes(train)[1]).all()
        assert np.abs(expected - scores).max() > 0.01
    else:
        assert ours.select(queries).tolist() == logits.argmax(axis=1).tolist()


def test_without_an_epoch_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = Zooter(epochs=0).fit(train, rng()).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)
    chosen = Zooter(epochs=0).fit_selector(train, 0.5, rng()).select(queries)
    assert (chosen == (scores - 0.5 * costs).argmax()).all()


def test_rewards_are_a_share_of_the_query_and_a_share_of_its_task(make_side):
    # Task a: means 0.5 and 1; task b: the query's own. r* = 0.3 r + 0.7 mean.
    side = make_side(np.eye(3), [[0, 1], [1, 1], [0, 1]], np.ones((3, 2)), ("a", "a", "b"))
    router = Zooter(epochs=0)
    labels = router.network(side, None, rng()).tables["labels"]
    wanted = softmax([[0.35, 1.0], [0.65, 1.0], [0.0, 1.0]], axis=1)
    assert labels == pytest.approx(wanted, abs=1e-6)


def test_the_logits_settle_on_the_scale_of_the_scores(make_side):
    # One task and one embedding: log softmax(r) differs between the models as the rewards do.
    side = make_side(np.ones((64, 1)), np.full((64, 3), [0.1, 0.5, 0.9]), np.ones((64, 3)))
    start = replace(side, scores=side.scores[:, ::-1])
    router = Zooter(epochs=150, learning_rate=0.01, weight_decay=0.0)
    found = router.fit(side, rng()).predict(start).scores
    assert found == pytest.approx(side.scores, abs=0.01)


def test_a_softmax_is_over_what_is_observed():
    rewards = np.array([[1.0, np.nan, 2.0], [np.nan, np.nan, np.nan], [np.nan, 5.0, np.nan]])
    e = np.e
    expected = [[1 / (1 + e), 0, e / (1 + e)], [0, 0, 0], [0, 1, 0]]
    assert softmax_of_observed(rewards) == pytest.approx(np.array(expected))


def test_the_order_of_the_models_does_not_matter(random_sides):
    train, queries = random_sides()
    order = [2, 0, 3, 1]
    moved = replace(
        train,
        models=tuple(train.models[i] for i in order),
        scores=train.scores[:, order],
        costs=train.costs[:, order],
    )
    ours = Zooter(**SETTINGS).fit(train, rng()).predict(queries).scores
    assert Zooter(**SETTINGS).fit(moved, rng()).predict(queries).scores == pytest.approx(ours[:, order], abs=1e-4)


@pytest.mark.parametrize("n_models", [1, 2, 100])
def test_any_number_of_models_and_constant_or_unobserved_outcomes(make_side, n_models):
    scores = np.ones((40, n_models))
    scores[:, n_models // 2 + 1 :] = np.nan
    scores[3] = np.nan
    side = make_side(np.eye(40), scores, np.zeros((40, n_models)))
    prediction = Zooter(epochs=2).fit(side, rng()).predict(side)
    assert np.isfinite(prediction.scores).all() and np.isfinite(prediction.costs).all()
    assert Zooter(epochs=2).fit_selector(side, 0.5, rng()).select(side).max() < n_models


@pytest.mark.parametrize(("given", "message"), [({"beta": 1.1}, "beta"), ({"hidden": 0}, "hidden")])
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Zooter(**given)


def test_it_needs_tasks():
    assert Zooter().requirements() == ("task",)
