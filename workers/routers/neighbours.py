"""Which training queries are nearest? One exact search for many routers, splits and sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Side
from workers.routers.shortlists import BLOCK, Block, Floats32, Shortlist, Space, largest

Similarity = Literal["cosine", "centered", "whitened"]

#: By how many standard deviations a shortlist is longer than it need be on average, were training queries random ones.
MARGIN = 5.0
#: Principal directions with less than this share of the largest variance are noise, and dropped before whitening.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """The k nearest training queries of every query of a side."""

    similarity: Similarity
    train: Side
    queries: Side
    #: At most the size of the training side.
    k: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """A part of one search's answer, nearest first; equally near: the earlier training query."""

    #: Position of the search in the request.
    search: int
    #: Positions in the side that was asked for. [b]
    rows: Positions
    #: Positions in the training side. [b, k]
    index: Positions
    #: [b, k]
    similarity: Floats32


def nearest(searches: Sequence[Search]) -> Iterator[Neighbours]:
    """Answer searches block by block, every similarity of one space computed once.

    All cosine searches of one benchmark share one space, whatever their splits: block i holds the benchmark's queries
    256·i to 256·i + 255 whoever asks, so an answer's bits depend on the search alone. Each row's most similar columns
    are found once, of which every split takes its own training queries. Centred and whitened spaces depend on the
    training side and are shared by its searches.
    """
    spaces: dict[tuple[object, ...], list[int]] = {}
    for i, search in enumerate(searches):
        key: tuple[object, ...] = (search.similarity, id(search.train), id(search.queries))
        if search.similarity == "cosine":
            key = (id(search.train.matrix), id(search.queries.matrix))
        spaces.setdefault(key, []).append(i)
    for members in spaces.values():
        yield from _search_space(searches, members)


def _search_space(searches: Sequence[Search], members: Sequence[int]) -> Iterator[Neighbours]:
    first = searches[members[0]]
    if first.similarity == "cosine":
        left, right = first.queries.embeddings, first.train.embeddings
    else:
        projection = Projection(first.similarity, first.train.X)
        left, right = projection.rows(first.queries.X), projection.rows(first.train.X)
    asked = [_Asked(number, searches[number], len(right)) for number in members]
    listed = [each for each in asked if each.reach]
    reach = max((each.reach for each in listed), default=0)
    space = Space(left, right)
    for start in range(0, len(left), BLOCK):
        block, shortlist = space.block(start), None
        row_of = np.full(BLOCK, -1)
        if reach:
            rows = np.unique(np.concatenate([each.rows[each.within(start)] for each in listed])) - start
            row_of[rows] = np.arange(len(rows))
            shortlist = block.shortlist(rows, reach) if len(rows) else None
        for each in asked:
            wanted = each.within(start)
            if len(wanted):
                rows = each.rows[wanted] - start
                if each.reach and shortlist is not None:
                    index, similarity = each.chosen(block, shortlist, row_of[rows], rows)
                else:
                    index, similarity = each.searched(block, rows)
                yield Neighbours(search=each.number, rows=wanted, index=index, similarity=similarity)


class _Asked:
    """One search in a space: which rows of the left matrix ask for which of the right one."""

    def __init__(self, number: int, search: Search, n_right: int) -> None:
        self.number, self.k = number, search.k
        self.rows, self.columns = _places(search)
        #: How many of a row's most similar columns are nearly sure to hold k training queries; 0: search the columns.
        self.reach = 0
        share = len(self.columns) / n_right
        reach = math.ceil((self.k + MARGIN * (1.0 + math.sqrt(self.k * (1.0 - share)))) / share)
        # Shortlists are in the order of columns, which must be that of the training queries.
        if 2 * reach < n_right and (np.diff(self.columns) > 0).all():
            self.reach = reach
            self.position = np.full(n_right, -1, dtype=np.int32)
            self.position[self.columns] = np.arange(len(self.columns), dtype=np.int32)

    def within(self, start: int) -> Positions:
        """Positions of the queries in one block."""
        return np.flatnonzero((self.rows >= start) & (self.rows < start + BLOCK))

    def searched(self, block: Block, rows: Positions) -> tuple[Positions, Floats32]:
        """The k nearest of these rows of the block and their similarities, from all columns. Both [b, k]."""
        similarities = block.similarities[np.ix_(rows, self.columns)]
        index = largest(similarities, self.k)
        return index, np.take_along_axis(similarities, index, axis=1)

    def chosen(
        self, block: Block, shortlist: Shortlist, places: Positions, rows: Positions
    ) -> tuple[Positions, Floats32]:
        """The same from the shortlist, in which the rows have these places."""
        position = self.position.take(shortlist.columns[places, : self.reach])
        inside = np.flatnonzero(position >= 0)
        if not len(inside):
            return self.searched(block, rows)
        starts = np.searchsorted(inside, np.arange(len(rows) + 1) * position.shape[1])
        some = inside.take(starts[:-1, None] + np.arange(self.k), mode="clip")
        index = position.ravel()[some].astype(np.int64)
        similarity = shortlist.similarity[places, : self.reach].ravel()[some]
        short = np.flatnonzero(np.diff(starts) < self.k)
        if len(short):
            index[short], similarity[short] = self.searched(block, rows[short])
        return index, similarity


def _places(search: Search) -> tuple[Positions, Positions]:
    """Rows of the left matrix and of the right one that a search is about."""
    if search.similarity == "cosine":
        return search.queries.embedding_rows, search.train.embedding_rows
    return np.arange(search.queries.n), np.arange(search.train.n)


class Projection:
    """How a similarity sees rows: as they are, without the training mean, or PCA-whitened on the training side."""

    def __init__(self, similarity: Similarity, train: Floats32) -> None:
        self.mean: Floats | None = None
        self.rotation: Floats | None = None
        if similarity == "cosine":
            return
        self.mean = train.mean(axis=0, dtype=np.float64)
        if similarity == "whitened":
            centred = train - self.mean
            variances, directions = np.linalg.eigh(centred.T @ centred / len(train))
            kept = variances > NEGLIGIBLE * variances[-1]
            self.rotation = directions[:, kept] / np.sqrt(variances[kept])

    def rows(self, X: Floats32) -> Floats32:
        """Unit rows whose inner products are the similarities. [n, d or the directions kept]."""
        if self.mean is None:
            return X
        centred = X - self.mean
        return _unit(centred if self.rotation is None else centred @ self.rotation)


def _unit(rows: Floats) -> Floats32:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1.0)).astype(np.float32)
