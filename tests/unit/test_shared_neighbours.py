"""What many splits, k and weightings share gives the bits that each would have found for itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.routers import shortlists
from workers.routers.neighbours import Search, nearest
from workers.routers.shortlists import first_columns, largest
from workers.routers.sums import Summed, running_sums, weighted_sums

RNG = np.random.default_rng(0)


def sides(make_side, *, n=700, dim=24, distinct=None):
    """A benchmark of unit rows, some of them equal, and its splits into two thirds and the rest."""
    X = RNG.normal(size=(n, dim))[RNG.integers(0, distinct, n) if distinct else np.arange(n)]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    everything = make_side(X, RNG.random((n, 3)), RNG.random((n, 3)))
    everything.matrix.flags.writeable = False
    found = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(n)
        train, held = np.sort(order[: 2 * n // 3]), np.sort(order[2 * n // 3 :])
        found.append([replace(everything, rows=rows, embedding_rows=rows) for rows in (train, held)])
    return found


def answers(searches):
    index = [np.full((search.queries.n, search.k), -1) for search in searches]
    for part in nearest(searches):
        index[part.search][part.rows] = part.index
    return index


def searched(search):
    """The k nearest by a product of whole blocks and a stable sort."""
    matrix = search.train.matrix
    alone = np.zeros((search.queries.n, search.train.n), dtype=np.float32)
    for start in range(0, len(matrix), shortlists.BLOCK):
        part = matrix[start : start + shortlists.BLOCK]
        block = np.zeros((shortlists.BLOCK, matrix.shape[1]), dtype=np.float32)
        block[: len(part)] = part
        inside = np.flatnonzero((search.queries.rows >= start) & (search.queries.rows < start + len(part)))
        alone[inside] = (block @ matrix.T)[np.ix_(search.queries.rows[inside] - start, search.train.rows)]
    return np.argsort(-alone, axis=1, kind="stable")[:, : search.k]


@pytest.mark.parametrize("distinct", [None, 9])  # of equal rows a shortlist holds too few training queries
@pytest.mark.parametrize("k", [1, 20, 90])
def test_a_shortlist_of_all_splits_gives_what_a_full_search_gives(make_side, k, distinct):
    searches = [
        Search(similarity="cosine", train=train, queries=held, k=k)
        for train, held in sides(make_side, distinct=distinct)
    ]
    for search, found in zip(searches, answers(searches), strict=True):
        assert (found == searched(search)).all()


def test_a_shortlist_without_any_training_query_gives_what_a_full_search_gives(make_side):
    """Trained on one task, asked about another: every query's most similar ones are of its own task."""
    X = RNG.normal(size=(700, 24)) + np.where(np.arange(700) < 350, 9.0, -9.0)[:, None]
    everything = make_side(X / np.linalg.norm(X, axis=1, keepdims=True), RNG.random((700, 3)), RNG.random((700, 3)))
    train, held = (
        replace(everything, rows=rows, embedding_rows=rows) for rows in (np.arange(350), np.arange(350, 700))
    )
    search = Search(similarity="cosine", train=train, queries=held, k=3)
    assert (answers([search])[0] == searched(search)).all()


def test_shortlists_are_kept_for_matrices_that_nobody_writes_to_and_go_with_them(make_side):
    before = len(shortlists._KEPT)
    (train, held), *_ = sides(make_side)
    search = Search(similarity="cosine", train=train, queries=held, k=5)
    first = answers([search])[0]
    assert len(shortlists._KEPT) == before + 1
    assert (answers([search])[0] == first).all()
    written = replace(train, matrix=np.array(train.matrix))
    answers([replace(search, train=written, queries=replace(held, matrix=written.matrix))])
    assert len(shortlists._KEPT) == before + 1
    del train, held, search, written, _
    assert len(shortlists._KEPT) == before


@pytest.mark.parametrize(("apart", "found"), [(3, [256]), (9, [29, 29])])  # every ninth row is less than a quarter
def test_what_a_quarter_of_a_block_asks_for_is_found_for_all_of_it(make_side, monkeypatch, apart, found):
    X = RNG.normal(size=(shortlists.BLOCK, 24))
    everything = make_side(X / np.linalg.norm(X, axis=1, keepdims=True), RNG.random((256, 3)), RNG.random((256, 3)))
    everything.matrix.flags.writeable = False
    sizes = []

    def counted(similarities, reach):
        sizes.append(len(similarities))
        return first_columns(similarities, reach)

    monkeypatch.setattr(shortlists, "first_columns", counted)
    train, validation, test = (
        replace(everything, rows=rows, embedding_rows=rows)
        for rows in (np.flatnonzero(np.arange(256) % apart > 1), *(np.arange(i, 256, apart) for i in (0, 1)))
    )
    for side in (validation, test):
        search = Search(similarity="cosine", train=train, queries=side, k=5)
        assert (answers([search])[0] == searched(search)).all()
    assert sizes == found


def test_the_edge_of_a_shortlist_falls_between_equal_similarities():
    similarities = RNG.integers(0, 6, (40, 60)).astype(np.float32)
    found = first_columns(similarities, 25)
    assert (found.columns == largest(similarities, 25)).all()
    assert (found.similarity == np.take_along_axis(similarities, found.columns, axis=1)).all()


def test_sums_that_go_on_have_the_bits_of_sums_from_the_beginning():
    b, n, ends = 30, 900, [1, 2, 7, 40, 100]
    index = np.argsort(RNG.random((b, n)), axis=1)[:, : ends[-1]].astype(np.int32)
    weights, table = [RNG.random((b, k)) for k in (100, 7, 40)], RNG.random((n, 11))
    seen = {0: [], 1: [], 2: []}
    for end, sums in zip(ends, running_sums(index, weights, Summed(table), ends), strict=True):
        for number, found in sums.items():
            expected = weighted_sums(index[:, :end].astype(np.int64), weights[number][:, :end], table)
            assert found.tobytes() == expected.tobytes()
            seen[number].append(end)
    assert seen == {0: ends, 1: [1, 2, 7], 2: [1, 2, 7, 40]}
