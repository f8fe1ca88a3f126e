"""Is performance local in an embedding? Agreement over distance with its permutation null, and intrinsic dimension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Rows of a block of distances.
_BLOCK = 1024
#: Share of the largest ratios that the fit of TwoNN leaves out (Facco et al. 2017).
_DISCARDED = 0.1


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Correlation of agreement with distance over all pairs; negative where performance is local."""

    value: float
    #: Share of permutations, this order included, that are at least as negative.
    p: float
    #: The same under permutations within tasks.
    p_within_task: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Mean agreement by distance, in bins of equally many pairs, and the middle 95 % of its permutations. Each [B]."""

    distance: Floats
    agreement: Floats
    low: Floats
    high: Floats


def centred(scores: Floats) -> Floats:
    """Scores minus the models' means, minus the queries' means of what is left; 0 where nothing was observed. [n, M].

    An unobserved cell so agrees with nothing and disagrees with nothing.
    """
    seen = ~np.isnan(scores)

    def mean(values: Floats, axis: int) -> Floats:
        total = np.where(seen, values, 0.0).sum(axis=axis, keepdims=True)
        return np.asarray(total / np.maximum(seen.sum(axis=axis, keepdims=True), 1))

    rest = scores - mean(scores, 0)
    return np.where(seen, rest - mean(rest, 1), 0.0)


def merged(
    X: npt.NDArray[np.float32], scores: Floats, tasks: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
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
    X: Floats, Z: Floats, tasks: npt.NDArray[np.int64], rng: np.random.Generator, *, permutations: int
) -> Correlation | None:
    """Correlate agreement z_i . z_j with cosine distance 1 - x_i . x_j over the pairs i < j (Mantel 1967).

    Neither matrix of pairs is formed: with unit rows the only sum that a permutation of the queries changes is
    sum_ij (z_i . z_j)(x_i . x_j) = |X' Z|^2, so that one costs O(n d M).

    Args:
        X: Unit rows, none twice. [n, d]
        Z: Centred scores. [n, M]
        tasks: Number of each query's task. [n]
        rng: Stream of the permutations.
        permutations: How many, of each kind.

    Returns:
        None where agreement or distance does not vary.
    """
    n = len(X)
    square = (Z * Z).sum(axis=1)
    lengths = (X * X).sum(axis=1)
    pairs = n * (n - 1)
    a_sum, s_sum = float((Z.sum(axis=0) ** 2).sum() - square.sum()), float((X.sum(axis=0) ** 2).sum() - lengths.sum())
    a_squares = float(((Z.T @ Z) ** 2).sum() - (square**2).sum())
    s_squares = float(((X.T @ X) ** 2).sum() - (lengths**2).sum())
    spread = (a_squares - a_sum**2 / pairs) * (s_squares - s_sum**2 / pairs)
    if pairs == 0 or not spread > 1e-12:
        return None

    def value(order: npt.NDArray[np.int64] | None = None) -> float:
        rows = Z if order is None else Z[order]
        joint = float(((X.T @ rows) ** 2).sum() - ((rows * rows).sum(axis=1) * lengths).sum())
        return float(-(joint - a_sum * s_sum / pairs) / np.sqrt(spread))

    observed = value()
    groups = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]

    def within() -> npt.NDArray[np.int64]:
        order = np.arange(n)
        for group in groups:
            order[group] = rng.permutation(group)
        return order

    anywhere = sum(value(rng.permutation(n)) <= observed for _ in range(permutations))
    inside = sum(value(within()) <= observed for _ in range(permutations))
    p, p_within = ((1 + count) / (1 + permutations) for count in (anywhere, inside))
    return Correlation(value=observed, p=p, p_within_task=p_within)


def curve(X: Floats, Z: Floats, rng: np.random.Generator, *, bins: int = 15, permutations: int = 200) -> Curve | None:
    """Mean agreement of the pairs by Euclidean distance, in units of a query's mean agreement with itself.

    Args:
        X: Unit rows. [n, d]
        Z: Centred scores. [n, M]
        rng: Stream of the permutations.
        bins: Bins of equally many pairs.
        permutations: Of the queries, for the band.

    Returns:
        None for fewer pairs than bins, or where no scores differ.
    """
    scale = float((Z * Z).sum(axis=1).mean())
    i, j = np.triu_indices(len(X), 1)
    if len(i) < bins or scale == 0:
        return None
    distance = np.sqrt(np.maximum(2 - 2 * (X @ X.T)[i, j], 0.0))
    order = np.argsort(distance, kind="stable")
    edges = np.linspace(0, len(i), bins + 1).astype(np.int64)

    def means(rows: Floats) -> Floats:
        pairs = ((rows @ rows.T)[i, j] / scale)[order]
        return np.add.reduceat(pairs, edges[:-1]) / np.diff(edges)

    null = np.stack([means(Z[rng.permutation(len(X))]) for _ in range(permutations)])
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    middle = np.add.reduceat(distance[order], edges[:-1]) / np.diff(edges)
    return Curve(distance=middle, agreement=means(Z), low=low, high=high)


def differences(X: Floats, values: Floats, *, bins: int = 15) -> tuple[Floats, Floats, Floats] | None:
    """How far two queries' values of a model lie apart, by distance: the curve of delta-locality (protocol 6).

    Args:
        X: Unit rows. [n, d]
        values: Scores or utilities, NaN = not observed. [n, M]
        bins: Bins of equally many pairs.

    Returns:
        Distance, mean and 0.9 quantile of |v_im - v_jm| over pairs and models, each [B]; None for too few pairs.
    """
    i, j = np.triu_indices(len(X), 1)
    if len(i) < bins:
        return None
    distance = np.sqrt(np.maximum(2 - 2 * (X @ X.T)[i, j], 0.0))
    parts = np.array_split(np.argsort(distance, kind="stable"), bins)
    found = []
    for part in parts:
        apart = np.abs(values[i[part]] - values[j[part]]).ravel()
        apart = apart[~np.isnan(apart)]
        found.append((distance[part].mean(), apart.mean(), np.quantile(apart, 0.9)) if len(apart) else (np.nan,) * 3)
    middle, mean, upper = np.array(found).T
    return middle, mean, upper


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


def undefined_share(scores: Floats) -> float:
    """Share of pairs whose rows have no correlation: one is constant, or has fewer than two observed cells."""
    seen = ~np.isnan(scores)
    highest = np.where(seen, scores, -np.inf).max(axis=1)
    lowest = np.where(seen, scores, np.inf).min(axis=1)
    n, varying = len(scores), int((highest - lowest > 1e-12).sum())
    return 1.0 - varying * (varying - 1) / (n * (n - 1)) if n > 1 else 1.0
