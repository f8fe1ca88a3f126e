"""Why will a planned unit be computed, or not? What `plan --explain` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.plan import Plan, PlannedUnit
from orchestrator.store import Session, registry

#: Units looked up at once.
STRETCH = 5_000

#: Why each unit of a plan stands where it stands; what `plan --explain` prints.
REASONS = {
    "new": "not in the database yet",
    "done": "its result is there",
    "ready": "planned earlier, not started",
    "running": "a live coordinator works on it",
    "stale lease": "its coordinator stopped beating; it will be claimed again",
    "failed": "gave up; `roadtest retry` makes it ready",
    "quarantined": "killed its workers; left alone",
    "invalidated": "declared void; will be computed again",
    "skipped": "cannot be computed by definition",
}


def explain(planned: PlannedUnit, row: Mapping[str, Any] | None) -> tuple[str, str]:
    """Why a unit will or will not be computed: the reason's name and a sentence.

    Args:
        planned: Unit of the plan.
        row: Its row in the database with `state`, `reason` and `stale` (whether its lease has run out), if any.
    """
    if planned.skipped:
        return "skipped", planned.skipped
    if row is None:
        return "new", REASONS["new"]
    name = "stale lease" if row["state"] == "running" and row["stale"] else str(row["state"])
    return name, str(row["reason"] or REASONS[name])


def explain_all(session: Session | None, plan: Plan) -> Iterator[tuple[PlannedUnit, str, str]]:
    """Every unit of a plan with reason and sentence, a stretch at a time.

    Args:
        session: Read of the database, None where there is none yet.
        plan: Plan.
    """
    for batch in registry.chunks(plan.units, STRETCH):
        states = {} if session is None else known_states(session, [planned.key for planned in batch])
        for planned in batch:
            yield planned, *explain(planned, states.get(planned.key))


def known_states(session: Session, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What the database knows of units: rows with `state`, `reason` and `stale`, by key."""
    among, bound = session.among("keys", keys)
    rows = session.rows(
        f"""SELECT key, state, reason, coalesce(lease_expires <= {session.now}, FALSE) AS stale
            FROM unit WHERE key {among}""",
        **bound,
    )
    return {row["key"]: row for row in rows}
