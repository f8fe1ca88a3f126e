"""How does a plan become rows? Benchmarks, encoders, splits and units of a sweep, written once."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from orchestrator.keys import canonical_json
from orchestrator.plan import Plan, PlannedUnit
from orchestrator.store import Session, Store, plans, registry
from workers.benchmarks.base import Benchmark
from workers.routers.base import router_class
from workers.units import EvaluateUnit, MeasureUnit

log = logging.getLogger("roadtest.enlist")

#: Units per transaction.
STRETCH = 10_000


def enlist(store: Store, plan: Plan) -> int:
    """Write everything that a plan refers to; what is there stays as it is. Returns the sweep's id.

    In transactions of bounded size, each of which may run twice: another coordinator's beats need not wait for a
    million rows, and several coordinators may enlist the same plan at once.

    Raises:
        RunError: The sweep was given another plan meanwhile.
    """
    sweep, digest = plan.sweep, plan_digest(plan)

    def begin(session: Session) -> tuple[int, bool]:
        sweep_id = registry.put_sweep(
            session, sweep.name, sweep.as_dict(), reference=sweep.reference_router, margin=sweep.margin
        )
        return sweep_id, plans.begin_plan(session, sweep_id, digest)

    sweep_id, written = store.transact(begin)
    if written:
        return sweep_id
    ids = _put_references(store, plan)
    start = 0
    for batch in registry.chunks(plan.units, STRETCH):
        if not store.transact(
            partial(_put_stretch, sweep_id=sweep_id, digest=digest, start=start, batch=batch, ids=ids)
        ):
            break
        start += len(batch)

    def end(session: Session) -> None:
        if plans.end_plan(session, sweep_id, digest, len(plan.units)):
            _warn_of_changed_sources(session, sweep_id)

    store.transact(end)
    store.transact(plans.refresh_statistics)
    return sweep_id


def plan_digest(plan: Plan) -> str:
    """Digest of every unit's key and display names in order, and of the files that define the routers."""
    found, routers = hashlib.sha256(), set()
    for group in plan.units.groups:
        make = group.maker()
        first, last = make(0), make(len(group) - 1)
        # Units of a group share their configuration and names: its ends stand for the keys between them.
        found.update(canonical_json([len(group), first.config, *_wanted(first), last.key]).encode())
        if isinstance(first.unit, EvaluateUnit):
            routers.add(first.unit.router)
    found.update(canonical_json([[router, source_digest(router)] for router in sorted(routers)]).encode())
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Ids:
    """Row ids of what units refer to."""

    #: By fingerprint.
    benchmarks: Mapping[str, int]
    #: By fingerprint and split index.
    splits: Mapping[str, Mapping[int, int]]
    #: By the embedding's digest.
    encoders: Mapping[str, int]

    def of(self, planned: PlannedUnit) -> dict[str, int | None]:
        """The unit's `benchmark_id`, `encoder_id` and `split_id`."""
        ids: dict[str, int | None] = {"benchmark_id": None, "encoder_id": None, "split_id": None}
        if planned.embedding is not None:
            ids["encoder_id"] = self.encoders[planned.embedding.digest]
        if planned.evaluated is not None:
            fingerprint = planned.evaluated.benchmark.fingerprint
            ids["benchmark_id"] = self.benchmarks[fingerprint]
            if isinstance(planned.unit, EvaluateUnit):
                ids["split_id"] = self.splits[fingerprint][planned.unit.split]
        return ids


def _put_references(store: Store, plan: Plan) -> _Ids:
    benchmarks: dict[str, int] = {}
    splits: dict[str, Mapping[int, int]] = {}
    encoders: dict[str, int] = {}
    for evaluated in plan.benchmarks:

        def put_benchmark(session: Session, benchmark: Benchmark = evaluated.benchmark) -> None:
            found = benchmarks[benchmark.fingerprint] = registry.put_benchmark(session, benchmark)
            splits[benchmark.fingerprint] = registry.put_splits(
                session, found, benchmark, plan.sweep.root_seed, plan.sweep.seeds
            )

        store.transact(put_benchmark)  # a transaction each: 10^5 outcomes

    def put_encoders(session: Session) -> None:
        for embedding in plan.embeddings:
            encoders[embedding.digest] = registry.put_encoder(session, embedding.encoder.entry.target, embedding.recipe)

    store.transact(put_encoders)
    return _Ids(benchmarks=benchmarks, splits=splits, encoders=encoders)


def _put_stretch(
    session: Session, *, sweep_id: int, digest: str, start: int, batch: Sequence[PlannedUnit], ids: _Ids
) -> bool:
    return plans.put_units(
        session,
        sweep_id,
        digest,
        start,
        [_wanted(planned) for planned in batch],
        lambda i: unit_row(batch[i], ids.of(batch[i])),
    )


def _wanted(planned: PlannedUnit) -> tuple[str | None, ...]:
    """Key and display names."""
    evaluated = planned.evaluated
    return (
        planned.key,
        evaluated.name if evaluated else None,
        evaluated.task if evaluated else None,
        planned.encoder,
        planned.router,
        planned.twin_of,
    )


def _warn_of_changed_sources(session: Session, sweep_id: int) -> None:
    """Say so when results were computed by another source of a router under the same version; never re-key silently."""
    for row in session.rows(
        """SELECT u.router, u.router_source, count(*) AS n FROM sweep_unit su JOIN unit u ON u.id = su.unit_id
           WHERE su.sweep_id = :s AND u.state = 'done' AND u.router_source IS NOT NULL
           GROUP BY u.router, u.router_source""",
        s=sweep_id,
    ):
        if row["router_source"] != source_digest(row["router"]):
            message = (
                f"the file of router {row['router']!r} changed since {row['n']} results of this sweep were computed, "
                "its version did not; if it gives other results now, raise `version`, or `roadtest invalidate` them"
            )
            log.warning(message)
            registry.put_event(session, "source_changed", message)


@cache
def source_digest(router: str) -> str | None:
    """sha256 of the file that defines a router: part of no key, but its change under one version is warned of."""
    path = inspect.getsourcefile(router_class(router))
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else None


def unit_row(planned: PlannedUnit, ids: Mapping[str, Any]) -> dict[str, Any]:
    """The unit's row for the database.

    Args:
        planned: Unit.
        ids: Its `benchmark_id`, `encoder_id` and `split_id`.
    """
    unit = planned.unit
    stored = planned.embedding.stored if planned.embedding else None
    row: dict[str, Any] = {
        "key": unit.key,
        "kind": planned.kind,
        "spec": planned.spec_json,
        "config": planned.config,
        "embedding": stored.digest if stored else None,
        "state": "skipped" if planned.skipped else "ready",
        "reason": planned.skipped,
        "router": None,
        "measure": None,
        "params": None,
        "twin": False,
        "privileged": False,
        "query_blind": False,
        "router_source": None,
        "formulation": None,
        "seed": None,
        "root_seed": None,
        "train_size": None,
        **ids,
    }
    if isinstance(unit, EvaluateUnit):
        cls = router_class(unit.router)
        row |= {
            "router": unit.router,
            "params": canonical_json(unit.params),
            "twin": unit.twin,
            "privileged": cls.privileged,
            "query_blind": cls.query_blind,
            "router_source": source_digest(unit.router),
            "formulation": unit.formulation,
            "seed": unit.split,
            "root_seed": unit.root_seed,
            "train_size": unit.train_size,
        }
    if isinstance(unit, MeasureUnit):
        row |= {
            "measure": unit.measure,
            "params": canonical_json(unit.params),
            "seed": unit.split,
            "root_seed": unit.root_seed,
        }
    return row
