from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.errors import RouterError
from workers.routers.base import mean_outcomes
from workers.routers.hybrid_llm import HybridLLM, best_relaxation, good_enough, mean_difference

NAN = np.nan
VARIANTS = ("deterministic", "probabilistic", "transformed")


def rng():
    return np.random.default_rng(4)


@pytest.fixture
def sampled(make_side):
    """The large model, dearer by 0.9, is needed where the first coordinate of x is positive; three samples each."""
    stream = np.random.default_rng(0)
    X = stream.normal(size=(240, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    chances = np.stack([0.9 - 0.8 * (X[:, 0] > 0), np.full(240, 0.95)], axis=1)
    samples = (stream.random((240, 2, 3)) < chances[..., None]).astype(float)
    side = make_side(X, samples.mean(axis=2), np.tile([0.1, 1.0], (240, 1)))
    return replace(side, extras={"samples": samples})


def test_labels_are_shares_of_pairs_of_answers():
    # Large minus small, all pairs of two answers each: 0.9 and 0.5 against 0.6 and 0.4.
    differences = np.array([[0.3, 0.5, -0.1, 0.1], [NAN, 0.0, NAN, 0.2], [NAN, NAN, NAN, NAN]])
    assert good_enough(differences, 0.0) == pytest.approx([0.25, 0.5, NAN], nan_ok=True)
    assert good_enough(differences, 0.1) == pytest.approx([0.5, 0.5, NAN], nan_ok=True)
    assert good_enough(differences, 0.3) == pytest.approx([0.75, 1.0, NAN], nan_ok=True)


def test_mean_difference_agrees_with_all_pairs():
    values = np.random.default_rng(1).random(41)
    assert mean_difference(values) == pytest.approx(np.abs(values[:, None] - values[None, :]).mean())
    assert mean_difference(np.append(values, NAN)) == pytest.approx(mean_difference(values))
    assert mean_difference(np.array([NAN])) == 0.0


def test_the_relaxation_spreads_the_labels_most():
    # Small models that never match: at t = 0 all labels are 0. From 0.2 on half of the queries are good enough, from
    # 0.6 on all; the mean difference is largest for half of them, and the smallest such t is taken.
    differences = np.array([[0.2], [0.2], [0.6], [0.6]])
    assert best_relaxation(differences) == pytest.approx(0.2)
    assert best_relaxation(np.array([[-0.5], [-0.1]])) == 0.0
    brute = [
        np.abs(np.subtract.outer(*[(differences <= t + 1e-9).mean(axis=1)] * 2)).mean() for t in np.linspace(0, 1, 101)
    ]
    assert np.argmax(brute) == 20


def test_labels_of_each_variant(sampled):
    small, large = sampled.extras["samples"][:, 0], sampled.extras["samples"][:, 1]
    pairs = large[:, :, None] - small[:, None, :]
    routers = {variant: HybridLLM(variant=variant) for variant in VARIANTS}
    found = {variant: router.labels(sampled, None) for variant, router in routers.items()}
    assert found["deterministic"][:, 0, 0].tolist() == (small.mean(axis=1) >= large.mean(axis=1) - 1e-9).tolist()
    assert found["probabilistic"][:, 0, 0] == pytest.approx((pairs <= 0).mean(axis=(1, 2)))
    t = routers["transformed"].relaxations_[0]
    assert found["transformed"][:, 0, 0] == pytest.approx((pairs <= t + 1e-9).mean(axis=(1, 2)))
    for labels in found.values():
        assert labels.sum(axis=2) == pytest.approx(1.0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_an_epoch_it_predicts_the_training_means(sampled, variant):
    prediction = HybridLLM(variant=variant, epochs=0).fit(sampled, rng()).predict(sampled)
    scores, costs = mean_outcomes(sampled)
    assert prediction.scores == pytest.approx(np.tile(scores, (240, 1)), abs=1e-5)
    assert prediction.costs == pytest.approx(np.tile(costs, (240, 1)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_learns_which_queries_need_the_large_model(sampled, variant):
    router = HybridLLM(variant=variant, epochs=60, learning_rate=0.03).fit_selector(sampled, 0.4, rng())
    needed, clear = sampled.X[:, 0] > 0, np.abs(sampled.X[:, 0]) > 0.3
    # The large model gains about 0.85 or 0.05 for 0.9 · 0.4 = 0.36.
    assert (router.select(sampled) == needed)[clear].mean() > 0.95


def test_the_gain_is_the_mean_difference_given_the_label(make_side):
    scores = [[1, 1], [0, 1], [0, 0.5], [1, 0.75], [0.25, 0.25], [NAN, 1]]
    side = make_side(np.eye(6), scores, np.tile([0.1, 1.0], (6, 1)))
    router = HybridLLM()
    router.labels(side, None)
    # The large model is better on two queries, by 1 and 0.5, and not on three, by 0, -0.25 and 0.
    intercept, slope = router.calibration_[:, 0]
    assert (intercept, intercept + slope) == pytest.approx((-0.25 / 3, 0.75))


def test_agrees_with_torchs_binary_cross_entropy(sampled):
    settings = {"epochs": 3, "batch_size": 80, "learning_rate": 0.05, "weight_decay": 0.0}
    router = HybridLLM(variant="probabilistic", **settings).fit(sampled, rng())
    labels = torch.from_numpy(router.labels(sampled, None)[:, 0, 1]).float()
    stream = rng()
    head = [torch.nn.Linear(3, 1) for _ in range(2)]
    share = labels.mean()
    for layer, start in zip(head, (1 - share, share), strict=True):
        torch.nn.init.zeros_(layer.weight)
        layer.bias.data = start.log()[None]
    adam = torch.optim.Adam([p for layer in head for p in layer.parameters()], lr=0.05)
    X = torch.from_numpy(sampled.X)
    for _ in range(3):
        order = stream.permutation(240)
        for batch in np.split(order, 3):
            logit = (head[1](X[batch]) - head[0](X[batch]))[:, 0]
            adam.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logit, labels[batch]).backward()
            adam.step()
    r = torch.sigmoid((head[1](X) - head[0](X))[:, 0]).detach().numpy()
    assert router.chances(sampled, 2)[:, 0, 1] == pytest.approx(r, abs=1e-4)


def test_samples_are_required_of_probabilities(sampled):
    assert HybridLLM().requirements() == ()
    assert HybridLLM(variant="transformed").requirements() == ("samples",)
    once = replace(sampled, extras={"samples": sampled.extras["samples"][:, :, :1]})
    with pytest.raises(RouterError, match="two samples"):
        HybridLLM(variant="probabilistic").fit(once, rng())
    with pytest.raises(ValueError, match="variant"):
        HybridLLM(variant="soft")


def test_padding_of_the_samples_changes_nothing(sampled):
    padded = np.full((240, 2, 5), NAN)
    padded[:, 0, 1:4], padded[:, 1, :3] = sampled.extras["samples"].transpose(1, 0, 2)
    other = replace(sampled, extras={"samples": padded})
    for variant in VARIANTS[1:]:
        plain, again = (HybridLLM(variant=variant).labels(side, None) for side in (sampled, other))
        assert plain == pytest.approx(again)
