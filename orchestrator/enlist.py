"""How does a plan become rows? Benchmarks, encoders, splits and units of a sweep, written once."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.keys import canonical_json
from orchestrator.plan import Plan, PlannedUnit
from orchestrator.store import Session, Store, registry
from workers.routers.base import router_class
from workers.units import EvaluateUnit

log = logging.getLogger("roadtest.enlist")


def enlist(store: Store, plan: Plan) -> int:
    """Write everything that a plan refers to; what is there stays as it is. Returns the sweep's id."""
    benchmark_ids: dict[str, int] = {}
    split_ids: dict[str, dict[int, int]] = {}
    for evaluated in plan.benchmarks:
        # A transaction each: 10^5 outcomes need not hold up another coordinator's beats.
        with store.begin() as session:
            benchmark = evaluated.benchmark
            benchmark_ids[benchmark.fingerprint] = registry.put_benchmark(session, benchmark)
            split_ids[benchmark.fingerprint] = registry.put_splits(
                session, benchmark_ids[benchmark.fingerprint], benchmark, plan.sweep.root_seed, plan.sweep.seeds
            )
    with store.begin() as session:
        encoder_ids = {
            embedding.digest: registry.put_encoder(session, embedding.encoder.entry.target, embedding.recipe)
            for embedding in plan.embeddings
        }
        sweep_id = registry.put_sweep(
            session,
            plan.sweep.name,
            plan.sweep.as_dict(),
            reference=plan.sweep.reference_router,
            margin=plan.sweep.margin,
        )
        rows, names = [], []
        for planned in plan.units:
            ids: dict[str, Any] = {"benchmark_id": None, "encoder_id": None, "split_id": None}
            if planned.embedding is not None:
                ids["encoder_id"] = encoder_ids[planned.embedding.digest]
            if planned.evaluated is not None:
                fingerprint = planned.evaluated.benchmark.fingerprint
                ids["benchmark_id"] = benchmark_ids[fingerprint]
                ids["split_id"] = split_ids[fingerprint][planned.spec["split"]]
            rows.append(unit_row(planned, ids))
            names.append(_names(planned))
        registry.put_units(session, sweep_id, rows, names)
        _warn_of_changed_sources(session, sweep_id)
    return sweep_id


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


def _names(planned: PlannedUnit) -> dict[str, str | None]:
    return {
        "benchmark": planned.evaluated.name if planned.evaluated else None,
        "task": planned.evaluated.task if planned.evaluated else None,
        "encoder": planned.encoder,
        "router": planned.router,
        "twin_of": planned.twin_of,
    }


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
    row: dict[str, Any] = {
        "key": unit.key,
        "kind": planned.kind,
        "spec": canonical_json(planned.spec),
        "config": planned.config,
        "embedding": planned.embedding.digest if planned.embedding else None,
        "state": "skipped" if planned.skipped else "ready",
        "reason": planned.skipped,
        "router": None,
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
    return row
