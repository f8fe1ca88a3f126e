"""How much would `auc_path` vary over other queries? Group resamples, fitted router held fixed (protocol 5.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.metrics.areas import path_area
from workers.metrics.frontier import Walk
from workers.seeding import generator

#: Numbers in one block of draws: bounds the memory to a few times 8 MB.
BLOCK = 1_000_000


def multiplicities(
    source_groups: Sequence[str], root_seed: int, suite: str, embedded: str, draws: int
) -> npt.NDArray[np.int32]:
    """How often each draw contains each group of the whole source.

    The stream depends on root seed, suite and embedded column alone, so any two routers, splits, pools and tasks pair;
    fewer draws are the first ones of more.

    Args:
        source_groups: All group names of the source, sorted. [G]
        root_seed: Root seed of the sweep.
        suite: Suite of the benchmark.
        embedded: Name of the column that encoders see.
        draws: Number of draws, B.

    Returns:
        Rows sum to G. [B, G]
    """
    n_groups = len(source_groups)
    rng = generator(root_seed, "bootstrap", suite, embedded)
    counts = np.empty((draws, n_groups), dtype=np.int32)
    for row in counts:
        row[:] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
    return counts


def bootstrap_areas(walk: Walk, multiplicities: npt.NDArray[np.integer]) -> Floats:
    """`auc_path` (x 100) of every draw.

    Args:
        walk: Of the test queries.
        multiplicities: How often each draw contains each test query, that is its group. [B, n]

    Returns:
        NaN for a draw that contains no test query. [B]
    """
    rows = max(1, BLOCK // (len(walk.queries) + len(walk.first_costs)))
    areas = np.empty(len(multiplicities))
    for start in range(0, len(areas), rows):
        block = slice(start, start + rows)
        areas[block] = 100 * path_area(*walk.resampled(multiplicities[block]))
    return areas
