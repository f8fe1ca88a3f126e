"""Which few models together answer best, and which of them this query? Routoo's pool, predictor and selector."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.metrics.frontier import choose
from workers.routers import trunk
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.forward import network_outputs
from workers.routers.labels import TIE
from workers.routers.parameters import check_number
from workers.training import Batch, Network, Tensors, TrainedRouter, check_optimiser, check_whole, over_batch
from workers.units import PREFERENCES

if TYPE_CHECKING:
    import torch

#: Prices of cost at which the pool's models should complement each other: score alone, and the protocol's preferences.
POOL_PRICES = (0.0, *sorted(PREFERENCES.values()))
#: Mean scores of 0 and 1 have no finite logit.
LEAST_CHANCE = 1e-6
#: Coverages that tuning draws from.
COVERAGES = (0.95, 0.98, 0.99, 1.0)


class Routoo(TrainedRouter):
    """Routoo: a complementary pool, a predictor of the pool's scores, and a selector that weighs them against cost.

    - Pool: the expected score of a perfect router over a set of models, mean over queries of the set's best, is
      submodular, and models are added greedily by it. Here what counts is utility at several prices of cost, where no
      answer is worth 0, so that cheap models complement dear ones, until the pool covers a share of what all models
      cover (reading of this project); unobserved cells count as the model's means.
    - Performance predictor: the original is a small LLM with an embedding for each candidate; here logits are the
      products of a hidden layer on the frozen embedding with learned model embeddings, trained by cross-entropy on
      scores in [0, 1] (reading of this project).
    - Cost-aware selector: the best predicted score within a budget. The dual of a budget is the protocol's price λ, so
      it maximises ŝ - λĉ, with the models' mean training costs; `workers.routers.forc.assign` solves for one budget.

    A model outside the pool is predicted one point below the pool's worst, at the cost of its dearest, so that no price
    ever names it. As a selector the pool is for the preference's price alone, and the choice is the same rule there.
    The three parts are named in the abstract and in summaries of arXiv 2401.13979; its equations and training settings
    could not be read, and its repository holds the serving code alone.

    Args:
        coverage: Share of what all models cover at which the pool is complete; 1: every model that adds anything.
        hidden: Width of the hidden layer and of the model embeddings.
        learning_rate: Of Adam; like decay, epochs and batch size this project's.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out. Without one the pool
            is predicted at its training means.
        batch_size: Queries of a minibatch.
    """

    name = "routoo"
    summary = "a complementary sub-pool, its scores predicted, weighed against cost"
    source = "Mohammadshahi, Shaikh & Yazdani 2024, Routoo, arXiv 2401.13979; greedy: Nemhauser et al. 1978"
    formulations = ("utility", "selection")
    tunables = ("coverage", "learning_rate", "weight_decay", "epochs")

    price_: float | None

    def __init__(
        self,
        *,
        coverage: float = 0.99,
        hidden: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        check_whole("hidden", hidden, 1)
        check_number("coverage", coverage, 0.0, 1.0, above=True)
        self.coverage = coverage
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space: that of the optimiser, and the pool's coverage."""
        plain = super().space()
        return {
            **plain,
            "coverage": list(COVERAGES),
            "first": [*plain["first"], {**plain["first"][0], "coverage": 1.0}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The defaults, the same with all models (its epoch 0 is the zero-router), then draws."""
        default, *drawn = super().candidates(n_train=n_train, budget=budget - 1, fixed=fixed, rng=rng)
        coverages = rng.choice(COVERAGES, size=len(drawn))
        return [
            default,
            {**default, "coverage": 1.0},
            *({**config, "coverage": float(share)} for config, share in zip(drawn, coverages, strict=True)),
        ]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """As for the optimiser, then the smaller pool."""
        return (*super().simplicity(params), params["coverage"])

    def signature(self) -> Hashable:
        """Pools differ in their tables alone."""
        return self.hidden

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Choose the pool; logits start at the pool's mean scores."""
        scores, costs = train.outcomes
        means, self.costs_ = mean_outcomes(train)
        self.price_ = price
        filled = [np.where(np.isnan(v), m, v) for v, m in ((scores, means), (costs, self.costs_))]
        self.pool_ = complementary(*filled, prices=POOL_PRICES if price is None else (price,), coverage=self.coverage)
        likely = np.clip(means, LEAST_CHANCE, 1.0 - LEAST_CHANCE)
        targets = np.where(self.pool_, scores, np.nan).astype(np.float32)
        return Network(
            parameters=trunk.initial(train.embeddings.shape[1], self.hidden, np.log(likely / (1.0 - likely)), rng),
            tables={"scores": targets},
        )

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the pool's scores: mean over each model's observed queries, summed over models. [B]."""
        import torch

        targets = batch.take("scores")
        logits = trunk.forward(weights, batch.x())[..., : targets.shape[2]]
        observed = ~targets.isnan()
        errors = (torch.nn.functional.softplus(logits) - logits * targets.nan_to_num()) * observed
        return (over_batch(errors) / over_batch(observed.float()).clamp(min=1)).sum(dim=1)

    def predict(self, queries: Side) -> Prediction:
        """Chances of the pool's models and mean costs; others where no price names them. [n, M]."""
        from scipy.special import expit

        chances = expit(network_outputs(trunk.forward, self.weights_, queries.X)[:, : len(self.costs_)])
        worst = chances[:, self.pool_].min(axis=1, keepdims=True)
        scores = np.where(self.pool_, chances, worst - 1.0)
        costs = np.where(self.pool_, self.costs_, self.costs_[self.pool_].max())
        return Prediction(scores=scores, costs=np.broadcast_to(costs, scores.shape))

    def select(self, queries: Side) -> Positions:
        """The pool's model of the highest predicted utility. [n]."""
        assert self.price_ is not None
        return choose(self.predict(queries), self.price_)


def complementary(
    scores: Floats, costs: Floats, *, prices: tuple[float, ...], coverage: float
) -> npt.NDArray[np.bool_]:
    """Which models are in the greedy pool. [M].

    What a set of models covers is the mean, over queries and prices, of its highest utility score - price · cost, or 0
    where that is negative: monotone and submodular. The model that adds most comes next, of several the cheapest; what
    still ties comes together. If nothing is covered by any, all models are in.

    Args:
        scores: [n, M]
        costs: [n, M]
        prices: Prices of cost.
        coverage: Share of what all models cover at which to stop.
    """
    worth = np.maximum(np.concatenate([scores - price * costs for price in prices]), 0.0)
    mean_costs, everything = costs.mean(axis=0), float(worth.max(axis=1).mean())
    pool = np.zeros(worth.shape[1], dtype=np.bool_)
    if everything <= 0:
        return ~pool
    covered = np.zeros(len(worth))
    while covered.mean() < coverage * everything - TIE:
        gains = np.where(pool, -np.inf, np.maximum(worth - covered[:, None], 0.0).mean(axis=0))
        best = gains >= gains.max() - TIE
        best &= mean_costs <= mean_costs[best].min() + TIE
        pool |= best
        covered = np.maximum(covered, worth[:, best].max(axis=1))
    return pool
