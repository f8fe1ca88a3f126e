"""What do the nearest training queries add up to? Weighted sums of table rows, at one k or at many in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def is_dense(k: int, n: int) -> bool:
    """Whether k of n rows are so many that a dense product is the faster one: from about an eighth on."""
    return 8 * k > n


def weighted_sums(index: Positions, weights: Floats, table: Floats) -> Floats:
    """Σ weights · table[index] of every row. [b, columns].

    Args:
        index: Rows of the table, different ones in each row. [b, k]
        weights: [b, k]
        table: [n, columns]
    """
    from scipy.sparse import csr_array

    b, k = index.shape
    matrix = csr_array((weights.ravel(), index.ravel(), np.arange(0, b * k + 1, k)), shape=(b, len(table)))
    product: Floats = (matrix.toarray() if is_dense(k, len(table)) else matrix) @ table
    return product


class Summed:
    """A table of which sums are taken, and memory for those that go on. [n, columns]."""

    def __init__(self, table: Floats) -> None:
        self.n, self.memory = len(table), table

    def with_room(self, n_rows: int) -> Floats:
        """The table, and below it so many rows or more to write to."""
        if len(self.memory) < self.n + n_rows:
            self.memory = np.concatenate([self.memory[: self.n], np.empty((n_rows, self.memory.shape[1]))])
        return self.memory


def running_sums(
    index: npt.NDArray[np.int32], weights: Sequence[Floats], table: Summed, ends: Sequence[int]
) -> Iterator[dict[int, Floats]]:
    """What `weighted_sums` gives, where it is not dense, at several k and for several weights in one pass.

    Each sum goes on where the last one stopped, so that its bits are those of the sum from the beginning.

    Args:
        index: Rows of the table, different ones in each row. [b, k]
        weights: Of their first few. [b, at most k] each
        table: What is summed.
        ends: Numbers of neighbours, ascending.

    Yields:
        At each end the sums [b, columns] by position among the weights, where they reach so far.
    """
    b, n = len(index), table.n
    carry = table.with_room(b * len(weights) if len(ends) > 1 else 0)
    active, start = list(range(len(weights))), 0
    for end in ends:
        going = [i for i in active if weights[i].shape[1] >= end]
        matrix = _segment(index[:, start:end], [weights[i][:, start:end] for i in going], n, carried=start > 0)
        if start and going != active:
            kept = carry[n : n + b * len(active)].reshape(b, len(active), -1)[:, [active.index(i) for i in going]]
            carry[n : n + b * len(going)] = kept.reshape(b * len(going), -1)
        sums = matrix @ carry[: matrix.shape[1]]
        if len(ends) > 1:
            carry[n : n + len(sums)] = sums
        active, start = going, end
        by_weights = sums.reshape(b, len(going), -1)
        yield {i: by_weights[:, place] for place, i in enumerate(going)}


def _segment(index: npt.NDArray[np.int32], weights: Sequence[Floats], n: int, *, carried: bool) -> csr_array:
    """Rows of weights, those of one query next to each other so that what they read is near; before them their carry.

    Args:
        index: [b, length]
        weights: [b, length] each
        n: Rows of the table, which those of the carry follow.
        carried: Whether there is something to carry yet.
    """
    from scipy.sparse import csr_array

    b, length = index.shape
    shape = (b, len(weights), length + carried)
    values, columns = np.empty(shape), np.empty(shape, dtype=np.int32)
    for place, each in enumerate(weights):
        values[:, place, carried:] = each
    columns[:, :, carried:] = index[:, None]
    n_rows = b * len(weights)
    if carried:
        values[:, :, 0] = 1.0
        columns[:, :, 0] = (n + np.arange(n_rows)).reshape(b, -1)
    starts = np.arange(n_rows + 1, dtype=np.int32) * shape[2]
    return csr_array((values.ravel(), columns.ravel(), starts), shape=(n_rows, n + n_rows * carried))
