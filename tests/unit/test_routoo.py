from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from workers.metrics.frontier import choose
from workers.routers.base import Prediction, mean_outcomes
from workers.routers.routoo import Routoo, complementary

SETTINGS = {"hidden": 16, "epochs": 6, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.001}


def rng():
    return np.random.default_rng(4)


def fitted(train, **given):
    return Routoo(**{**SETTINGS, **given}).fit(train, rng())


def test_the_pool_by_hand():
    # Right on queries {0, 1, 2}, {0, 1}, {3}: the first adds 3/4, then the second nothing and the third 1/4.
    scores = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=float)
    free = np.zeros((4, 3))
    assert complementary(scores, free, prices=(0.0,), coverage=1.0).tolist() == [True, False, True]
    assert complementary(scores, free, prices=(0.0,), coverage=0.75).tolist() == [True, False, False]
    assert complementary(scores, free, prices=(0.0,), coverage=0.76).tolist() == [True, False, True]
    # At a price of 1 the first is worth 0.2 where it is right, the second 0.9: 1.8 of 4 against 0.6, then 0.2 more.
    costs = np.tile([0.8, 0.1, 1.0], (4, 1))
    assert complementary(scores, costs, prices=(1.0,), coverage=0.9).tolist() == [False, True, False]
    assert complementary(scores, costs, prices=(1.0,), coverage=1.0).tolist() == [True, True, False]


def test_pools_of_several_prices_hold_what_each_price_needs():
    # Whatever one model answers the other answers: the good one is right everywhere, the cheap one on half.
    scores = np.array([[1.0, 1.0], [1.0, 0.0]])
    costs = np.tile([1.0, 0.1], (2, 1))
    assert complementary(scores, costs, prices=(0.0,), coverage=1.0).tolist() == [True, False]
    assert complementary(scores, costs, prices=(1.0,), coverage=1.0).tolist() == [False, True]
    assert complementary(scores, costs, prices=(0.0, 1.0), coverage=1.0).tolist() == [True, True]


@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_pool_covers_what_submodularity_promises(seed):
    generator = np.random.default_rng(seed)
    scores = (generator.random((40, 7)) < generator.random(7)).astype(float)
    free, covered = np.zeros_like(scores), {}
    for size in range(1, 8):
        best = max(scores[:, list(pool)].max(axis=1).mean() for pool in itertools.combinations(range(7), size))
        covered[size] = best
    for coverage in (0.6, 0.8, 0.9, 0.99):
        pool = complementary(scores, free, prices=(0.0,), coverage=coverage)
        reached = scores[:, pool].max(axis=1).mean()
        assert reached >= coverage * covered[7] - 1e-9
        # Nemhauser, Wolsey & Fisher 1978: at least 1 - 1/e of the best pool of that size.
        assert reached >= (1 - 1 / np.e) * covered[int(pool.sum())]


def test_ties_go_to_the_cheaper_and_equal_models_come_together():
    scores, free = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=float), np.zeros((2, 4))
    assert complementary(scores, free, prices=(0.0,), coverage=1.0).all()
    # Of a pair with equal gains the cheaper; at price 0 the other then adds nothing.
    costs = np.tile([0.3, 0.2, 0.1, 0.4], (2, 1))
    assert complementary(scores, costs, prices=(0.0,), coverage=1.0).tolist() == [False, True, True, False]
    order = np.array([2, 0, 3, 1])
    moved = complementary(scores[:, order], costs[:, order], prices=(0.0,), coverage=1.0)
    assert moved.tolist() == [True, False, False, True]


def test_where_nobody_is_worth_anything_all_are_in():
    assert complementary(np.zeros((3, 2)), np.ones((3, 2)), prices=(0.0, 1.0), coverage=0.5).all()


