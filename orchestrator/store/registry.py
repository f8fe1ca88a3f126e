"""How do benchmarks, encoders and sweeps get into the database? Their units: `orchestrator.store.plans`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from orchestrator.keys import canonical_json, digest
from orchestrator.store import tables as t
from orchestrator.store.store import Session
from workers.benchmarks.base import Benchmark
from workers.splits import split_benchmark

log = logging.getLogger("roadtest.store")

T = TypeVar("T")
#: Rows per statement: SQLite binds at most 32 766 values.
CHUNK = 5_000
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Cut an iterable into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def model_code(position: int) -> str:
    """Two base-36 digits of a model's position."""
    if not 0 <= position < 36 * 36:
        raise ValueError(f"model position {position} outside 0..1295")
    return DIGITS[position // 36] + DIGITS[position % 36]


def put_benchmark(session: Session, benchmark: Benchmark) -> int:
    """Store a benchmark with its queries, models and outcomes, once per content; return its id."""
    session.insert(
        t.benchmark,
        [
            {
                "name": benchmark.name,
                "fingerprint": benchmark.fingerprint,
                "suite": benchmark.suite,
                "embedded": benchmark.embedded,
                "c_ref": benchmark.c_ref,
                "n_queries": benchmark.n_queries,
                "n_models": benchmark.n_models,
                "groups_digest": benchmark.groups_digest,
                "meta": json.dumps(dict(benchmark.meta), sort_keys=True, default=str),
                "created_at": session.time(),
                "trained_on": benchmark.shift.trained_on if benchmark.shift else None,
            }
        ],
        ignore_conflicts=True,
    )
    found = session.rows("SELECT id FROM benchmark WHERE fingerprint = :f", f=benchmark.fingerprint)
    benchmark_id = int(found[0]["id"])
    if session.one("SELECT count(*) FROM model WHERE benchmark_id = :b", b=benchmark_id):
        return benchmark_id
    session.insert(
        t.model,
        [
            {
                "benchmark_id": benchmark_id,
                "position": i,
                "code": model_code(i),
                "name": model.name,
                "family": model.family,
                "price_in": model.price_in,
                "price_out": model.price_out,
            }
            for i, model in enumerate(benchmark.models)
        ],
    )
    queries = (
        {"benchmark_id": benchmark_id, "position": i, "key": key, "task": task, "group_key": group}
        for i, (key, task, group) in enumerate(zip(benchmark.queries, benchmark.tasks, benchmark.groups, strict=True))
    )
    for batch in chunks(queries):
        session.insert(t.query, batch)
    query_ids = query_positions(session, benchmark_id)
    model_ids = [
        row["id"]
        for row in session.rows("SELECT id FROM model WHERE benchmark_id = :b ORDER BY position", b=benchmark_id)
    ]
    rows, columns = np.nonzero(~np.isnan(benchmark.S))
    outcomes = (
        {"query_id": query_ids[i], "model_id": model_ids[j], "score": score, "cost": cost}
        for i, j, score, cost in zip(
            rows.tolist(),
            columns.tolist(),
            benchmark.S[rows, columns].tolist(),
            benchmark.C[rows, columns].tolist(),
            strict=True,
        )
    )
    for batch in chunks(outcomes, 50_000):
        session.insert(t.outcome, batch)
    return benchmark_id


def query_positions(session: Session, benchmark_id: int) -> list[int]:
    """Ids of a benchmark's queries by position."""
    return [
        row["id"]
        for row in session.rows("SELECT id FROM query WHERE benchmark_id = :b ORDER BY position", b=benchmark_id)
    ]


def put_splits(session: Session, benchmark_id: int, benchmark: Benchmark, root_seed: int, seeds: int) -> dict[int, int]:
    """Store the test sides of the split indices 0 .. seeds - 1; return split ids by index."""
    sql = "SELECT seed, id FROM split WHERE benchmark_id = :b AND root_seed = :r"
    there = {row["seed"]: row["id"] for row in session.rows(sql, b=benchmark_id, r=root_seed)}
    missing = [seed for seed in range(seeds) if seed not in there]
    if not missing:
        return there
    splits = {seed: split_benchmark(benchmark, seed, root_seed=root_seed) for seed in missing}
    session.insert(
        t.split,
        [
            {"benchmark_id": benchmark_id, "root_seed": root_seed, "seed": seed, "n_dropped": split.n_dropped}
            for seed, split in splits.items()
        ],
        ignore_conflicts=True,
    )
    there = {row["seed"]: row["id"] for row in session.rows(sql, b=benchmark_id, r=root_seed)}
    query_ids = query_positions(session, benchmark_id)
    tests = (
        {"split_id": there[seed], "position": i, "query_id": query_ids[position]}
        for seed, split in splits.items()
        for i, position in enumerate(split.test.tolist())
    )
    for batch in chunks(tests, 50_000):
        session.insert(t.test_query, batch, ignore_conflicts=True)
    return there


def put_encoder(session: Session, name: str, recipe: Mapping[str, Any]) -> int:
    """Store an encoder's recipe, once; return its id."""
    key = digest(recipe)
    session.insert(
        t.encoder,
        [{"name": name, "recipe_digest": key, "recipe": canonical_json(recipe), "created_at": session.time()}],
        ignore_conflicts=True,
    )
    return int(session.one("SELECT id FROM encoder WHERE recipe_digest = :d", d=key))


def put_environment(session: Session, facts: Mapping[str, Any]) -> int:
    """Store what the machine and the versions are, once; return its id."""
    key = digest(facts)
    session.insert(
        t.environment,
        [{"digest": key, "facts": canonical_json(facts), "created_at": session.time()}],
        ignore_conflicts=True,
    )
    return int(session.one("SELECT id FROM environment WHERE digest = :d", d=key))


def put_sweep(session: Session, name: str, spec: Mapping[str, Any], *, reference: str | None, margin: float) -> int:
    """Store or renew a sweep's specification; return its id. A change of it is an event."""
    now, written = session.time(), json.dumps(spec, ensure_ascii=False)  # in the order of the file
    values = {"name": name, "spec": written, "reference": reference, "margin": margin}
    session.insert(t.sweep, [{**values, "created_at": now, "updated_at": now}], ignore_conflicts=True)
    row = session.rows("SELECT id, spec FROM sweep WHERE name = :n", n=name)[0]
    if row["spec"] != written:
        message = f"sweep {name!r} has another specification than before: reports and views of it show the new one"
        log.warning(message)
        put_event(session, "sweep_changed", message, detail={"before": json.loads(row["spec"])})
    session.update(
        t.sweep, [{"id": row["id"], "spec": written, "reference": reference, "margin": margin, "updated_at": now}]
    )
    return int(row["id"])


def put_event(
    session: Session,
    kind: str,
    message: str,
    *,
    coordinator_id: str | None = None,
    unit_id: int | None = None,
    detail: Any = None,
) -> None:
    """Log an event: a divergence, a lost coordinator, an invalidation, ..."""
    session.insert(
        t.event,
        [
            {
                "at": session.time(),
                "kind": kind,
                "coordinator_id": coordinator_id,
                "unit_id": unit_id,
                "message": message,
                "detail": None if detail is None else canonical_json(detail),
            }
        ],
    )
