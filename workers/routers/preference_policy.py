"""How does a policy over sets of models learn that is told the price of cost? Scores first, then supervision, then PPO.

The network of `workers.routers.llm_bandit`, whose docstring says what is taken from where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.training import Floats32

if TYPE_CHECKING:
    import torch

#: Logarithm (base 10) of the prices of cost that the policy learns, either way from 0.
REACH = 3.0
#: Softmax temperature of the policy, in units of utility.
TEMPERATURE = 0.1
#: Mean scores are kept this far from 0 and 1, so that their logits are finite.
LEAST_CHANCE = 1e-4
#: Added to costs before their logarithm is taken.
LEAST_COST = 1e-4
#: Inputs for each model besides identity vector and query: score, logarithm of cost, logarithm of price.
SCALARS = 3
HEADS = 4
#: PPO's clipping range, passes over one set of actions, its minibatch, weights of the critic's error and of entropy.
CLIP = 0.2
PASSES = 4
PPO_BATCH = 256
VALUE = 0.5
ENTROPY = 0.01
#: Queries of one forward pass without gradients.
BLOCK = 512
#: Newton steps of a new model's identity vector.
STEPS = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """What the policy is told of queries and models."""

    #: Predicted scores. [n, M]
    scores: Floats
    #: Discriminations a(x). [n, D]
    queries: Floats
    #: Identity vectors. [M, D]
    identities: Floats
    #: Mean costs. [M]
    costs: Floats


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of all stages."""

    learning_rate: float
    batch_size: int


