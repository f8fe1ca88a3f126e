from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from workers.routers.base import mean_outcomes
from workers.routers.routellm_mf import RouteLLMMF, ranks
from workers.routers.routellm_sw import RouteLLMSW

NAN = np.nan
SETTINGS = {"dim": 7, "epochs": 4, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.001}


def rng():
    return np.random.default_rng(4)


def rising(train):
    """The same side with dearer models better, so that the chain has several pairs."""
    chances = np.linspace(0.3, 0.8, train.scores.shape[1]) + 0.2 * train.X[:, :1]
    scores = np.where(np.isnan(train.scores), NAN, np.random.default_rng(9).random(train.scores.shape) < chances)
    return replace(train, scores=scores)


def test_ranks_tie_where_scores_do_and_are_nan_where_they_are():
    scores = np.array([[0.3, NAN, 0.3 + 1e-12, 0.1, 0.9], [NAN, NAN, NAN, 0.0, 1.0]])
    assert ranks(scores) == pytest.approx(
        np.array([[1, NAN, 1, 0, 2], [NAN, NAN, NAN, 0, 1]], dtype=float), nan_ok=True
    )


def test_agrees_with_torch_on_a_loop_over_the_battles(random_sides):
    train, queries = random_sides()
    train = rising(train)
    ours = RouteLLMMF(**SETTINGS, noise=0.0).fit(train, rng())
    stream = rng()
    start = RouteLLMMF(**{**SETTINGS, "epochs": 0}, noise=0.0).fit(train, stream).weights_
    vectors, project, combine, strengths = (
        torch.tensor(start[name], requires_grad=True) for name in ("vectors", "project", "combine", "strengths")
    )
    assert vectors.shape == (4, 16) and not start["vectors"][:, 7:].any()

    def delta(x, model):
        unit = vectors[model] / vectors[model].norm()
        return combine[0] @ (unit * (x @ project)) + strengths[0, model]

    adam = torch.optim.Adam([vectors, project, combine, strengths], lr=0.01, weight_decay=0.001)
    for _ in range(SETTINGS["epochs"]):
        order = stream.permutation(train.n)
        for batch in (order[:32], order[32:64]):
            losses = []
            for i in batch:
                x = torch.from_numpy(train.X[i])
                for j, k in combinations(range(4), 2):
                    won = 0.5 + 0.5 * np.sign(train.scores[i, j] - train.scores[i, k])
                    if not np.isnan(won):
                        chance = torch.sigmoid(delta(x, j) - delta(x, k))
                        losses.append(torch.nn.functional.binary_cross_entropy(chance, torch.tensor(won).float()))
            adam.zero_grad()
            torch.stack(losses).mean().backward()
            adam.step()
    chain = ours.chain_
    assert len(chain) >= 3
    with torch.no_grad():
        for i in (0, 11):
            x = torch.from_numpy(queries.X[i])
            rates = [torch.sigmoid(delta(x, strong) - delta(x, weak)).item() for weak, strong in pairwise(chain)]
            assert ours.win_rates(queries)[i] == pytest.approx(rates, abs=1e-4)


def test_without_an_epoch_the_win_rates_are_bradley_terrys(random_sides):
    train, queries = random_sides(n_models=5)
    train = rising(train)
    ours = RouteLLMMF(epochs=0).fit(train, rng()).win_rates(queries)
    assert ours == pytest.approx(RouteLLMSW(gamma=1.0).fit(train, rng()).win_rates(queries), abs=1e-6)
    assert (ours == ours[0]).all()


def test_without_an_epoch_two_models_have_their_training_means(random_sides):
    train, queries = random_sides(n_models=2)
    train = rising(replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs)))
    prediction = RouteLLMMF(epochs=0).fit(train, rng()).predict(queries)
    assert prediction.scores == pytest.approx(np.tile(mean_outcomes(train)[0], (queries.n, 1)), abs=1e-5)


def test_noise_is_drawn_from_the_passed_stream(random_sides):
    train, queries = random_sides()
    train = rising(train)
    plain, noisy, again = (
        RouteLLMMF(epochs=3, noise=noise).fit(train, rng()).predict(queries).scores for noise in (0.0, 0.5, 0.5)
    )
    assert (noisy == again).all() and not np.allclose(plain, noisy)


def test_it_learns_where_the_strong_model_wins(make_side):
    X = np.random.default_rng(0).normal(size=(600, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = np.column_stack([X[:, 0] < 0.2, X[:, 0] > -0.2]).astype(float)
    scores[:5, 0] = 0.0
    side = make_side(X, scores, np.tile([0.1, 1.0], (600, 1)))
    rates = RouteLLMMF(epochs=60, learning_rate=0.01).fit(side, rng()).win_rates(side)[:, 0]
    # Between -0.2 and 0.2 both are right.
    assert (rates[X[:, 0] > 0.4] > 0.7).mean() > 0.95 and (rates[X[:, 0] < -0.4] < 0.3).mean() > 0.95


def test_one_model_trains_and_is_chosen(random_sides):
    train, queries = random_sides(n_models=1)
    prediction = RouteLLMMF(epochs=2).fit(train, rng()).predict(queries)
    assert prediction.scores == pytest.approx(np.tile(mean_outcomes(train)[0], (queries.n, 1)))
    assert (RouteLLMMF(epochs=1).fit_selector(train, 0.5, rng()).select(queries) == 0).all()


@pytest.mark.parametrize("bad", [{"dim": 0}, {"noise": -0.1}, {"epochs": -1}, {"batch_size": 60}])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RouteLLMMF(**bad)
