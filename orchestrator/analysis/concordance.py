"""Do several rankings agree more than by chance? Kendall's W with a permutation null."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.errors import AnalysisError

Floats = npt.NDArray[np.float64]

#: Arrangements up to which the null is enumerated instead of drawn.
ENUMERATED = 20_000


@dataclass(frozen=True, kw_only=True)
class Concordance:
    """Agreement of N rankings of k things."""

    n: int
    k: int
    #: Kendall's W, corrected for ties: 0 none, 1 all rankings are the same; NaN where everything ties.
    w: float
    #: Share of arrangements with a W as large; one-sided.
    p: float
    #: 95 % of the arrangements stay at or below it.
    null_95: float
    #: Arrangements of the null, all of them or drawn.
    arrangements: int
    exact: bool


def concordance(values: npt.ArrayLike, rng: np.random.Generator, *, draws: int = 9999) -> Concordance:
    """Kendall's W of rows that rank columns (Kendall and Babington Smith 1939), values equal to 1e-9 tying.

    Under the null every row ranks in an order of its own: W is compared with that of rows permuted independently, all
    arrangements where there are few, else drawn ones (then p counts the observed one among them).

    Args:
        values: Complete; higher is better. [N, k]
        rng: Draws the permutations.
        draws: How many, where they are too many to enumerate.

    Raises:
        AnalysisError: For fewer than 2 rows, fewer than 2 columns or a value that is not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise AnalysisError(f"concordance needs 2 rankings of 2 or more without a gap, not {table.shape}.")
    n, k = table.shape
    ranks = pd.DataFrame(-table.round(9)).rank(axis=1).to_numpy(np.float64)
    centred = ranks - (k + 1) / 2
    most = n * float((centred**2).sum())
    if not most:
        return Concordance(n=n, k=k, w=math.nan, p=1.0, null_95=math.nan, arrangements=1, exact=True)
    exact = math.factorial(k) ** (n - 1) <= ENUMERATED
    sums = np.array(list(_all_sums(centred))) if exact else _drawn_sums(centred, rng, draws)
    observed, null = float((centred.sum(axis=0) ** 2).sum()) / most, (sums**2).sum(axis=1) / most
    hits, total = int((null >= observed - 1e-12).sum()), len(null)
    return Concordance(
        n=n,
        k=k,
        w=observed,
        p=hits / total if exact else (hits + 1) / (total + 1),
        null_95=float(np.quantile(null, 0.95, method="inverted_cdf")),
        arrangements=total,
        exact=exact,
    )


def _all_sums(ranks: Floats) -> Iterator[Floats]:
    """Column sums of every arrangement; the first row may stay, as W does not know the columns' order."""
    orders = [np.array(order) for order in permutations(range(ranks.shape[1]))]
    for chosen in product(orders, repeat=len(ranks) - 1):
        total = ranks[0].copy()
        for row, order in zip(ranks[1:], chosen, strict=True):
            total += row[order]
        yield total


def _drawn_sums(ranks: Floats, rng: np.random.Generator, draws: int) -> Floats:
    sums = np.zeros((draws, ranks.shape[1]))
    for row in ranks:
        sums += rng.permuted(np.tile(row, (draws, 1)), axis=1)
    return sums
