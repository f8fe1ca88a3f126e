"""What does a router see of a split? Its sides, their blind copy, and the folds that tuning uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import OUTCOME_EXTRAS, Benchmark, Floats
from workers.routers.base import Positions, Side
from workers.units import ProtocolOptions

#: Folds of the cross-validation that stands in for a small validation side.
FOLDS = 5
#: Validation queries below which tuning cross-validates (protocol 4, Fair tuning).
ENOUGH_VALIDATION = 200


def cost_ratios(benchmark: Benchmark, options: ProtocolOptions) -> Floats:
    """Observed costs in units of cost 1, NaN = not observed; all 0 when nothing costs anything. [n, M]."""
    dearest_mean = options.cost_normalizer == "dearest_mean"
    unit = benchmark.c_ref if dearest_mean else float(np.nanmax(benchmark.C[benchmark.evaluated]))
    return benchmark.C / unit if unit > 0 else benchmark.C * 0.0


def whole(benchmark: Benchmark, costs: Floats, embedding: npt.NDArray[np.float32] | None) -> Side:
    """All queries of a benchmark as one side."""
    rows = np.arange(benchmark.n_queries)
    return Side(
        rows=rows,
        matrix=embedding,
        embedding_rows=rows,
        tasks=benchmark.tasks,
        groups=benchmark.group_numbers,
        models=benchmark.models,
        scores=benchmark.S,
        costs=costs,
        texts=benchmark.texts if any(benchmark.texts) else None,
        extras=benchmark.extras,
    )


def subset(side: Side, positions: Positions) -> Side:
    """The queries at the given positions of a side."""
    scores, costs = side.outcomes
    return replace(
        side,
        rows=side.rows[positions],
        embedding_rows=side.embedding_rows[positions],
        tasks=tuple(map(side.tasks.__getitem__, positions.tolist())),
        groups=side.groups[positions],
        scores=scores[positions],
        costs=costs[positions],
        texts=None if side.texts is None else tuple(map(side.texts.__getitem__, positions.tolist())),
        extras={name: values[positions] for name, values in side.extras.items()},
    )


def hidden(side: Side) -> Side:
    """A side without its outcomes: what a router is asked to route."""
    shown = {name: values for name, values in side.extras.items() if name not in OUTCOME_EXTRAS}
    return replace(side, scores=None, costs=None, extras=shown)


def blinded(train: Side, rng: np.random.Generator) -> Side:
    """A training side whose embeddings are permuted over its prompts: what a blind twin trains on.

    Distinct embeddings are permuted, so that queries with equal ones still have equal ones.
    """
    X = np.ascontiguousarray(train.X)
    _, first, number = np.unique(X.view(f"V{X.shape[1] * X.itemsize}").ravel(), return_index=True, return_inverse=True)
    # Number the distinct rows by first occurrence: the canonical order, not that of their bytes.
    order = np.argsort(first)
    number = np.argsort(order)[number]
    moved = first[order][rng.permutation(len(first))]
    return replace(train, embedding_rows=train.embedding_rows[moved[number]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What a router trains on and what it is judged by."""

    train: Side
    #: Complete rows with outcomes. [n]
    held: Side
    #: `held` without outcomes, unless the router may see them.
    queries: Side


def tuning_trials(
    everything: Side,
    train: Side,
    validation: Side,
    rng: np.random.Generator,
    encoded: Callable[[Positions, int], Side] | None = None,
) -> tuple[Trial, ...]:
    """The validation side, or, below 200 queries, five group folds over training and validation.

    Args:
        everything: Side of the whole benchmark, whose positions are queries.
        train: Training side, whole rows or not.
        validation: Validation side, complete rows.
        rng: The same stream for all routers, so that all meet the same folds.
        encoded: `everything` under an encoder that was fitted on these queries alone, for the fold of this number;
            None where rows do not depend on the split.
    """
    if validation.n >= ENOUGH_VALIDATION:
        return (Trial(train=train, held=validation, queries=hidden(validation)),)
    rows = np.sort(np.concatenate([train.rows, validation.rows]))
    names, group = np.unique(everything.groups[rows], return_inverse=True)
    fold = (rng.permutation(len(names)) % FOLDS)[group]
    complete = ~np.isnan(everything.outcomes[0][rows]).any(axis=1)
    trials = []
    for i in range(FOLDS):
        judged, fitted = rows[(fold == i) & complete], rows[fold != i]
        if len(judged) and len(fitted):
            seen = encoded(fitted, i) if encoded else everything
            held = subset(seen, judged)
            trials.append(Trial(train=subset(seen, fitted), held=held, queries=hidden(held)))
    return tuple(trials)
