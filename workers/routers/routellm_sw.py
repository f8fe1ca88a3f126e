"""Who wins among similar training queries? RouteLLM's similarity-weighted ranking."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Side
from workers.routers.pairs import WinRateRouter, outcomes_of_battles

Battles = Literal["pool", "pair"]

#: Queries ranked at once, and columns (pairs of models) of one product: bounds of memory.
BLOCK = 256
COLUMNS = 1024
#: Newton's method: steps at most, the largest change of a log-strength in one, the gradient at which it ends.
STEPS = 100
LARGEST_STEP = 2.0
FLAT = 1e-11
#: Halvings of a step that would lower the likelihood by more than rounding does.
HALVINGS = 30
NOISE = 1e-12


class RouteLLMSW(WinRateRouter):
    """Bradley-Terry strengths per query, training battles weighted by similarity; the strong model's win rate.

    A training query is a battle between every two models observed on it, a tie half a win for each. Battles count with
    the weight γ^(1 + cos(x, x_i)), and the strengths θ of a query maximise Σ w·(y·ln p + (1 - y)·ln(1 - p)) with
    p = 1 / (1 + exp(θ_k - θ_j)). Verified in the released code (github.com/lm-sys/RouteLLM, `SWRankingRouter`): γ = 10,
    ties as half a win for each, battles of all models of the pool; there similarities are divided by a query's largest
    one (`relative`), and models are put into ten tiers by their rating, without which a pool of many models has too
    few battles for each: here every model meets every other on every query, so that no tiers are made.

    Readings of this project: to the battles of every two models a tie is added of `prior` times the weight of all
    training queries, so that strengths stay finite where a model never wins. Weights are relative, so a constant γ = 1
    is the query-blind limit. Pairs and ŝ are those of `WinRateRouter`.

    Newton's method runs for all queries at once from equal strengths, with steps of at most 2, halved where they
    would lower the likelihood, until no query's gradient exceeds 1e-11 of its total weight (100 steps at most; the
    likelihood is strictly concave, and at the default prior no strength is beyond ±14, seven such steps).

    Args:
        gamma: Base γ of the weights, at least 1.
        relative: Divide a query's similarities by its largest one, if that is positive.
        battles: `pool`: one strength per model, from the battles of all models; `pair`: only the battles of a pair
            count for it, which has the closed form p = Σ w·y / Σ w.
        prior: Weight of the added tie.
    """

    name = "routellm-sw"
    summary = "Bradley-Terry win rates from training battles weighted by similarity"
    source = "Ong et al. 2024, RouteLLM, arXiv 2406.18665, similarity-weighted ranking (γ = 10)"
    tunables = ("gamma", "relative")

    def __init__(
        self, *, gamma: float = 10.0, relative: bool = False, battles: Battles = "pool", prior: float = 1e-6
    ) -> None:
        if not (_number(gamma) and 1 <= gamma < math.inf):
            raise ValueError(f"gamma must be a number, at least 1, not {gamma!r}.")
        if not isinstance(relative, bool):
            raise ValueError(f"relative must be true or false, not {relative!r}.")
        if battles not in get_args(Battles):
            raise ValueError(f"battles must be one of {', '.join(get_args(Battles))}, not {battles!r}.")
        if not (_number(prior) and 0 < prior < math.inf):
            raise ValueError(f"prior must be a number above 0, not {prior!r}.")
        self.gamma = gamma
        self.relative = relative
        self.battles: Battles = battles
        self.prior = prior

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "gamma": {"log": [1.0, 1e6]},
            "relative": [False, True],
            "first": [{"gamma": 10.0, "relative": False}, {"gamma": 1.0, "relative": False}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The original γ = 10, the query-blind γ = 1, then draws; similarities of sentences differ by little."""
        drawn = [
            {"gamma": float(np.exp(rng.uniform(0.0, np.log(1e6)))), "relative": bool(rng.integers(2))}
            for _ in range(budget - 2)
        ]
        return [{"gamma": 10.0, "relative": False}, {"gamma": 1.0, "relative": False}, *drawn]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """The smaller γ, then plain similarities."""
        return (params["gamma"], params["relative"])

    train_: Side

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Keep the training side; battles are fought when a query comes."""
        return self._keep(train, None)

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """The same, and the price that sets the threshold."""
        return self._keep(train, price)

    def _keep(self, train: Side, price: float | None) -> Self:
        self.keep_battles(train, price)
        self.train_ = train
        return self

    def win_rates(self, queries: Side) -> Floats:
        """Of the strong model of every pair of the chain. [n, P]."""
        chain = self.chain_
        if len(chain) == 1:
            return np.empty((queries.n, 0))
        scores, parts = self.train_.outcomes[0], []
        for weights in self._weights(queries):
            if self.battles == "pair":
                wins, totals = _sums(weights, np.diff(scores[:, chain], axis=1), self.prior)
                parts.append(wins / totals)
            else:
                strengths = bradley_terry(*weighted_battles(weights, scores, self.prior))[:, chain]
                parts.append(1.0 / (1.0 + np.exp(-np.diff(strengths, axis=1))))
        return np.vstack(parts)

    def _weights(self, queries: Side) -> Iterator[Floats]:
        """Weights of the training queries, rows sum to 1, block by block. [b, n_train]."""
        left, right = queries.X.astype(np.float64), self.train_.X.astype(np.float64).T
        for start in range(0, queries.n, BLOCK):
            similarity = left[start : start + BLOCK] @ right
            largest = similarity.max(axis=1, keepdims=True)
            if self.relative:
                similarity /= np.where(largest > 0, largest, 1.0)
                largest = similarity.max(axis=1, keepdims=True)
            weights = np.exp((similarity - largest) * math.log(self.gamma))
            yield weights / weights.sum(axis=1, keepdims=True)


def weighted_battles(weights: Floats, scores: Floats, prior: float) -> tuple[Floats, Floats]:
    """Weight of the wins of every model over every other, and of all their battles, the prior's ties included.

    Args:
        weights: Of the training queries, for every query. [b, n]
        scores: Scores on the training queries, NaN = not observed. [n, M]
        prior: Weight of the tie that is added to every two models' battles.

    Returns:
        Wins of the first over the second index and battles of both, zero on the diagonal. Both [b, M, M].
    """
    b, m = len(weights), scores.shape[1]
    wins, totals = (np.zeros((b, m, m)) for _ in range(2))
    first, second = np.triu_indices(m, k=1)
    for start in range(0, len(first), COLUMNS):
        j, k = first[start : start + COLUMNS], second[start : start + COLUMNS]
        of_first, total = _sums(weights, scores[:, j] - scores[:, k], prior)
        wins[:, j, k], wins[:, k, j] = of_first, total - of_first
        totals[:, j, k] = totals[:, k, j] = total
    return wins, totals


def bradley_terry(wins: Floats, totals: Floats) -> Floats:
    """Log-strengths of the models that maximise the likelihood, for many queries at once; they sum to 0. [b, M].

    Args:
        wins: Weight of the wins of the first over the second index, positive off the diagonal. [b, M, M]
        totals: Weight of the battles of both. [b, M, M]
    """
    b, m = wins.shape[:2]
    strengths = np.zeros((b, m))
    likelihood = _likelihood(strengths, wins)
    active = np.arange(b)
    for _ in range(STEPS):
        chances = 1.0 / (1.0 + np.exp(strengths[active, None, :] - strengths[active, :, None]))
        gradient = (wins[active] - totals[active] * chances).sum(axis=2)
        moving = np.abs(gradient).max(axis=1) > FLAT
        if not moving.any():
            break
        active, chances, gradient = active[moving], chances[moving], gradient[moving]
        curvature = -totals[active] * chances * (1.0 - chances)
        curvature[:, range(m), range(m)] = -curvature.sum(axis=2)
        # Strengths are free up to a constant; this fixes their sum and changes no step that sums to zero.
        step = np.linalg.solve(curvature + 1.0 / m, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, LARGEST_STEP / np.abs(step).max(axis=1, keepdims=True))
        for _ in range(HALVINGS):
            after = _likelihood(strengths[active] + step, wins[active])
            worse = after < likelihood[active] - NOISE
            if not worse.any():
                break
            step[worse] /= 2.0
        strengths[active] += step
        likelihood[active] = after
    return strengths


def _likelihood(strengths: Floats, wins: Floats) -> Floats:
    """Log-likelihood of every query's battles. [b]."""
    gaps = strengths[:, None, :] - strengths[:, :, None]
    value: Floats = -(wins * np.logaddexp(0.0, gaps)).sum(axis=(1, 2))
    return value


def _sums(weights: Floats, gaps: Floats, prior: float) -> tuple[Floats, Floats]:
    """Weight of the battles won, and of all. Both [b, P].

    Args:
        weights: Of the training queries, for every query. [b, n]
        gaps: What the first model of each pair has over the second, NaN = no battle. [n, P]
        prior: Weight of the tie that is added.
    """
    outcomes = outcomes_of_battles(gaps)
    fought = ~np.isnan(outcomes)
    wins: Floats = weights @ np.where(fought, outcomes, 0.0) + prior / 2
    return wins, weights @ fought.astype(np.float64) + prior


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
