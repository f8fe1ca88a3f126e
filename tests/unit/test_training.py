from __future__ import annotations

import itertools
from inspect import signature

import numpy as np
import pytest

from workers.routers.base import FitJob, routers
from workers.sides import hidden, subset
from workers.training import TrainedRouter

TRAINED = sorted(name for name, cls in routers().items() if issubclass(cls, TrainedRouter))


def everything(make_side, *, n=330, n_models=3, dim=20, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, dim))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    # Dearer models are better, so that routers of weak and strong models have pairs to decide between.
    chances = np.linspace(0.3, 0.7, n_models) + 0.3 * X[:, :n_models]
    scores = (rng.random((n, n_models)) < chances).astype(float)
    scores[rng.random((n, n_models)) < 0.05] = np.nan
    costs = rng.random((n, n_models)) * np.linspace(0.2, 1.0, n_models)
    return make_side(X, scores, costs, tuple(f"t{i % 3}" for i in range(n)))


def jobs(cls, side, splits, prices, **params):
    """Splits of unequal size, in the order asked for; few neighbours, which cost graph and attention most."""
    found, few = [], {"k": 10} if "k" in signature(cls).parameters else {}
    params = {**few, **params}
    for split, price in itertools.product(splits, prices):
        order = np.random.default_rng(split).permutation(side.n)
        train, held = np.sort(order[: 200 - 7 * split]), np.sort(order[220:])
        stream = np.random.default_rng([split, int(10 * (price or 0))])
        train_side, queries = subset(side, train), hidden(subset(side, held))
        found.append(FitJob(router=cls(**params), train=train_side, queries=queries, rng=stream, price=price))
    return found


def bits(fitted):
    answer = fitted.prediction
    return answer.tobytes() if isinstance(answer, np.ndarray) else answer.scores.tobytes() + answer.costs.tobytes()


@pytest.mark.parametrize("n_models", [2, 5])
@pytest.mark.parametrize("name", TRAINED)
def test_same_bits_alone_and_in_any_company(make_side, name, n_models):
    cls, side = routers()[name], everything(make_side, n_models=n_models)
    if any(need != "task" for need in cls().requirements()):
        pytest.skip(f"needs {cls().requirements()}")
    prices = [price for price in (None, 0.5) if price is None or "selection" in cls.formulations]
    alone = {}
    for split, price in itertools.product(range(5), prices):
        (fitted,) = cls.predict_many(jobs(cls, side, [split], [price], epochs=2))
        alone[split, price] = bits(fitted)
    for company in ([0, 1, 2, 3, 4], [4, 1], [3, 0, 2]):
        together = cls.predict_many(jobs(cls, side, company, prices, epochs=2))
        for key, fitted in zip(itertools.product(company, prices), together, strict=True):
            assert bits(fitted) == alone[key], (key, company)


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_long_run_shows_on_the_way_is_what_a_short_one_gives(make_side, name):
    cls, side = routers()[name], everything(make_side)
    if any(need != "task" for need in cls().requirements()):
        pytest.skip(f"needs {cls().requirements()}")
    asked = [jobs(cls, side, [split], [None], epochs=epochs)[0] for epochs in (0, 1, 3) for split in (0, 1)]
    alone = [
        bits(next(cls.predict_many(jobs(cls, side, [split], [None], epochs=epochs))))
        for epochs in (0, 1, 3)
        for split in (0, 1)
    ]
    assert [bits(fitted) for fitted in cls.predict_many(asked)] == alone
    assert alone[0] != alone[4]


def test_members_of_other_rates_and_epochs_keep_their_own(make_side):
    cls, side = routers()["mlp"], everything(make_side)
    settings = [{"learning_rate": 0.01, "epochs": 1}, {"learning_rate": 0.001, "epochs": 4}, {"epochs": 2}]
    alone = [bits(next(cls.predict_many(jobs(cls, side, [0], [None], **given)))) for given in settings]
    together = [jobs(cls, side, [0], [None], **given)[0] for given in settings]
    assert [bits(fitted) for fitted in cls.predict_many(together)] == alone
    assert len(set(alone)) == 3


@pytest.mark.parametrize("n", [5, 17, 40])
def test_a_training_side_smaller_than_a_batch_trains(make_side, n):
    side = everything(make_side)
    train = subset(side, np.arange(n))
    router = routers()["mlp"](epochs=3).fit(train, np.random.default_rng(0))
    blind = routers()["mlp"](epochs=0).fit(train, np.random.default_rng(0))
    assert np.abs(router.predict(side).scores - blind.predict(side).scores).max() > 1e-3


def test_a_batch_that_is_no_multiple_of_16_is_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        routers()["mlp"](batch_size=100)


def test_numbers_next_to_zero_are_zero_while_a_network_trains_and_only_then(make_side, monkeypatch):
    import torch

    def tiny():
        return bool((torch.tensor([1e-40]) * 1.0).item())

    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot do without them")
    torch.set_flush_denormal(False)
    cls, seen = routers()["mlp"], []
    gradients = cls.gradients

    def watched(self, *arguments):
        seen.append(tiny())
        return gradients(self, *arguments)

    monkeypatch.setattr(cls, "gradients", watched)
    before = tiny()
    list(cls.predict_many(jobs(cls, everything(make_side), [0], [None], epochs=2)))
    assert seen and not any(seen)
    assert before and tiny()
