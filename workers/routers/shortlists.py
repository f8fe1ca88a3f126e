"""Which rows of a matrix are the most similar to each row of another? Found once for all splits that ask for some."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from workers.routers.base import Positions

Floats32 = npt.NDArray[np.float32]

#: Rows of one matrix product. Always this many, at the same places: the bits of a product may depend on its shape.
BLOCK = 256
#: Bytes of shortlists that are kept for a pair of matrices.
KEPT_BYTES = 256 << 20
#: Shortlists of all rows of a block are found, and kept, when more than one row out of so many is asked for: a split
#: that is tuned asks for a tenth of the rows, and then for another fifth.
MOST_ASKED = 4
#: Bytes of one entry of a shortlist: column and similarity.
ENTRY_BYTES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Shortlist:
    """The most similar columns of some rows, most similar first; equally similar: the earlier column."""

    #: [b, reach]
    columns: npt.NDArray[np.int32]
    #: [b, reach]
    similarity: Floats32


#: Shortlists of whole blocks by the block's first row, of pairs of matrices that nobody can write to, by their ids.
_KEPT: dict[tuple[int, int], dict[int, Shortlist]] = {}


class Space:
    """Similarities of the rows of one matrix to those of another, block by block.

    Args:
        left: Unit rows that are asked for. [n, d]
        right: Unit rows among which to search. [m, d]
    """

    def __init__(self, left: Floats32, right: Floats32) -> None:
        self.left, self.right = left, right
        self.kept: dict[int, Shortlist] | None = None
        if not (left.flags.writeable or right.flags.writeable):
            self.kept = _kept(left, right)
        #: Memory that every block uses: it costs more to get than to fill.
        self.padded = np.zeros((BLOCK, left.shape[1]), dtype=np.float32)
        self.product = np.empty((BLOCK, len(right)), dtype=np.float32)

    def block(self, start: int) -> Block:
        """The block of this first row."""
        return Block(self, start)


def _kept(left: Floats32, right: Floats32) -> dict[int, Shortlist]:
    key = (id(left), id(right))
    if key not in _KEPT:
        for matrix in (left, right):
            weakref.finalize(matrix, _KEPT.pop, key, None)
    return _KEPT.setdefault(key, {})


class Block:
    """256 rows of a space, the last ones filled up with zeros; what it says holds until the next block is asked."""

    def __init__(self, space: Space, start: int) -> None:
        self.space, self.start = space, start

    @cached_property
    def similarities(self) -> Floats32:
        """Of every row of the block. [BLOCK, m]."""
        padded, part = self.space.padded, self.space.left[self.start : self.start + BLOCK]
        padded[: len(part)], padded[len(part) :] = part, 0.0
        return np.matmul(padded, self.space.right.T, out=self.space.product)

    def shortlist(self, rows: Positions, reach: int) -> Shortlist:
        """The first columns of these rows. [b, at least reach].

        Args:
            rows: Distinct rows of the block. [b]
            reach: How many, below m.
        """
        space = self.space
        kept = space.kept.get(self.start) if space.kept is not None else None
        if kept is None or kept.columns.shape[1] < reach:
            small = len(space.left) * reach * ENTRY_BYTES <= KEPT_BYTES
            if space.kept is None or not small or MOST_ASKED * len(rows) < BLOCK:
                return first_columns(self.similarities[rows], reach)
            kept = space.kept[self.start] = first_columns(self.similarities, reach)
        return Shortlist(columns=kept.columns[rows], similarity=kept.similarity[rows])


def first_columns(similarities: Floats32, reach: int) -> Shortlist:
    """The largest entries of each row.

    Args:
        similarities: [b, m]
        reach: Below m.
    """
    n = similarities.shape[1]
    starts, beyond = n * np.arange(len(similarities))[:, None], n - reach - 1
    some = np.argpartition(similarities, beyond, axis=1)[:, beyond:]
    keys = sortable(similarities.ravel().take(some + starts), some)
    keys[:, 1:].sort(axis=1)
    found = Shortlist(columns=(keys[:, 1:] & LOW).astype(np.int32), similarity=similarity_of(keys[:, 1:]))
    # Of columns as similar as the last that has a place the partition may have taken any.
    unclear = np.flatnonzero(similarity_of(keys[:, :1])[:, 0] == found.similarity[:, -1])
    if len(unclear):
        columns = largest(similarities[unclear], reach)
        found.columns[unclear] = columns
        found.similarity[unclear] = similarities.ravel().take(columns + starts[unclear])
    return found


#: The half of a sortable key that is its column.
LOW = np.uint64(0xFFFFFFFF)


def sortable(similarities: Floats32, columns: Positions) -> npt.NDArray[np.uint64]:
    """Keys that ascend from the largest similarity on, then by column: no two of a row are equal. [b, c].

    Args:
        similarities: Of the columns. [b, c]
        columns: Distinct ones of each row. [b, c] or [c]
    """
    bits = (np.float32(0) - similarities).view(np.uint32)
    # The bits of -similarity made monotone, then the column.
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys: npt.NDArray[np.uint64] = (ordered << np.uint64(32)) | columns.astype(np.uint64)
    return keys


def similarity_of(keys: npt.NDArray[np.uint64]) -> Floats32:
    """The similarities that sortable keys were made of; a zero's sign is lost."""
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    negative = np.where(ordered >> 31, ordered ^ np.uint32(1 << 31), ~ordered).view(np.float32)
    similarities: Floats32 = np.float32(0) - negative
    return similarities


def largest(similarities: Floats32, k: int) -> Positions:
    """Columns of the k largest of each row, largest first, ties to the earlier column. [b, k]."""
    keys = sortable(similarities, np.arange(similarities.shape[1]))
    if k < similarities.shape[1]:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    keys.sort(axis=1)
    index: Positions = (keys & LOW).astype(np.int64)
    return index
