"""Which training queries are probably the nearest? faiss's inverted lists, and how often they are right.

The only module that imports faiss (the extra `faiss`); it does so when an index is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from workers.errors import RouterError
from workers.routers.base import Positions, Side
from workers.routers.neighbours import Neighbours, Projection, Search, Similarity, nearest
from workers.routers.shortlists import BLOCK, Floats32, sortable
from workers.seeding import generator

#: Queries at most of which the recall of a search is measured.
SAMPLED = 1000
#: A similarity this much below that of the true k-th neighbour is float32 noise: the neighbour is as near.
NOISE = 1e-6
#: Rows that are added at once, so that no second copy of them all is needed.
ADDED_TOGETHER = 65_536
#: Iterations of the k-means and training rows for each of its centres. Ten iterations took three times as long, for a
#: recall of 0.9998 instead of 0.999 (100 000 drawn rows, 32 lists).
ITERATIONS, ROWS_PER_CENTRE = 4, 64
#: Of the k-means and of what is drawn: the same rows give the same lists.
SEED = 0


def lists_for(n: int) -> int:
    """`nlist` of an index on n rows: 4 times the root, the lower end of what faiss's guidelines recommend."""
    return max(1, min(n, round(4 * math.sqrt(n))))


def require_faiss() -> None:
    """Refuse to go on without the library.

    Raises:
        RouterError: Says how to install it.
    """
    if find_spec("faiss") is None:
        raise RouterError(
            "router 'knn': index: ivf needs the package 'faiss-cpu', which is not installed; "
            "install it with: pip install 'roadtest[faiss]'."
        )


class InvertedLists:
    """faiss's `IndexIVFFlat` by inner product on a training side: every row in the list of its nearest k-means centre.

    Built and searched by one thread from a fixed seed, queries in fixed blocks: the same sides give the same answer.

    Raises:
        RouterError: faiss is not installed.
    """

    def __init__(self, train: Side, similarity: Similarity) -> None:
        require_faiss()
        self.train, self.similarity = train, similarity
        # Whitening needs all rows at once; a cosine has nothing to learn of them.
        self.projection = Projection(similarity, train.X if similarity != "cosine" else train.embeddings[:1])
        self.nlist = lists_for(train.n)
        drawn = generator(SEED, "inverted_lists", train.n).permutation(train.n)
        rows = self._rows(np.sort(drawn[: ROWS_PER_CENTRE * self.nlist]))
        with _faiss() as faiss:
            quantizer = faiss.IndexFlatIP(rows.shape[1])
            self.index: Any = faiss.IndexIVFFlat(quantizer, rows.shape[1], self.nlist, faiss.METRIC_INNER_PRODUCT)
            self.index.cp.seed, self.index.cp.niter = SEED, ITERATIONS
            self.index.cp.min_points_per_centroid = 1
            self.index.train(rows)
            for start in range(0, train.n, ADDED_TOGETHER):
                self.index.add(self._rows(np.arange(start, min(start + ADDED_TOGETHER, train.n))))

    def _rows(self, positions: Positions) -> Floats32:
        rows = self.train.embeddings[self.train.embedding_rows[positions]]
        return np.ascontiguousarray(self.projection.rows(rows), dtype=np.float32)

    @property
    def n_bytes(self) -> int:
        """Bytes of its rows, their positions and the centres."""
        width = 4 * int(self.index.d)
        return self.train.n * (width + 8) + self.nlist * width

    def search(self, queries: Side, k: int, nprobe: int) -> Iterator[Neighbours]:
        """The k nearest of the rows in the nprobe nearest lists; a query whose lists hold fewer is searched exactly.

        Args:
            queries: Side that is asked for.
            k: At most the size of the training side.
            nprobe: Lists, at most all of which are searched: then the answer is the exact one.
        """
        self.index.nprobe = min(nprobe, self.nlist)
        short = [np.empty(0, dtype=np.int64)]
        block = np.zeros((BLOCK, self.index.d), dtype=np.float32)
        for start in range(0, queries.n, BLOCK):
            rows = np.arange(start, min(start + BLOCK, queries.n))
            block[: len(rows)] = self.projection.rows(queries.embeddings[queries.embedding_rows[rows]])
            block[len(rows) :] = 0.0
            with _faiss():
                similarity, index = self.index.search(block, k)
            full = np.flatnonzero(index[: len(rows), -1] >= 0)
            short.append(np.delete(rows, full))
            index, similarity = in_order(index[full], similarity[full])
            yield Neighbours(search=0, rows=rows[full], index=index, similarity=similarity)
        few = np.concatenate(short)
        if len(few):
            exact = Search(similarity=self.similarity, train=self.train, queries=part_of(queries, few), k=k)
            for found in nearest([exact]):
                yield replace(found, rows=few[found.rows])


@contextmanager
def _faiss() -> Iterator[Any]:
    """The library, with one OpenMP thread; the number is the asking thread's own, and torch's too."""
    faiss = _limited()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


@cache
def _limited() -> Any:
    """The library, its linear algebra on one thread for good: a limit that one thread lifts is lifted for all."""
    import faiss

    for library in ThreadpoolController().lib_controllers:
        if "faiss" in library.filepath:
            library.set_num_threads(1)
    return faiss


def part_of(queries: Side, positions: Positions) -> Side:
    """The queries at these positions, as far as a search looks: rows and embeddings, not outcomes nor tasks."""
    return replace(queries, rows=queries.rows[positions], embedding_rows=queries.embedding_rows[positions])


def in_order(index: Positions, similarity: Floats32) -> tuple[Positions, Floats32]:
    """Neighbours nearest first; equally near: the earlier training query. Both [b, k]."""
    order = np.argsort(sortable(similarity, index), axis=1)
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(similarity, order, axis=1)


def sampled(n: int) -> Positions:
    """Positions of the queries by which the recall is measured: all of n, or 1000 drawn by a stream of its own."""
    drawn = generator(SEED, "neighbour_recall", n).permutation(n)[:SAMPLED]
    return np.sort(drawn).astype(np.int64)


def recall(search: Search, similarity: Floats32) -> float:
    """The share of found neighbours that are as near as the true k-th (Aumüller et al. 2020, ANN-Benchmarks).

    Equally near training queries are equally right, whichever of them the exact search would list.

    Args:
        search: What was asked.
        similarity: Of the training queries that were found, distinct for each query. [n, k]
    """
    queries = search.queries
    # A matrix of its own: the search would otherwise visit the blocks of the whole benchmark for a few rows of each.
    own = replace(queries, matrix=queries.X, embedding_rows=np.arange(queries.n))
    right = sum(
        np.count_nonzero(similarity[found.rows] >= found.similarity[:, -1:] - NOISE)
        for found in nearest([replace(search, queries=own)])
    )
    return right / similarity.size
