"""Which model does each query choose as the price of cost rises? Its lines' upper envelope, many queries at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Prediction

#: Predicted scores (and costs) that are walked at once: what a core's cache holds a few times.
CELLS = 40_000
#: Queries that have arrived are sorted out when fewer than this share still go on.
MOST = 0.8


class Changes(NamedTuple):
    """Changes of choice: of every query the first one, then of those that go on the second, and so on."""

    #: The query. [E]
    queries: Positions
    #: The price of cost from which on it chooses anew; a query's never fall. [E]
    prices: Floats
    #: Model chosen before. [E]
    before: Positions
    #: Model chosen from there on. [E]
    after: Positions


def envelopes(predictions: Sequence[Prediction]) -> list[tuple[Positions, Changes]]:
    """Of each prediction the models chosen at price 0, [n], and all changes from there on.

    From the model chosen at one price the next is the cheaper one whose line is met first; of several, the cheapest,
    then the earlier one. What is found of a prediction does not depend on the others.

    Args:
        predictions: Finite, of equal shape. [n, M] each
    """
    n, n_models = predictions[0].scores.shape
    width = max(1, CELLS // n_models)
    together = max(1, width // n)
    memory = _Memory(2 * n_models * min(width, together * n))
    found = []
    for start in range(0, len(predictions), together):
        group = predictions[start : start + together]
        parts = []
        for left in range(0, n, width):
            part, rows = slice(left, left + width), np.arange(left, min(left + width, n))
            lines = memory.lines[0].shaped(2, n_models, len(group), len(rows))
            for number, each in enumerate(group):
                lines[0, :, number], lines[1, :, number] = each.scores[part].T, each.costs[part].T
            queries = (np.arange(len(group))[:, None] * n + rows).ravel()
            parts.append(_rise(lines.reshape(2, n_models, -1), queries, memory))
        found += _separate(parts, len(group), n)
    return found


class _Buffer:
    """Memory that is used again: new memory costs as much as the arithmetic done in it."""

    def __init__(self, size: int, dtype: npt.DTypeLike) -> None:
        self.array = np.empty(size, dtype=dtype)

    def shaped(self, *shape: int) -> npt.NDArray[Any]:
        """Its start as an array of this shape."""
        return self.array[: math.prod(shape)].reshape(shape)


class _Memory:
    """Buffers of a walk over at most so many lines, scores and costs counted."""

    def __init__(self, size: int) -> None:
        #: Those of a step, and those of the next.
        self.lines = [_Buffer(size, np.float64), _Buffer(size, np.float64)]
        self.gaps, self.marks = _Buffer(size, np.float64), _Buffer(size // 2, np.bool_)


def _rise(lines: Floats, queries: Positions, memory: _Memory) -> tuple[Positions, list[Changes]]:
    """First choices, and the changes step by step.

    Args:
        lines: Predicted scores and costs, in the memory's first buffer. [2, M, a]
        queries: Their numbers. [a]
        memory: Buffers of at least this size.
    """
    marks = memory.marks.shaped(*lines.shape[1:])
    current = first = _cheapest(np.equal(lines[0], lines[0].max(axis=0), out=marks), lines[1], len(queries))
    price, free = np.zeros(len(queries)), memory.lines[1]
    steps: list[Changes] = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        while True:
            now = lines.reshape(2, -1).take(current * len(queries) + np.arange(len(queries)), axis=1)
            lost, saved = np.subtract(now[:, None], lines, out=memory.gaps.shaped(*lines.shape))
            # Infinite where nothing is saved, or 0 / 0: to set it under a mask would take longer than all else here.
            met = np.divide(lost, np.maximum(saved, 0.0, out=saved), out=lost)
            nearest = np.fmin.reduce(np.abs(met, out=met), axis=0)
            going = np.isfinite(nearest)
            n_going = int(np.count_nonzero(going))
            if not n_going:
                return first, steps
            marks = memory.marks.shaped(*met.shape)
            first_met = np.equal(met, np.where(going, nearest, np.nan), out=marks)
            following = np.where(going, _cheapest(first_met, lines[1], n_going), current)
            price = np.maximum(price, nearest)  # lines through one point: rounding must not turn the walk back
            steps.append(Changes(queries[going], price[going], current[going], following[going]))
            current = following
            if n_going < MOST * len(queries):  # else those that have arrived are carried on
                some = np.flatnonzero(going)
                lines = np.take(lines, some, axis=2, out=free.shaped(*lines.shape[:2], len(some)), mode="clip")
                free = memory.lines[free is memory.lines[0]]
                queries, price, current = queries[some], price[some], current[some]


def _cheapest(among: npt.NDArray[np.bool_], costs: Floats, n_asked: int) -> Positions:
    """The model of least cost of those that are marked; ties to the earlier. [a].

    Args:
        among: One or more of each query that is asked for, none of the others. [M, a]
        costs: [M, a]
        n_asked: Queries that are asked for.
    """
    n = among.shape[1]
    marked = np.flatnonzero(among)
    models = marked // n
    queries = marked - n * models
    found = np.zeros(n, dtype=np.int64)
    found[queries] = models
    if len(marked) > n_asked:
        several = np.flatnonzero(np.bincount(queries, minlength=n) > 1)
        found[several] = np.where(among[:, several], costs[:, several], np.inf).argmin(axis=0)
    return found


def _separate(
    parts: Sequence[tuple[Positions, list[Changes]]], n_predictions: int, n: int
) -> list[tuple[Positions, Changes]]:
    """What was found of each prediction, from that of parts of the queries of all."""
    empty = np.zeros(0, dtype=np.int64)
    steps = [Changes(empty, np.zeros(0), empty, empty)]
    for step in zip_longest(*(changes for _, changes in parts)):
        steps += [changes for changes in step if changes is not None]
    changes = Changes(*map(np.concatenate, zip(*steps, strict=True)))
    if n_predictions == 1:
        return [(np.concatenate([first for first, _ in parts]), changes)]
    firsts = np.concatenate([first.reshape(n_predictions, -1) for first, _ in parts], axis=1)
    owner = changes.queries // n
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(n_predictions + 1))
    found = []
    for number in range(n_predictions):
        some = order[bounds[number] : bounds[number + 1]]
        own = Changes(
            changes.queries[some] - number * n, changes.prices[some], changes.before[some], changes.after[some]
        )
        found.append((firsts[number], own))
    return found
