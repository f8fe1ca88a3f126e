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
    """Buffers of a walk."""

    def __init__(self, size: int) -> None:
        #: Those of a step, and those of the next.
        self.lines = [_Buffer(size, np.float64), _Buffer(size, np.float64)]
        self.gaps, self.mask = _Buffer(size, np.float64), _Buffer(size // 2, np.bool_)


def _rise(lines: Floats, queries: Positions, memory: _Memory) -> tuple[Positions, list[Changes]]:
    """First choices, and the changes step by step.

    Args:
        lines: Predicted scores and costs, in the memory's first buffer. [2, M, a]
        queries: Their numbers. [a]
        memory: Buffers of at least this size.
    """
    current = first = _cheapest(lines[0] == lines[0].max(axis=0), lines[1])
    now, price = lines[:, current, np.arange(len(queries))], np.zeros(len(queries))
    free = memory.lines[1]
    steps: list[Changes] = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        while len(queries):
            lost, saved = np.subtract(now[:, None], lines, out=memory.gaps.shaped(*lines.shape))
            met, flags = np.divide(lost, saved, out=lost), memory.mask.shaped(*lost.shape)
            np.copyto(met, np.inf, where=np.less_equal(saved, 0.0, out=flags))
            nearest = met.min(axis=0)
            going = np.flatnonzero(np.isfinite(nearest))
            nearest = nearest[going]
            if len(going) < len(queries):
                met = met.take(going, axis=1)
                lines = np.take(lines, going, axis=2, out=free.shaped(*lines.shape[:2], len(going)), mode="clip")
                free = memory.lines[free is memory.lines[0]]
            following = _cheapest(np.equal(met, nearest, out=memory.mask.shaped(*met.shape)), lines[1])
            # Lines through one point: rounding must not turn the walk back.
            queries, price = queries[going], np.maximum(price[going], nearest)
            steps.append(Changes(queries, price, current[going], following))
            current, now = following, lines[:, following, np.arange(len(going))]
    return first, steps


def _cheapest(among: npt.NDArray[np.bool_], costs: Floats) -> Positions:
    """The model of least cost of those that are marked, at least one a query; ties to the earlier. Both [M, a]."""
    if np.count_nonzero(among) == among.shape[1]:
        return among.argmax(axis=0)
    return np.where(among, costs, np.inf).argmin(axis=0)


def _separate(
    parts: Sequence[tuple[Positions, list[Changes]]], n_predictions: int, n: int
) -> list[tuple[Positions, Changes]]:
    """What was found of each prediction, from that of parts of the queries of all."""
    firsts = np.concatenate([first.reshape(n_predictions, -1) for first, _ in parts], axis=1)
    empty = np.zeros(0, dtype=np.int64)
    steps = [Changes(empty, np.zeros(0), empty, empty)]
    for step in zip_longest(*(changes for _, changes in parts)):
        steps += [changes for changes in step if changes is not None]
    changes = Changes(*map(np.concatenate, zip(*steps, strict=True)))
    owner = changes.queries // n
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(n_predictions + 1))
    found = []
    for number in range(n_predictions):
        some = order[bounds[number] : bounds[number + 1]]
        queries, prices, before, after = (values[some] for values in changes)
        found.append((firsts[number], Changes(queries - number * n, prices, before, after)))
    return found
