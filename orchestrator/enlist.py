"""How does a plan become rows? Benchmarks, encoders, splits and units of a sweep, written once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from orchestrator.plan import Plan, PlannedUnit, source_digest, unit_row
from orchestrator.store import Session, Store, registry

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


def known_states(session: Session, plan: Plan) -> dict[str, Mapping[str, Any]]:
    """What the database knows of a plan's units: rows with `state`, `reason` and `stale`, by key."""
    found: dict[str, Mapping[str, Any]] = {}
    for batch in registry.chunks([planned.key for planned in plan.units]):
        marks, bound = session.in_list("k", batch)
        for row in session.rows(
            f"""SELECT key, state, reason, coalesce(lease_expires <= {session.now}, FALSE) AS stale
                FROM unit WHERE key IN {marks}""",
            **bound,
        ):
            found[row["key"]] = row
    return found
