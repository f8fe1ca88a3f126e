"""Is performance local in an embedding? Correlation of agreement with distance over all pairs, and dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

#: Rows of a block of distances.
_BLOCK = 1024
#: Share of the largest ratios that the fit of TwoNN leaves out (Facco et al. 2017).
_DISCARDED = 0.1


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Correlation of agreement with distance over pairs; negative where performance is local."""

    value: float
    #: Share of permutations, this order included, that are at least as negative.
    p: float
    #: Middle 95 % of the permutations.
    low: float
    high: float


def centred(scores: Floats, *, rows: bool = True) -> Floats:
    """Scores minus the models' means, minus the queries' means of what is left; 0 where nothing was observed. [n, M].

    An unobserved cell so agrees with nothing and disagrees with nothing. Without `rows` the queries' means stay: that
    two queries are easy for all models is agreement too.
    """
    seen = ~np.isnan(scores)

    def mean(values: Floats, axis: int) -> Floats:
        total = np.where(seen, values, 0.0).sum(axis=axis, keepdims=True)
        return np.asarray(total / np.maximum(seen.sum(axis=axis, keepdims=True), 1))

    rest = scores - mean(scores, 0)
    return np.where(seen, rest - mean(rest, 1) if rows else rest, 0.0)


def centred_by_task(scores: Floats, tasks: Positions) -> Floats:
    """`centred`, but with every task's own means of the models. [n, M]."""
    Z = np.empty(scores.shape)
    for group in _groups(tasks):
        Z[group] = centred(scores[group])
    return Z


def merged(X: npt.NDArray[np.float32], scores: Floats, tasks: Positions) -> tuple[Floats, Floats, Positions]:
    """Queries with equal embeddings as one: unit rows, mean observed scores, the first one's task. [m, ...]."""
    _, first, of = np.unique(np.ascontiguousarray(X), axis=0, return_index=True, return_inverse=True)
    of = of.ravel()
    seen = ~np.isnan(scores)
    sums, counts = np.zeros((len(first), scores.shape[1])), np.zeros((len(first), scores.shape[1]))
    np.add.at(sums, of, np.where(seen, scores, 0.0))
    np.add.at(counts, of, seen)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return X[first].astype(np.float64), means, tasks[first]


def correlation(
    X: Floats,
    Z: Floats,
    rng: np.random.Generator,
    *,
    permutations: int,
    among: Positions | None = None,
    within: Positions | None = None,
) -> Correlation | None:
    """Correlate agreement z_i . z_j with cosine distance 1 - x_i . x_j over the pairs i < j (Mantel 1967).

    Args:
        X: Unit rows, none twice. [n, d]
        Z: Centred scores. [n, M]
        rng: Stream of the permutations.
        permutations: How many.
        among: Group of each query: only pairs of one group count, agreement and distance both without the group's mean
            over its pairs; default: all pairs. Permutations are then within these groups. [n]
        within: Group of each query, which permutations stay in; default: they go anywhere. [n]

    Returns:
        None where agreement or distance does not vary.
    """
    everywhere = np.zeros(len(X), dtype=np.int64)
    value = agreement_statistic(X, Z, among)
    if value is None:
        return None
    observed = value(np.arange(len(X)))
    groups = _groups(next(given for given in (within, among, everywhere) if given is not None))
    null = np.array([value(_shuffled(groups, rng)) for _ in range(permutations)])
    low, high = np.quantile(null, [0.025, 0.975])
    return Correlation(
        value=observed,
        p=(1 + int((null <= observed).sum())) / (1 + permutations),
        low=float(low),
        high=float(high),
    )


def agreement_statistic(X: Floats, Z: Floats, among: Positions | None = None) -> Callable[[Positions], float] | None:
    """The correlation of `correlation` as a function of the order of Z's rows, which changes within groups alone.

    Neither matrix of pairs is formed: with unit rows the only sum that such a permutation changes is
    sum_ij (z_i . z_j)(x_i . x_j) = |X' Z|^2 of each group, so that one costs O(n d M).

    Returns:
        None where agreement or distance does not vary.
    """
    groups = _groups(np.zeros(len(X), dtype=np.int64) if among is None else among)
    square, lengths = (Z * Z).sum(axis=1), (X * X).sum(axis=1)
    shared = spread_z = spread_x = 0.0
    for group in groups:
        pairs = max(len(group) * (len(group) - 1), 1)
        z_sum, z_squares = _moments(Z[group], square[group])
        x_sum, x_squares = _moments(X[group], lengths[group])
        shared += z_sum * x_sum / pairs
        spread_z += z_squares - z_sum**2 / pairs
        spread_x += x_squares - x_sum**2 / pairs
    if not spread_z * spread_x > 1e-12:
        return None
    parts = [(group, X[group].T) for group in groups]

    def value(order: Positions) -> float:
        rows = Z[order]
        joint = sum(float(((transposed @ rows[group]) ** 2).sum()) for group, transposed in parts)
        joint -= float((square[order] * lengths).sum())
        return float(-(joint - shared) / np.sqrt(spread_z * spread_x))

    return value


def _moments(rows: Floats, square: Floats) -> tuple[float, float]:
    """Sum, and sum of squares, of the products of two different rows; `square` are those of rows with themselves."""
    total = float((rows.sum(axis=0) ** 2).sum() - square.sum())
    return total, float(((rows.T @ rows) ** 2).sum() - (square**2).sum())


def _groups(numbers: Positions) -> list[Positions]:
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def _shuffled(groups: list[Positions], rng: np.random.Generator) -> Positions:
    order = np.empty(sum(map(len, groups)), dtype=np.int64)
    for group in groups:
        order[group] = rng.permutation(group)
    return order


def dimension(X: Floats) -> float | None:
    """Intrinsic dimension by TwoNN (Facco et al. 2017): slope of -log(1 - F) on log(r2 / r1), 90 % of the ratios.

    Biased low on bounded sets. Rows must be distinct: a distance of zero says nothing of dimension. [n, d].

    Returns:
        None for fewer than 20 rows.
    """
    n = len(X)
    if n < 20:
        return None
    square = (X * X).sum(axis=1)
    ratios = np.empty(n)
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        distance = np.maximum(square[rows, None] + square[None, :] - 2 * X[rows] @ X.T, 0.0)
        distance[np.arange(len(rows)), rows] = np.inf
        near = np.sort(np.partition(distance, 1, axis=1)[:, :2], axis=1)
        ratios[rows] = 0.5 * np.log(near[:, 1] / np.maximum(near[:, 0], 1e-300))
    ratios = np.sort(ratios)[: int(n * (1 - _DISCARDED))]
    heights = -np.log1p(-np.arange(1, len(ratios) + 1) / n)
    slope = float(ratios @ heights / (ratios @ ratios)) if ratios.any() else None
    return slope
