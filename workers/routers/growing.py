"""What is a router's table after more labelled queries, or one more model? Training sides that grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from workers.errors import RouterError
from workers.routers.base import Positions, Side
from workers.sides import subset


def appended(side: Side, more: Side) -> Side:
    """A training side and further labelled queries of the same models, without texts and extras.

    Sides of one embedding matrix come in the benchmark's order, as if both had been there from the start; else the
    further queries come after the others.

    Raises:
        RouterError: The models differ.
    """
    if [model.name for model in side.models] != [model.name for model in more.models]:
        raise RouterError("the further queries were not labelled with the models that the router knows.")
    rows = np.concatenate([side.rows, more.rows])
    if side.matrix is more.matrix:
        order = np.argsort(rows, kind="stable")
        matrix, embedding_rows = side.matrix, np.concatenate([side.embedding_rows, more.embedding_rows])
    else:
        order = embedding_rows = np.arange(len(rows))
        matrix = np.concatenate([side.X, more.X])
        matrix.flags.writeable = False
    scores, costs = (np.concatenate(pair)[order] for pair in zip(side.outcomes, more.outcomes, strict=True))
    tasks = (*side.tasks, *more.tasks)
    return replace(
        side,
        rows=rows[order],
        matrix=matrix,
        embedding_rows=embedding_rows[order],
        tasks=tuple(tasks[i] for i in order),
        groups=np.concatenate([side.groups, more.groups])[order],
        scores=scores,
        costs=costs,
        texts=None,
        extras={},
    )


def with_model(side: Side, labelled: Side) -> Side:
    """A training side with one more model, observed on the labelled queries alone; without texts and extras.

    Labelled queries that the side has already (of the same matrix and row) get the new model's outcome; the others
    are appended, with what the old models did there.

    Raises:
        RouterError: See `new_column`.
    """
    column = new_column([model.name for model in side.models], labelled)
    scores, costs = (np.insert(values, column, np.nan, axis=1) for values in side.outcomes)
    at = _places(side, labelled)
    known = at >= 0
    for values, given in zip((scores, costs), labelled.outcomes, strict=True):
        values[at[known], column] = given[known, column]
    wider = replace(side, models=labelled.models, scores=scores, costs=costs, texts=None, extras={})
    return wider if known.all() else appended(wider, subset(labelled, np.flatnonzero(~known)))


def new_column(old: Sequence[str], labelled: Side) -> int:
    """Position of the one model of a side that is not among the old ones.

    Raises:
        RouterError: The side's models are not the old ones and one more, in the same order.
    """
    names = [model.name for model in labelled.models]
    new = [column for column, name in enumerate(names) if name not in old]
    if len(new) != 1 or names[: new[0]] + names[new[0] + 1 :] != list(old):
        raise RouterError(f"to take one model in, label with the router's {len(old)} models and the new one.")
    return new[0]


def _places(side: Side, labelled: Side) -> Positions:
    """Where a side has each labelled query, -1 where it lacks it. [n_labelled]."""
    if side.matrix is not labelled.matrix:
        return np.full(labelled.n, -1)
    place = {int(row): i for i, row in enumerate(side.rows)}
    found: npt.NDArray[np.int64] = np.array([place.get(int(row), -1) for row in labelled.rows], dtype=np.int64)
    return found
