"""Which model does each query choose as the price of cost rises? Its lines' upper envelope, many queries at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

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
    found = []
    for start in range(0, len(predictions), together):
        group = predictions[start : start + together]
        scores, costs = ([getattr(each, name).T for each in group] for name in ("scores", "costs"))
        parts = []
        for left in range(0, n, width):
            part = slice(left, left + width)
            lines = np.stack([np.concatenate([of[:, part] for of in both], axis=1) for both in (scores, costs)])
            parts.append(_rise(lines, _numbers(len(group), n, left, lines.shape[2])))
        found += _separate(parts, len(group), n)
    return found


def _numbers(n_predictions: int, n: int, left: int, width: int) -> Positions:
    """Numbers of the queries of a part, those of one prediction after those of another."""
    rows = np.arange(left, left + width // n_predictions)
    return (np.arange(n_predictions)[:, None] * n + rows).ravel()


def _rise(lines: Floats, queries: Positions) -> tuple[Positions, list[Changes]]:
    """First choices, and the changes step by step.

    Args:
        lines: Predicted scores and costs. [2, M, a]
        queries: Their numbers. [a]
    """
    current = first = _cheapest(lines[0] == lines[0].max(axis=0), lines[1])
    now, price = lines[:, current, np.arange(len(queries))], np.zeros(len(queries))
    gaps, mask = np.empty_like(lines), np.empty(lines.shape[1:], dtype=np.bool_)
    steps: list[Changes] = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        while len(queries):
            shape = lines.shape[1:]
            lost, saved = np.subtract(now[:, None], lines, out=_start(gaps, lines.shape))
            met, flags = np.divide(lost, saved, out=lost), _start(mask, shape)
            np.copyto(met, np.inf, where=np.less_equal(saved, 0.0, out=flags))
            nearest = met.min(axis=0)
            going = np.flatnonzero(np.isfinite(nearest))
            nearest = nearest[going]
            if len(going) < len(queries):
                lines, met = lines.take(going, axis=2), met.take(going, axis=1)
            following = _cheapest(np.equal(met, nearest, out=_start(mask, met.shape)), lines[1])
            # Lines through one point: rounding must not turn the walk back.
            queries, price = queries[going], np.maximum(price[going], nearest)
            steps.append(Changes(queries, price, current[going], following))
            current, now = following, lines[:, following, np.arange(len(going))]
    return first, steps


def _start(buffer: npt.NDArray[np.generic], shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """The start of a buffer in a smaller shape: memory that is used again costs nothing to get."""
    return buffer.reshape(-1)[: int(np.prod(shape))].reshape(shape)


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
