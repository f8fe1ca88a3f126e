"""Which queries train, validate and test? Hash-ordered groups of the source (protocol 1, Splits)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Positions of a benchmark's queries on each side, in canonical order."""

    index: int
    #: Training queries, whole rows or not. [n_train]
    train: Positions
    #: Validation queries with every model observed. [n_validation]
    validation: Positions
    #: Test queries with every model observed. [n_test]
    test: Positions
    #: Validation and test queries that were dropped because a model is not observed.
    n_dropped: int


def split_benchmark(benchmark: Benchmark, index: int, *, root_seed: int = 0, train_size: float = 1.0) -> Split:
    """Cut one split.

    Groups of the *source* are ordered by `sha256("s1|{root_seed}|{index}|{group}")`; of G the first 7G // 10 train,
    up to 8G // 10 validate, the rest test. A nested training size keeps the first ceil(f * G_train) groups.

    A shift trains and validates on the queries of its one task that are on these sides and tests on those of its other
    one; it keeps the first `n_train` training queries in the groups' order, or the fraction `train_size` of them.

    Args:
        benchmark: The evaluated benchmark, possibly a task or pool of its source.
        index: Split index, the `seed` of a result.
        root_seed: Root seed of the sweep.
        train_size: Fraction of the training groups to keep, in (0, 1].
    """
    rank = _ranks(benchmark.source_groups, root_seed, index)
    total, ranks = len(rank), rank[benchmark.group_numbers]
    n_train, n_held = 7 * total // 10, 8 * total // 10
    kept = math.ceil(train_size * n_train - 1e-9)
    train, validation, test = ranks < kept, (ranks >= n_train) & (ranks < n_held), ranks >= n_held
    if benchmark.shift is not None:
        trained_on = benchmark.of_task(benchmark.shift.trained_on)
        validation, test = validation & trained_on, test & benchmark.evaluated
        train = _first(ranks, (ranks < n_train) & trained_on, math.ceil(train_size * benchmark.shift.n_train - 1e-9))
    complete = benchmark.complete
    return Split(
        index=index,
        train=np.flatnonzero(train),
        validation=np.flatnonzero(validation & complete),
        test=np.flatnonzero(test & complete),
        n_dropped=int(((validation | test) & ~complete).sum()),
    )


def _first(ranks: Positions, among: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.bool_]:
    """The first n of some queries in the order of their groups, then their own. [n_queries]."""
    positions = np.flatnonzero(among)
    kept = np.zeros(len(ranks), dtype=np.bool_)
    kept[positions[np.argsort(ranks[positions], kind="stable")[:n]]] = True
    return kept


@lru_cache(maxsize=128)  # tasks and pools of one source share the order
def _ranks(groups: tuple[str, ...], root_seed: int, index: int) -> Positions:
    """Each group's place in the order of the hashes. [n_groups]."""
    prefix = f"s1|{root_seed}|{index}|".encode()
    hashed = b"".join([hashlib.sha256(prefix + group.encode()).digest() for group in groups])
    words = np.frombuffer(hashed, dtype=">u8").reshape(-1, 4).astype(np.uint64)
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[np.lexsort(words.T[::-1])] = np.arange(len(groups))
    return ranks
