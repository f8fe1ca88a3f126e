"""How does a router of two models, a weak and a strong one, route among many? By a chain of pairs (this project's)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from workers.benchmarks.base import Floats
from workers.metrics.areas import hull
from workers.metrics.frontier import Path, choose
from workers.routers.base import Positions, Prediction, Router, Side, mean_outcomes
from workers.routers.forward import shifted, wide
from workers.routers.labels import TIE
from workers.training import Batch, Network, Tensors, TrainedRouter, over_batch

if TYPE_CHECKING:
    import torch

#: Training means are compared as whole multiples of this: the order of rows moves their last bits, and products of
#: whole numbers are exact, so that three models on a line are seen to be.
UNIT = 1e-7
#: Shares of a label are kept this far from 0, so that their logarithms are finite.
LEAST_SHARE = 1e-6


def frontier_chain(train: Side) -> Positions:
    """The models on the frontier of the training means, cheapest to dearest. [L].

    The frontier is the least non-decreasing concave majorant of the models' mean (cost, score), from the cheapest
    model on; of models with equal means the earlier one is on it, and no model that was never observed is.
    """
    scores, costs = (np.round(means / UNIT) for means in mean_outcomes(train))
    observed = np.flatnonzero(~np.isnan(train.outcomes[0]).all(axis=0))
    known = observed if len(observed) else np.arange(len(scores))
    path = Path(costs=costs[known], scores=scores[known], prices=np.full(len(known), np.nan))
    chain: Positions = known[hull(path, left="cheapest").points]
    return chain


def outcomes_of_battles(gaps: Floats) -> Floats:
    """1 where the strong model wins, 1/2 where both tie, 0 where the weak one wins, NaN where there is no battle.

    Args:
        gaps: What the strong model of each pair has over the weak one, NaN unobserved. [n, P]
    """
    wins: Floats = np.where(gaps > TIE, 1.0, np.where(gaps < -TIE, 0.0, 0.5))
    return np.where(np.isnan(gaps), np.nan, wins)


def scales(gaps: Floats) -> Floats:
    """Mean absolute difference of each pair where the two differ; 0 of a pair that never does. [P]."""
    sizes = np.abs(np.nan_to_num(gaps))
    differ = sizes > TIE
    found: Floats = np.where(differ, sizes, 0.0).sum(axis=0) / np.maximum(differ.sum(axis=0), 1)
    return found


def mean_observed(values: Floats, otherwise: float) -> Floats:
    """Means over the observed rows, `otherwise` where there is none. [n, ...] to [...]."""
    observed = ~np.isnan(values)
    count = observed.sum(axis=0)
    found: Floats = np.where(count > 0, np.where(observed, values, 0.0).sum(axis=0) / np.maximum(count, 1), otherwise)
    return found


class ChainRouter(Router, ABC):
    """A router that decides between a weak and a strong model, applied along a chain of such pairs.

    Readings of this project: the chain is the frontier of the training means (`frontier_chain`), adjacent models are
    its pairs. The weakest model's ŝ is its training mean and each further one's is that of the model before it plus
    the gain that the method expects of going from one to the other, `gains`; ĉ are training means. Models off the
    chain are never chosen: their ŝ is the chain's lowest minus 1, their ĉ the largest. Such routers learn which model
    answers better and are given a threshold afterwards, so the selector is the same router at the threshold that the
    price of cost implies.
    """

    formulations = ("utility", "selection")

    #: The chain, cheapest to dearest. [L]
    chain_: Positions
    #: Mean training score of the cheapest model of the chain.
    first_: float
    #: Mean training cost of every model. [M]
    mean_costs_: Floats
    price_: float | None

    def keep_chain(self, train: Side, price: float | None) -> Floats:
        """Find the chain; gives what the strong model of each pair has over the weak one, NaN unobserved. [n, P]."""
        means = mean_outcomes(train)
        self.chain_, self.price_ = frontier_chain(train), price
        self.first_, self.mean_costs_ = float(means[0][self.chain_[0]]), means[1]
        gaps: Floats = np.diff(train.outcomes[0][:, self.chain_], axis=1)
        return gaps

    @abstractmethod
    def gains(self, queries: Side) -> Floats:
        """Expected gain in score of the strong over the weak model of every pair. [n, P]."""

    def predict(self, queries: Side) -> Prediction:
        """Along the chain. [n, M]."""
        firsts = np.full((queries.n, 1), self.first_)
        chain = np.cumsum(np.hstack([firsts, self.gains(queries)]), axis=1)
        scores = np.repeat(chain.min(axis=1, keepdims=True) - 1.0, len(self.mean_costs_), axis=1)
        scores[:, self.chain_] = chain
        costs = np.full(len(self.mean_costs_), self.mean_costs_.max())
        costs[self.chain_] = self.mean_costs_[self.chain_]
        return Prediction(scores=scores, costs=np.tile(costs, (queries.n, 1)))

    def select(self, queries: Side) -> Positions:
        """The model of the highest predicted utility at the price; ties to the cheaper. [n]."""
        assert self.price_ is not None
        return choose(self.predict(queries), self.price_)


class WinRateRouter(ChainRouter):
    """A chain router that estimates p = P(the strong model beats the weak one | x), ties counting half.

    Reading of this project: the gain of a pair is (2p - 1) · scale, where scale is the mean absolute difference of
    the two where they differ (1 for binary scores). Of binary scores E[s_strong - s_weak | x] = 2p - 1 exactly. With
    two models the price of cost λ chooses the strong one where p > α = (1 + λ·(c_strong - c_weak) / scale) / 2: all of
    RouteLLM's thresholds α of at least 1/2. Lower ones would pay more for what is expected to be worse.
    """

    #: [P]
    scales_: Floats

    @abstractmethod
    def win_rates(self, queries: Side) -> Floats:
        """P(the strong model of every pair wins) + P(tie) / 2. [n, P]."""

    def gains(self, queries: Side) -> Floats:
        """(2p - 1) · scale. [n, P]."""
        return (2.0 * self.win_rates(queries) - 1.0) * self.scales_

    def keep_battles(self, train: Side, price: float | None) -> Floats:
        """Find chain and scales; gives the battles of every pair as `outcomes_of_battles`. [n, P]."""
        gaps = self.keep_chain(train, price)
        self.scales_ = scales(gaps)
        return outcomes_of_battles(gaps)


class PairHead(TrainedRouter, ChainRouter, ABC):
    """A linear softmax head on x for every pair of the chain, by cross-entropy.

    Weights start at zero and biases at the labels' shares on the training side, so that without an epoch every query
    gets the same answer.
    """

    @abstractmethod
    def labels(self, train: Side, price: float | None) -> Floats:
        """Share of every class on every query and pair, NaN without a battle; keeps the chain. [n, P, classes]."""

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Zero weights, and biases at the mean labels."""
        labels = self.labels(train, price)
        if not labels.shape[1]:  # a chain of one model has no pair; an engine that trains nothing needs a parameter
            labels = np.full((train.n, 1, labels.shape[2]), np.nan)
        bias = np.log(label_shares(labels)).ravel()
        weight = np.zeros((train.embeddings.shape[1], len(bias)), dtype=np.float32)
        return Network(parameters={"weight": weight, "bias": wide(bias)}, tables={"labels": labels.astype(np.float32)})

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Cross-entropy, mean over the battles of a pair, summed over the pairs. [B]."""
        labels = batch.take("labels")
        logits = shifted(batch.x() @ weights["weight"], weights["bias"]).view(labels.shape)
        losses = -(logits.log_softmax(dim=-1) * labels.nan_to_num()).sum(dim=-1)
        counts = over_batch((~labels[..., 0].isnan()).float()).clamp(min=1)
        return (over_batch(losses) / counts).sum(dim=-1)

    def chances(self, queries: Side, classes: int) -> Floats:
        """Probability of every class of every pair. [n, P, classes]."""
        weight, bias = self.weights_["weight"], self.weights_["bias"]
        logits = queries.X.astype(np.float64) @ weight + bias[:, : weight.shape[1]]
        return softmax(logits.reshape(queries.n, -1, classes)[:, : len(self.chain_) - 1])


def label_shares(labels: Floats) -> Floats:
    """Mean label of every pair, no class below `LEAST_SHARE`; uniform without a battle. [P, classes]."""
    shares: Floats = np.maximum(mean_observed(labels, 1.0 / labels.shape[2]), LEAST_SHARE)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    odds: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
    odds /= odds.sum(axis=-1, keepdims=True)
    return odds
