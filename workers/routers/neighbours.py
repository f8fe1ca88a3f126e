"""Which training queries are nearest? One exact search for many routers, splits and sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from workers.routers.base import Positions, Side

Floats32 = npt.NDArray[np.float32]
Similarity = Literal["cosine", "centered", "whitened"]

#: Rows of one matrix product. Always this many, at the same places: the bits of a product may depend on its shape.
BLOCK = 256
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
    256·i to 256·i + 255 whoever asks, so an answer's bits depend on the search alone. Centred and whitened spaces
    depend on the training side and are shared by its searches.
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
        left, right = _transformed(first.similarity, first.train.X, first.queries.X)
    places = [_places(searches[i]) for i in members]
    block = np.zeros((BLOCK, left.shape[1]), dtype=np.float32)
    for start in range(0, len(left), BLOCK):
        wanted = [np.flatnonzero((rows >= start) & (rows < start + BLOCK)) for rows, _ in places]
        if not any(len(rows) for rows in wanted):
            continue
        part = left[start : start + BLOCK]
        block[: len(part)], block[len(part) :] = part, 0.0
        similarities = block @ right.T
        for i, asked, (rows, columns) in zip(members, wanted, places, strict=True):
            if len(asked):
                index, similarity = _largest(similarities[np.ix_(rows[asked] - start, columns)], searches[i].k)
                yield Neighbours(search=i, rows=asked, index=index, similarity=similarity)


def _places(search: Search) -> tuple[Positions, Positions]:
    """Rows of the left matrix and of the right one that a search is about."""
    if search.similarity == "cosine":
        return search.queries.embedding_rows, search.train.embedding_rows
    return np.arange(search.queries.n), np.arange(search.train.n)


def _transformed(similarity: Similarity, train: Floats32, queries: Floats32) -> tuple[Floats32, Floats32]:
    """Queries and training rows without the training mean, optionally PCA-whitened on it; unit rows."""
    mean = train.mean(axis=0, dtype=np.float64)
    centred = train - mean
    if similarity == "whitened":
        variances, directions = np.linalg.eigh(centred.T @ centred / len(train))
        kept = variances > NEGLIGIBLE * variances[-1]
        rotation = directions[:, kept] / np.sqrt(variances[kept])
        return _unit((queries - mean) @ rotation), _unit(centred @ rotation)
    return _unit(queries - mean), _unit(centred)


def _unit(rows: npt.NDArray[np.float64]) -> Floats32:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1.0)).astype(np.float32)


def _largest(similarities: Floats32, k: int) -> tuple[Positions, Floats32]:
    """The k largest of each row, largest first, ties to the earlier column. Both [b, k]."""
    # One sortable integer per cell: the bits of -similarity made monotone, then the column. No two are equal, so
    # partition and sort need not be stable.
    bits = (np.float32(0) - similarities).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys = (ordered << np.uint64(32)) | np.arange(similarities.shape[1], dtype=np.uint64)
    if k < similarities.shape[1]:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    keys.sort(axis=1)
    index = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return index, np.take_along_axis(similarities, index, axis=1)
