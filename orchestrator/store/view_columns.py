"""What do the columns of the views hold? Kinds and meanings, in the order in which `views` selects them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "integer", "double", "boolean", "timestamp"]


@dataclass(frozen=True, kw_only=True)
class ViewColumn:
    """One column of a view."""

    kind: Kind
    #: What it holds, with its unit.
    doc: str


@dataclass(frozen=True, kw_only=True)
class View:
    """What a view shows."""

    #: What one row is.
    row: str
    columns: Mapping[str, ViewColumn]


def _text(doc: str) -> ViewColumn:
    return ViewColumn(kind="text", doc=doc)


def _integer(doc: str) -> ViewColumn:
    return ViewColumn(kind="integer", doc=doc)


def _double(doc: str) -> ViewColumn:
    return ViewColumn(kind="double", doc=doc)


def _boolean(doc: str) -> ViewColumn:
    return ViewColumn(kind="boolean", doc=doc)


SWEEP = _text("Name of the sweep, which the display names belong to.")
UNIT_KEY = _text("Content key of the unit; the same in every sweep that wants it.")
BENCHMARK = _text("Display name of the benchmark.")
TASK = _text("Task that the benchmark was cut down to; NULL for all together.")
SUITE = _text("Suite of the benchmark: those of one suite share prompts, so are not independent.")
ENCODER = _text("Display name of the encoder; NULL for a router that reads no embedding.")
ROUTER = _text("Display name of the router.")
PARAMS = _text("JSON: fixed parameters, defaults resolved.")
FORMULATION = _text("`utility` (predicts scores and costs) or `selection` (names a model).")
SEED = _integer("Split index.")
TRAIN_SIZE = _double("Fraction of the training side, 0 to 1.")
CONFIG = _text("Digest of the unit's specification without the split: what a leaderboard row averages over.")
SCORE = _double("Observed score of the chosen model on this query, 0 to 1.")

VIEWS: Mapping[str, View] = {
    "leaderboard": View(
        row="sweep × unit configuration; one without an encoder is repeated for every encoder",
        columns={
            "sweep": SWEEP,
            "benchmark": BENCHMARK,
            "task": TASK,
            "encoder": _text("Display name of the encoder; NULL only where the benchmark has none at all."),
            "router": ROUTER,
            "formulation": FORMULATION,
            "train_size": TRAIN_SIZE,
            "n_seeds": _integer("Splits that are done."),
            "auc_mean": _double("Mean of `auc` over splits, 0 to 100."),
            "auc_sd": _double("Its standard deviation (ddof 1); NULL for one split."),
            "auc_path_mean": _double("Mean of `auc_path` over splits, at most 100."),
            "auc_path_sd": _double("Its standard deviation (ddof 1); NULL for one split."),
            "auc_rel_mean": _double("Mean of `auc_rel` over the splits that have one: 0 zero-router, 1 oracle."),
            "utility_mean": _double("Mean of `utility_mean` over splits, at most 100."),
            "config": CONFIG,
            "params": PARAMS,
            "sweep_position": _integer("Place of the configuration in the sweep's plan, to sort by."),
        },
    ),
    "results": View(
        row="finished evaluate unit of a sweep",
        columns={
            "sweep": SWEEP,
            "unit_key": UNIT_KEY,
            "benchmark": BENCHMARK,
            "task": TASK,
            "suite": SUITE,
            "encoder": ENCODER,
            "router": ROUTER,
            "params": PARAMS,
            "chosen": _text("JSON: tuned parameters; NULL for a router that is not tuned."),
            "seed": SEED,
            "train_size": TRAIN_SIZE,
            "n_train": _integer("Queries on the training side, incomplete ones too."),
            "n_validation": _integer("Complete queries on the validation side."),
            "n_test": _integer("Complete queries on the test side."),
            "n_dropped": _integer("Incomplete queries of validation and test side, left out."),
            "formulation": FORMULATION,
            "auc": _double("Area under the hull of the cost–quality points, cost 0 to 1, times 100."),
            "auc_path": _double("Area under the path itself, without a hull, times 100; the stricter one."),
            "auc_rel": _double("(`auc_path` − zero-router's) / (oracle's − zero-router's)."),
            "aiq": _double("RouterBench's average improvement in quality, 0 to 1."),
            "peak_score": _double("Largest mean score of any point, 0 to 1; chosen on test outcomes."),
            "qnc": _double(
                "Least cost, in units of cost 1, at which the hull is within 0.01 of the best single model's score; "
                "NULL if never."
            ),
            "gain_at_best_cost": _double("Score points (0 to 100) above the best single model at its cost."),
            "oracle_gap_closed": _double("As `auc_rel`, of `auc`."),
            "utility_low_cost": _double("100 × mean of score − 1 · cost / cost 1 of the chosen models."),
            "utility_balanced": _double("The same at price of cost 0.5."),
            "utility_high_performance": _double("The same at price of cost 0.1."),
            "utility_mean": _double("Mean of the three."),
            "fit_seconds": _double("Seconds that fitting took, on one thread; an observation."),
            "route_us_per_query": _double("Microseconds per test query that routing took; an observation."),
            "router_bytes": _double("Bytes that the fitted router keeps to route."),
            "tuning_seconds": _double("Seconds that tuning took, NULL without; an observation."),
            "privileged": _boolean("Whether the router sees test outcomes: a reference, never ranked."),
            "query_blind": _boolean("Whether the router treats all queries alike."),
            "twin_of": _text("Display name of the router whose blind twin it is; NULL for others."),
            "config": CONFIG,
            "sweep_position": _integer("Place of the unit in the sweep's plan, to sort by."),
            "finished_at": ViewColumn(
                kind="timestamp", doc="When the result was committed, UTC (SQLite: text, to the millisecond)."
            ),
            "trained_on": _text("Task of the training side, in a study of shift."),
        },
    ),
    "decisions": View(
        row="unit × preference × test query; none of routers without decisions (`random`)",
        columns={
            "sweep": SWEEP,
            "unit_key": UNIT_KEY,
            "benchmark": BENCHMARK,
            "encoder": ENCODER,
            "router": ROUTER,
            "formulation": FORMULATION,
            "seed": SEED,
            "train_size": TRAIN_SIZE,
            "preference": _text("`low-cost` (price of cost 1), `balanced` (0.5) or `high-performance` (0.1)."),
            "query_key": _text("`query.key`, `query_id` of the data."),
            "model": _text("`model.name` of the chosen model."),
            "score": SCORE,
            "cost": _double("Observed cost of the chosen model on this query in USD."),
        },
    ),
    "frontier": View(
        row="stored operating point of a unit: hull vertices and at most 64 others",
        columns={
            "sweep": SWEEP,
            "unit_key": UNIT_KEY,
            "benchmark": BENCHMARK,
            "encoder": ENCODER,
            "router": ROUTER,
            "formulation": FORMULATION,
            "seed": SEED,
            "train_size": TRAIN_SIZE,
            "position": _integer("Place along the path, by ascending price of cost."),
            "cost": _double("Mean cost of a test query in units of cost 1 (`benchmark.c_ref` USD by default)."),
            "score": _double("Mean score of a test query, 0 to 1."),
            "price_of_cost": _double("Least λ at which it holds; NULL for a router without one."),
            "on_hull": _boolean("Whether it is a vertex of the hull of `auc`."),
        },
    ),
    "findings": View(
        row="number that a measure of a study found",
        columns={
            "sweep": SWEEP,
            "unit_key": UNIT_KEY,
            "measure": _text("Registered name of the measure."),
            "benchmark": BENCHMARK,
            "task": TASK,
            "suite": SUITE,
            "encoder": ENCODER,
            "router": _text("Display name of the router; NULL where a measure is of the embedding."),
            "params": PARAMS,
            "seed": SEED,
            "position": _integer("Place among the unit's findings."),
            "quantity": _text("What was measured."),
            "label": _text("What it is of, where a quantity has several; else ''."),
            "x": _double("Where on a curve; NULL for a single number."),
            "value": _double("What was found; NULL where undefined."),
            "low": _double("Lower end of a band about it, such as that of its null."),
            "high": _double("Upper end of that band."),
        },
    ),
    "progress": View(
        row="sweep × kind × state",
        columns={
            "sweep": SWEEP,
            "kind": _text("`embed`, `evaluate` or `measure`."),
            "state": _text("`ready`, `running`, `done`, `failed`, `quarantined`, `skipped` or `invalidated`."),
            "n": _integer("Units."),
        },
    ),
    "failures": View(
        row="failed or quarantined unit of a sweep",
        columns={
            "sweep": SWEEP,
            "unit_key": UNIT_KEY,
            "kind": _text("`embed`, `evaluate` or `measure`."),
            "benchmark": BENCHMARK,
            "encoder": ENCODER,
            "router": ROUTER,
            "seed": SEED,
            "state": _text("`failed` or `quarantined`."),
            "error_kind": _text(
                "Of the last failed attempt: `user_error`, `exception`, `out_of_memory`, `artifact`, `worker_death` or "
                "`timeout`."
            ),
            "message": _text("What its error said."),
            "attempts": _integer("Attempts in all."),
            "last_host": _text("Host of the last failed attempt."),
        },
    ),
}