def item_parameters(weights: Mapping[str, Floats32], X: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Discriminations a(x) [n, D] and difficulties b(x) [n]; the first coordinate of a is 1 and more."""
    inputs = X.astype(np.float64)
    discriminations = inputs @ weights["discriminate"]
    discriminations[:, 0] += 1.0
    return discriminations, inputs @ weights["difficulty"][:, 0]


def train_scores(
    X: npt.NDArray[np.float32], scores: Floats, means: Floats, identity: int, epochs: int, training: Training
) -> dict[str, Floats32]:
    """Weights of P(m is right on x) = σ(a(x)ᵀI_m - b(x)) that maximise the evidence's lower bound.

    Draws from torch's current stream.

    Args:
        X: Embeddings. [n, d]
        scores: In [0, 1], NaN = not observed. [n, M]
        means: Mean score of every model, where the abilities begin. [M]
        identity: Width of the identity vectors.
        epochs: Passes over the queries.
        training: Settings.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    chances = np.clip(means, LEAST_CHANCE, 1.0 - LEAST_CHANCE)
    identities = 0.1 * torch.randn(len(means), identity)
    identities[:, 0] = torch.from_numpy(np.log(chances / (1.0 - chances))).float()
    weights = {
        "identities": identities,
        "spreads": torch.full((len(means), identity), -2.0),
        "discriminate": torch.zeros(X.shape[1], identity),
        "difficulty": torch.zeros(X.shape[1], 1),
    }
    for weight in weights.values():
        weight.requires_grad_()
    adam = torch.optim.Adam(weights.values(), lr=training.learning_rate)
    inputs, targets = torch.from_numpy(X.copy()), torch.from_numpy(scores).float()
    first = torch.nn.functional.one_hot(torch.tensor(0), identity).float()
    n_cells = max(int((~targets.isnan()).sum()), 1)
    for batch in _batches(len(X), epochs, training.batch_size):
        spread = weights["spreads"].exp()
        sampled = weights["identities"] + spread * torch.randn_like(spread)
        x, target = inputs[batch], targets[batch]
        logits = (x @ weights["discriminate"] + first) @ sampled.T - x @ weights["difficulty"]
        observed = ~target.isnan()
        losses = binary_cross_entropy_with_logits(logits, target.nan_to_num(), reduction="none") * observed
        divergence = (weights["identities"] ** 2 + spread**2 - 1.0).sum() / 2 - weights["spreads"].sum()
        adam.zero_grad()
        (losses.sum() / observed.sum().clamp(min=1) + divergence / n_cells).backward()  # type: ignore[no-untyped-call]
        adam.step()
    del weights["spreads"]
    return {name: weight.detach().numpy().copy() for name, weight in weights.items()}


def identity_of(discriminations: Floats, difficulties: Floats, scores: Floats) -> Floats:
    """A new model's identity vector: the maximum a posteriori of its scores, items being known. [D].

    Args:
        discriminations: [n, D]
        difficulties: [n]
        scores: In [0, 1]. [n]
    """
    found = np.zeros(discriminations.shape[1])
    for _ in range(STEPS):
        chances = 1.0 / (1.0 + np.exp(difficulties - discriminations @ found))
        gradient = discriminations.T @ (scores - chances) - found
        weighted = discriminations * (chances * (1.0 - chances))[:, None]
        step = np.linalg.solve(discriminations.T @ weighted + np.eye(len(found)), gradient)
        found += step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
    return found


def new_policy(identity: int, hidden: int) -> torch.nn.ModuleDict:
    """A policy and its critic, whose outputs begin at zero; draws from torch's current stream."""
    import torch

    net = torch.nn.ModuleDict(
        {
            "enter": torch.nn.Linear(SCALARS + 2 * identity, hidden),
            "attend": torch.nn.TransformerEncoderLayer(hidden, HEADS, 2 * hidden, dropout=0.0, batch_first=True),
            "advantage": torch.nn.Linear(hidden, 1),
            "value": torch.nn.Linear(hidden, 1),
        }
    )
    for name in ("advantage", "value"):
        for parameter in net[name].parameters():
            torch.nn.init.zeros_(parameter)
    return net


class _Tensors:
    """A pool as float32 tensors, with the policy's answers on it."""

    def __init__(self, pool: Pool) -> None:
        import torch

        self.scores, self.queries, self.identities, self.costs = (
            torch.from_numpy(np.asarray(values, dtype=np.float32))
            for values in (pool.scores, pool.queries, pool.identities, pool.costs)
        )

    def answer(
        self, net: torch.nn.ModuleDict, rows: torch.Tensor, prices: torch.Tensor, offered: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of the offered models, -inf of the others [b, M], and expected rewards [b].

        Args:
            net: As `new_policy` makes it.
            rows: Positions of the queries. [b]
            prices: Of cost, one for each query. [b]
            offered: Which models may be chosen, at least one. [b, M]
        """
        import torch

        scores, (b, m) = self.scores[rows], offered.shape
        log_prices = prices.clamp(min=10**-REACH).log10() / REACH
        inputs = torch.cat(
            [
                scores[..., None],
                (self.costs + LEAST_COST).log10()[None, :, None].expand(b, m, 1),
                log_prices[:, None, None].expand(b, m, 1),
                self.identities[None].expand(b, -1, -1),
                self.queries[rows][:, None].expand(-1, m, -1),
            ],
            dim=2,
        )
        hidden = net["attend"](net["enter"](inputs).relu(), src_key_padding_mask=~offered)
        utilities = scores - prices[:, None] * self.costs
        logits = (utilities + net["advantage"](hidden)[..., 0]) / TEMPERATURE
        chances = logits.masked_fill(~offered, -torch.inf).log_softmax(dim=1)
        pooled = (hidden * offered[..., None]).sum(dim=1) / offered.sum(dim=1, keepdim=True)
        expected = (chances.detach().exp() * utilities).sum(dim=1) / (1.0 + prices)
        return chances, expected + net["value"](pooled)[:, 0]


def train_policy(
    net: torch.nn.ModuleDict, pool: Pool, outcomes: Floats, epochs: int, ppo_epochs: int, training: Training
) -> None:
    """Warm start, then PPO; draws from torch's current stream.

    Args:
        net: Trained in place.
        pool: Of the training queries.
        outcomes: Scores and costs, NaN = not observed; a model observed on every query. [n, M, 2]
        epochs: Of the warm start.
        ppo_epochs: Rounds of PPO.
        training: Settings.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    told, n = _Tensors(pool), len(outcomes)
    scores, costs = torch.from_numpy(outcomes).float().unbind(dim=2)
    observed = ~scores.isnan()
    scores, costs = scores.nan_to_num(), costs.nan_to_num()
    adam = torch.optim.Adam(net.parameters(), lr=training.learning_rate)
    for rows in _batches(n, epochs, training.batch_size):
        prices, offered = _prices(len(rows)), _offer(observed[rows])
        chances, _ = told.answer(net, rows, prices, offered)
        utilities = (scores[rows] - prices[:, None] * costs[rows]) / TEMPERATURE
        both = (offered[:, :, None] & offered[:, None, :]).float()
        losses = binary_cross_entropy_with_logits(
            _gaps(chances.masked_fill(~offered, 0.0)), _gaps(utilities).sigmoid(), reduction="none"
        )
        adam.zero_grad()
        ((losses * both).sum() / both.sum()).backward()  # type: ignore[no-untyped-call]
        adam.step()
    for _ in range(ppo_epochs):
        prices, offered = _prices(n), _offer(observed)
        with torch.no_grad():
            parts = [told.answer(net, rows, prices[rows], offered[rows]) for rows in _rows(n)]
        before, expected = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        actions = before.exp().multinomial(1)
        rewards = ((scores - prices[:, None] * costs).gather(1, actions)[:, 0]) / (1.0 + prices)
        advantages, taken = rewards - expected, before.gather(1, actions)[:, 0]
        for rows in _batches(n, PASSES, PPO_BATCH):
            chances, value = told.answer(net, rows, prices[rows], offered[rows])
            gain = advantages[rows] - advantages[rows].mean()
            gain = gain / (gain.square().mean().sqrt() + 1e-8)
            ratio = (chances.gather(1, actions[rows])[:, 0] - taken[rows]).exp()
            clipped = torch.minimum(ratio * gain, ratio.clamp(1.0 - CLIP, 1.0 + CLIP) * gain)
            entropy = -(chances.exp() * chances.masked_fill(~offered[rows], 0.0)).sum(dim=1)
            error = (value - rewards[rows]).square()
            adam.zero_grad()
            (VALUE * error - clipped - ENTROPY * entropy).mean().backward()  # type: ignore[no-untyped-call]
            adam.step()


def log_chances(net: torch.nn.ModuleDict, pool: Pool, prices: Floats) -> Floats:
    """Log-probability of every model at every price of cost, all models being offered. [K, n, M]."""
    import torch

    told, (n, m) = _Tensors(pool), pool.scores.shape
    out = np.empty((len(prices), n, m))
    with torch.no_grad():
        for k, price in enumerate(prices):
            for rows in _rows(n):
                offered = torch.ones(len(rows), m, dtype=torch.bool)
                chances, _ = told.answer(net, rows, torch.full((len(rows),), float(price)), offered)
                out[k, rows.numpy()] = chances.double().numpy()
    return out


def _batches(n: int, epochs: int, size: int) -> Iterator[torch.Tensor]:
    """Positions of the minibatches of some epochs, each in a new order."""
    import torch

    for _ in range(epochs):
        yield from torch.split(torch.randperm(n), size)


def _rows(n: int) -> tuple[torch.Tensor, ...]:
    """All positions, block by block."""
    import torch

    return torch.split(torch.arange(n), BLOCK)


def _gaps(values: torch.Tensor) -> torch.Tensor:
    """The first minus the second of every two models. [b, M] to [b, M, M]."""
    return values[:, :, None] - values[:, None, :]


def _prices(n: int) -> torch.Tensor:
    """Prices of cost whose logarithm is uniform. [n]."""
    import torch

    prices: Any = 10.0 ** (REACH * (2.0 * torch.rand(n) - 1.0))
    return prices  # type: ignore[no-any-return]


def _offer(observed: torch.Tensor) -> torch.Tensor:
    """Half of the rows are offered all that was observed, the others a random half of it, at least one. [b, M]."""
    import torch

    whole = torch.rand(len(observed), 1) < 0.5
    some = observed & (whole | (torch.rand(observed.shape) < 0.5))
    return torch.where(some.any(dim=1, keepdim=True), some, observed)
