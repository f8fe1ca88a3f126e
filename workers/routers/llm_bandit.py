"""What does one policy for all prices of cost choose? LLM Bandit: model identity vectors, a warm start, then PPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.routers.base import NEVER_OBSERVED, Calls, Positions, Router, Side, mean_outcomes
from workers.routers.finetuning import seeded
from workers.routers.labels import most_voted
from workers.routers.preference_policy import (
    HEADS,
    REACH,
    Pool,
    Training,
    identity_of,
    item_parameters,
    log_chances,
    new_policy,
    train_policy,
    train_scores,
)
from workers.sides import subset
from workers.training import Floats32, check_whole, one_thread

#: Prices of cost that the router is asked at: 0, then by their logarithm.
PRICES = np.append(0.0, 10.0 ** np.linspace(-REACH, REACH, 31))
PRICES.flags.writeable = False
#: Training queries that judge the settings, at most.
JUDGES = 1000


class LLMBandit(Router):
    """A policy π(m | x, λ) over sets of models, told who the models are by vectors that predict their scores.

    Verified in the paper's abstract and published summaries: model identity vectors from a variational IRT model on
    prompt embeddings; a bandit with reward s weighed against c by a preference; one preference-conditioned policy,
    permutation-invariant over the set of models (a Set Transformer), which is trained by supervision first and by PPO
    then; a new model enters by its identity vector from 20 to 50 prompts. Of its architecture, losses and settings
    nothing could be verified, so what follows are readings of this project:

    1. Scores: P(m is right on x) = σ(a(x)ᵀI_m - b(x)), a and b linear in x, the first coordinate of a being 1; I_m is
       Gaussian with a standard normal prior, and the evidence's lower bound is maximised. It begins at training means.
    2. Policy: softmax over models of (ŝ_m + h_m - λ·c_m) / 0.1, where c_m is the training mean cost and h_m an output,
       zero at first, of a self-attention block over the models' (ŝ_m, log c_m, log λ, I_m, a(x)). Warm start: by
       logistic loss the policy's log-odds of every two models become the difference of their observed utilities / 0.1
       (cross-entropy with the best model would favour the cheapest, which is right on most queries). log₁₀ λ is
       uniform on [-3, 3]; half of the queries see a random subset of the models, so that other sets can be served.
    3. PPO: one action per query and round; reward (s - λ·c) / (1 + λ) of the chosen model alone; the baseline is the
       policy's expectation under ŝ and c_m plus a critic's correction; clipping 0.2, 4 passes in batches of 256,
       entropy 0.01. The warm start has seen all models' outcomes; only PPO learns from the chosen one's.
    The most probable model is chosen. The router has settings: λ = 0 and 31 prices of cost from 0.001 to 1000.
    `add_model` finds a new model's I_m as the maximum a posteriori of the labelled queries, and its mean cost there.

    Args:
        identity: Width of the identity vectors.
        hidden: Width of the policy, a multiple of 4.
        learning_rate: Of Adam, in all three stages.
        epochs: Passes over the training side of the score model, and of the warm start.
        ppo_epochs: Rounds of PPO, each over the training side.
        batch_size: Queries of a minibatch of the score model and the warm start.
    """

    name = "llm-bandit"
    summary = "one policy for all preferences: identity vectors, warm start, PPO"
    source = "Li 2025, LLM Bandit, arXiv 2502.02743; PPO: Schulman et al. 2017"
    formulations = ("utility", "selection")
    online = True
    tunables = ("learning_rate", "epochs", "ppo_epochs")
    tuned_by_default = False

    def __init__(
        self,
        *,
        identity: int = 16,
        hidden: int = 32,
        learning_rate: float = 1e-3,
        epochs: int = 20,
        ppo_epochs: int = 10,
        batch_size: int = 64,
    ) -> None:
        for key, value, least in (
            ("identity", identity, 1),
            ("hidden", hidden, 1),
            ("epochs", epochs, 0),
            ("ppo_epochs", ppo_epochs, 0),
            ("batch_size", batch_size, 1),
        ):
            check_whole(key, value, least)
        if hidden % HEADS:
            raise ValueError(f"hidden must be a multiple of {HEADS}, not {hidden!r}.")
        if not (isinstance(learning_rate, int | float) and 0 < learning_rate < math.inf):
            raise ValueError(f"learning_rate must be a number above 0, not {learning_rate!r}.")
        self.identity = identity
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.ppo_epochs = ppo_epochs
        self.batch_size = batch_size

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        default = cls().params()
        return {
            "learning_rate": {"log": [1e-4, 1e-2]},
            "epochs": [5, 10, 20, 40],
            "ppo_epochs": [0, 5, 10, 20],
            "first": [{key: default[key] for key in cls.tunables}, {"epochs": 0, "ppo_epochs": 0}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The defaults, the query-blind untrained policy, then draws."""
        first, space = {key: cls().params()[key] for key in cls.tunables}, cls.space()
        drawn = [
            {
                "learning_rate": float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-2)))),
                "epochs": int(rng.choice(space["epochs"])),
                "ppo_epochs": int(rng.choice(space["ppo_epochs"])),
            }
            for _ in range(budget - 2)
        ]
        return [first, {**first, "epochs": 0, "ppo_epochs": 0}, *drawn]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Fewer epochs, then smaller steps."""
        return (params["epochs"] + params["ppo_epochs"], params["ppo_epochs"], params["learning_rate"])

    #: Names of the models.
    models_: list[str]
    #: Identity vectors and item parameters, by name.
    weights_: dict[str, Floats32]
    #: The policy's, by name.
    policy_: dict[str, Floats32]
    #: Mean training cost of every model. [M]
    mean_costs_: Floats
    #: Mean score and cost of every setting on training queries. [2, K]
    judged_: Floats
    price_: float | None

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Scores, warm start, PPO; the settings are judged on training queries."""
        self._train(train, rng)
        self._judge(train, rng)
        self.price_ = None
        return self

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """The same policy, to be asked at one price of cost."""
        self._train(train, rng)
        self.price_ = price
        return self

    def predict(self, queries: Side) -> Calls:
        """The most probable model at each price of cost. K settings."""
        chosen = self._chosen(queries, PRICES)
        answers = (chosen[..., None] == np.arange(len(self.models_))).astype(np.float64)
        return Calls(answers=answers, called=answers, train_scores=self.judged_[0], train_costs=self.judged_[1])

    def select(self, queries: Side) -> Positions:
        """The most probable model at the selector's price; ties to the cheaper. [n]."""
        assert self.price_ is not None
        chosen: Positions = self._chosen(queries, np.array([self.price_]))[0]
        return chosen

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """A new model's identity vector and mean cost from 20 to 50 queries; the policy stays as it is."""
        names = [model.name for model in labelled.models]
        new = [name for name in names if name not in self.models_]
        if len(new) != 1 or [name for name in names if name != new[0]] != self.models_:
            raise RouterError("router 'llm-bandit': the models must be the fitted ones and one more, in order.")
        at = names.index(new[0])
        scores, costs = (values[:, at] for values in labelled.outcomes)
        tried = ~np.isnan(scores)
        discriminations, difficulties = item_parameters(self.weights_, labelled.X[tried])
        vector = identity_of(discriminations, difficulties, scores[tried]).astype(np.float32)
        self.models_ = names
        self.weights_ = {**self.weights_, "identities": np.insert(self.weights_["identities"], at, vector, axis=0)}
        self.mean_costs_ = np.insert(self.mean_costs_, at, costs[tried].mean() if tried.any() else NEVER_OBSERVED[1])
        self._judge(labelled, rng)
        return self

    def _train(self, train: Side, rng: np.random.Generator) -> None:
        scores, costs = train.outcomes
        known = np.flatnonzero(~np.isnan(scores).all(axis=1))
        means, self.mean_costs_ = mean_outcomes(train)
        self.models_ = [model.name for model in train.models]
        training = Training(learning_rate=self.learning_rate, batch_size=self.batch_size)
        with seeded(int(rng.integers(2**62))), one_thread():
            self.weights_ = train_scores(train.X[known], scores[known], means, self.identity, self.epochs, training)
            net = new_policy(self.identity, self.hidden)
            outcomes = np.stack([scores, costs], axis=2)[known]
            pool = self._pool(subset(train, known))
            train_policy(net, pool, outcomes, self.epochs, self.ppo_epochs, training)
        self.policy_ = {name: value.numpy().copy() for name, value in net.state_dict().items()}

    def _judge(self, side: Side, rng: np.random.Generator) -> None:
        """Mean outcomes of every setting's choices; what was not observed is as predicted."""
        judges = subset(side, np.sort(rng.permutation(side.n)[:JUDGES]))
        pool, outcomes = self._pool(judges), judges.outcomes
        scores = np.where(np.isnan(outcomes[0]), pool.scores, outcomes[0])
        costs = np.where(np.isnan(outcomes[1]), pool.costs, outcomes[1])
        chosen = self._chosen(judges, PRICES)
        rows = np.arange(judges.n)
        self.judged_ = np.array([[values[rows, choice].mean() for choice in chosen] for values in (scores, costs)])

    def _pool(self, side: Side) -> Pool:
        discriminations, difficulties = item_parameters(self.weights_, side.X)
        identities = self.weights_["identities"].astype(np.float64)
        scores = 1.0 / (1.0 + np.exp(difficulties[:, None] - discriminations @ identities.T))
        return Pool(scores=scores, queries=discriminations, identities=identities, costs=self.mean_costs_)

    def _chosen(self, queries: Side, prices: Floats) -> Positions:
        """The most probable model of every query at every price. [K, n]."""
        import torch

        with seeded(0), one_thread():
            net = new_policy(self.identity, self.hidden)
            net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in self.policy_.items()})
            chances = np.exp(log_chances(net, self._pool(queries), prices))
        return np.stack([most_voted(each, self.mean_costs_) for each in chances])
