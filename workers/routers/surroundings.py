"""Which training queries surround a query? Looked up once for a pair of sides, however many fits and epochs ask."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import numpy as np

from workers.routers.base import Positions, Side
from workers.routers.neighbours import Search, nearest

#: What was found, by training side and side that was asked for; forgotten with either of them.
_FOUND: WeakKeyDictionary[Side, WeakKeyDictionary[Side, Positions]] = WeakKeyDictionary()


def look_ahead(wanted: Iterable[tuple[Side, Side, int]]) -> None:
    """Search for all of these at once, so that what they share is computed once.

    Args:
        wanted: Training side, queries and number of neighbours, which is cut to the size of the training side.
    """
    most: dict[tuple[int, int], tuple[Side, Side, int]] = {}
    for train, queries, k in wanted:
        known = most.get((id(train), id(queries)), (train, queries, 0))
        most[id(train), id(queries)] = (train, queries, max(min(k, train.n), known[2]))
    searches = [
        Search(similarity="cosine", train=train, queries=queries, k=k)
        for train, queries, k in most.values()
        if _known(train, queries) < k
    ]
    index = [np.empty((search.queries.n, search.k), dtype=np.int64) for search in searches]
    for found in nearest(searches):
        index[found.search][found.rows] = found.index
    for search, positions in zip(searches, index, strict=True):
        _FOUND.setdefault(search.train, WeakKeyDictionary())[search.queries] = positions


def _known(train: Side, queries: Side) -> int:
    found = _FOUND.get(train)
    return found[queries].shape[1] if found is not None and queries in found else 0


def around(train: Side, queries: Side, k: int) -> Positions:
    """Positions of the k nearest training queries by cosine, nearest first, ties to the earlier. [n, k].

    Args:
        train: Training side.
        queries: Side that is asked for.
        k: At most the size of the training side.
    """
    if k == 0:
        return np.empty((queries.n, 0), dtype=np.int64)
    look_ahead([(train, queries, k)])
    return _FOUND[train][queries][:, :k]


def around_each_other(train: Side, k: int) -> Positions:
    """As `around`, for the training side's own queries: neither a query itself nor one of its group. [n, k'].

    k' is k, or less where the largest group leaves fewer others: all have equally many, none where all are one group.
    """
    largest = _largest_group(train)
    k = min(k, train.n - largest)
    index = around(train, train, min(k + largest, train.n) if k else 0)
    own = train.groups[index] == train.groups[:, None]
    foreign = np.argsort(own, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, foreign, axis=1)


def needed_around_each_other(train: Side, k: int) -> int:
    """How many neighbours `around_each_other` looks at: what to ask `look_ahead` for."""
    return min(k + _largest_group(train), train.n)


def _largest_group(train: Side) -> int:
    return int(np.unique(train.groups, return_counts=True)[1].max())