def test_agrees_with_a_torch_network_on_the_observed_scores(random_sides):
    train, queries = random_sides()
    ours = fitted(train, coverage=1.0)
    assert ours.pool_.all()
    stream = rng()
    start = Routoo(**{**SETTINGS, "coverage": 1.0, "epochs": 0}).fit(train, stream).weights_
    orders = [stream.permutation(train.n) for _ in range(SETTINGS["epochs"])]
    first, second = torch.nn.Linear(6, 16), torch.nn.Linear(16, 4)
    for linear, layer in ((first, "hidden_"), (second, "")):
        linear.weight.data = torch.from_numpy(start[f"{layer}weight"][:, : linear.out_features].T.copy())
        linear.bias.data = torch.from_numpy(start[f"{layer}bias"][0, : linear.out_features].copy())
    net = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    adam = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.001)
    for order in orders:
        for batch in order[:64].reshape(2, 32):
            adam.zero_grad()
            logits, loss = net(torch.from_numpy(train.X[batch])), 0.0
            for model in range(4):
                rows = ~np.isnan(train.scores[batch, model])
                targets = torch.from_numpy(train.scores[batch[rows], model]).float()
                loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(logits[rows, model], targets)
            loss.backward()
            adam.step()
    theirs = net(torch.from_numpy(queries.X)).sigmoid().detach().numpy()
    prediction = ours.predict(queries)
    assert prediction.scores == pytest.approx(theirs, abs=1e-4)
    assert (prediction.costs == mean_outcomes(train)[1]).all()


def test_without_an_epoch_the_pool_is_predicted_at_its_means(random_sides):
    train, queries = random_sides()
    prediction = fitted(train, epochs=0, coverage=1.0).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-6)
    assert (prediction.scores == prediction.scores[:1]).all()
    assert (prediction.costs == costs).all()


def test_no_price_names_a_model_outside_the_pool(random_sides):
    train, queries = random_sides(n_models=6)
    router = fitted(train, coverage=0.8)
    assert 0 < router.pool_.sum() < 6
    prediction = router.predict(queries)
    for price in (0.0, 0.01, 0.3, 1.0, 10.0, 1e9):
        assert router.pool_[choose(prediction, price)].all()
    # Nor does it learn from the others' scores.
    targets = router.network(train, None, rng()).tables["scores"]
    assert (np.isnan(targets) == (np.isnan(train.scores) | ~router.pool_)).all()


def test_the_selectors_pool_is_for_its_price(make_side):
    # One right everywhere and dear, one right on half and cheap.
    generator = np.random.default_rng(0)
    X = generator.normal(size=(64, 5))
    scores = np.column_stack([np.ones(64), X[:, 0] > 0]).astype(float)
    side = make_side(X, scores, np.tile([1.0, 0.1], (64, 1)))
    dear = Routoo(**SETTINGS, coverage=1.0).fit_selector(side, 0.0, rng())
    cheap = Routoo(**SETTINGS, coverage=1.0).fit_selector(side, 1.0, rng())
    assert (dear.pool_.tolist(), cheap.pool_.tolist()) == ([True, False], [False, True])
    assert (dear.select(side) == 0).all() and (cheap.select(side) == 1).all()
    both = Routoo(**SETTINGS, coverage=1.0).fit_selector(side, 0.5, rng())
    assert both.pool_.all()
    prediction = both.predict(side)
    assert isinstance(prediction, Prediction)
    assert both.select(side).tolist() == choose(prediction, 0.5).tolist()


def test_candidates_hold_the_default_and_the_blind_limit():
    drawn = Routoo.candidates(n_train=100, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[0] == {**{key: Routoo().params()[key] for key in Routoo.tunables}, "epochs": Routoo.most_epochs}
    # All models at epoch 0 are the zero-router.
    assert drawn[1] == {**drawn[0], "coverage": 1.0} and Routoo.stages(drawn[1])[0] == 0
    assert len(Routoo.candidates(n_train=100, budget=2, fixed={}, rng=rng())) == 2
    assert Routoo.space()["first"] == [
        {"coverage": 0.99, "learning_rate": 1e-3, "weight_decay": 1e-4},
        {"coverage": 1.0, "learning_rate": 1e-3, "weight_decay": 1e-4},
    ]


@pytest.mark.parametrize("coverage", [0, 1.1, True, "all"])
def test_refusals(coverage):
    with pytest.raises(ValueError, match="coverage must be a number"):
        Routoo(coverage=coverage)
