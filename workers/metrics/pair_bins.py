"""How do two queries' outcomes compare by their distance? Pairs in bins, with the null of permuted queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

#: Bins of equally many pairs.
BINS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBins:
    """The pairs i < j of some queries by Euclidean distance, cut into bins of equally many."""

    #: Both queries of each pair, the nearest pair first. [P]
    i: Positions
    j: Positions
    #: Where bins begin and the last one ends. [B + 1]
    edges: Positions
    #: Mean distance of each bin. [B]
    distance: Floats

    @classmethod
    def of(cls, X: Floats, bins: int = BINS) -> Self | None:
        """Cut the pairs of unit rows [n, d]; None for fewer pairs than bins."""
        i, j = np.triu_indices(len(X), 1)
        if len(i) < bins:
            return None
        distance = np.sqrt(np.maximum(2 - 2 * (X @ X.T)[i, j], 0.0))
        order = np.argsort(distance, kind="stable")
        edges = np.linspace(0, len(i), bins + 1).astype(np.int64)
        middle = np.add.reduceat(distance[order], edges[:-1]) / np.diff(edges)
        return cls(i=i[order], j=j[order], edges=edges, distance=middle)

    def means(self, values: Floats, order: Positions | None = None) -> Floats:
        """Mean of a symmetric [n, n] over the pairs of each bin, NaN left out; `order` permutes the queries. [B]."""
        pairs = values[self.i, self.j] if order is None else values[order[self.i], order[self.j]]
        there = ~np.isnan(pairs)
        counts = np.add.reduceat(there, self.edges[:-1], dtype=np.int64)
        totals = np.add.reduceat(np.where(there, pairs, 0.0), self.edges[:-1])
        return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Mean agreement by distance, and the middle 95 % of its permutations. Each [B]."""

    distance: Floats
    agreement: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class BinnedCorrelation:
    """Correlation of the bins' mean agreement with their mean distance, beside its permutations."""

    curve: Curve
    value: float
    #: Middle 95 % of the permutations.
    low: float
    high: float
    #: Share of permutations, this order included, that are at least as far from 0.
    p: float


def curve(bins: PairBins, Z: Floats, rng: np.random.Generator, *, permutations: int) -> Curve | None:
    """Mean agreement z_i . z_j by distance, in units of a query's mean agreement with itself.

    Args:
        bins: Pairs of the queries.
        Z: Centred scores. [n, M]
        rng: Stream of the permutations.
        permutations: Of the queries, for the band.

    Returns:
        None where no scores differ.
    """
    scale = float((Z * Z).sum(axis=1).mean())
    if scale == 0:
        return None
    return _curve(bins, Z @ Z.T / scale, rng, permutations)[0]


def binned_correlation(
    bins: PairBins, agreement: Floats, rng: np.random.Generator, *, permutations: int
) -> BinnedCorrelation | None:
    """The figure that Li 2025 (arXiv 2505.12601, figure 1) prints for locality, beside what chance gives.

    Pairs without a correlation are left out. The bins' means are correlated with the bins' distances. Both averages
    hide the spread of the pairs, and the bins share queries, so that values near 1 are common without any locality:
    never read one without its null.

    Args:
        bins: Pairs of the queries.
        agreement: As `row_correlations` gives it. [n, n]
        rng: Stream of the permutations.
        permutations: Of the queries, with their rows of scores.

    Returns:
        None where fewer than three bins have a pair with a correlation, or their means do not vary.
    """
    found, null = _curve(bins, agreement, rng, permutations)
    value = _pearson(found.distance, found.agreement)
    if np.isnan(value):
        return None
    values = np.array([_pearson(found.distance, one) for one in null])
    low, high = np.nanquantile(values, [0.025, 0.975])
    as_far = int((~(np.abs(values) < abs(value))).sum())  # without a value: as far, to be on the safe side
    return BinnedCorrelation(
        curve=found,
        value=value,
        low=float(low),
        high=float(high),
        p=(1 + as_far) / (1 + permutations),
    )


def undefined_share(bins: PairBins, agreement: Floats) -> float:
    """Share of the pairs without a correlation."""
    return float(np.isnan(agreement[bins.i, bins.j]).mean())


def row_correlations(scores: Floats) -> Floats:
    """Correlation of every two rows over the columns that both observe; NaN where one is constant there. [n, n].

    Args:
        scores: NaN = not observed. [n, M]
    """
    seen = ~np.isnan(scores)
    values, there = np.where(seen, scores - 0.5, 0.0), seen.astype(np.float64)
    n = there @ there.T
    sums, squares = values @ there.T, (values * values) @ there.T
    spread = n * squares - sums**2
    varies = (spread > 1e-9) & (spread.T > 1e-9)
    shared = n * (values @ values.T) - sums * sums.T
    return np.where(varies, shared / np.sqrt(np.where(varies, spread * spread.T, 1.0)), np.nan)


def differences(bins: PairBins, values: Floats) -> tuple[Floats, Floats, Floats]:
    """How far two queries' values of a model lie apart, by distance: the curve of delta-locality (protocol 6).

    Args:
        bins: Pairs of the queries.
        values: Scores or utilities, NaN = not observed. [n, M]

    Returns:
        Distance, mean and 0.9 quantile of |v_im - v_jm| over pairs and models, each [B]; NaN where none is observed.
    """
    mean, upper = np.full(len(bins.distance), np.nan), np.full(len(bins.distance), np.nan)
    for k, (start, stop) in enumerate(zip(bins.edges[:-1], bins.edges[1:], strict=True)):
        apart = np.abs(values[bins.i[start:stop]] - values[bins.j[start:stop]]).ravel()
        apart = apart[~np.isnan(apart)]
        if len(apart):
            mean[k], upper[k] = apart.mean(), np.quantile(apart, 0.9)
    return bins.distance, mean, upper


def _curve(bins: PairBins, agreement: Floats, rng: np.random.Generator, permutations: int) -> tuple[Curve, Floats]:
    """The curve, and those of permuted queries [permutations, B]."""
    null = np.stack([bins.means(agreement, rng.permutation(len(agreement))) for _ in range(permutations)])
    never = np.isnan(null).all(axis=0)
    low, high = np.where(never, np.nan, np.nanquantile(np.where(never, 0.0, null), [0.025, 0.975], axis=0))
    return Curve(distance=bins.distance, agreement=bins.means(agreement), low=low, high=high), null


def _pearson(x: Floats, y: Floats) -> float:
    """NaN for fewer than three pairs, or where one does not vary."""
    there = ~np.isnan(y)
    if there.sum() < 3:
        return float("nan")
    x, y = x[there] - x[there].mean(), y[there] - y[there].mean()
    spread = float((x @ x) * (y @ y))
    return float(x @ y) / spread**0.5 if spread > 1e-18 else float("nan")
