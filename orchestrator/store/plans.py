"""How does a plan's list of units get into the database? In stretches, by one writer, and only where it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from orchestrator.errors import RunError
from orchestrator.store import tables as t
from orchestrator.store.registry import chunks
from orchestrator.store.store import Session

#: SQL for a sweep whose units are being written, or were when the writer was cut off; NULL is of schema 0001.
UNWRITTEN = "plan_digest LIKE '~%'"
#: Columns of `sweep_unit` with a unit's display names.
NAMES = ("benchmark", "task", "encoder", "router", "twin_of")


def begin_plan(session: Session, sweep_id: int, plan_digest: str) -> bool:
    """Whether `sweep_unit` holds this plan already; if not, mark that it is being written, which stops another's."""
    if _plan_mark(session, sweep_id) == plan_digest:
        return True
    session.update(t.sweep, [{"id": sweep_id, "plan_digest": _unfinished(plan_digest)}])
    return False


def end_plan(session: Session, sweep_id: int, plan_digest: str, n_units: int) -> bool:
    """Mark that all `n_units` of the plan are written; positions of a longer plan before it go.

    Returns:
        False when another coordinator has done so already.

    Raises:
        RunError: The sweep was given another plan meanwhile.
    """
    if _is_written(session, sweep_id, plan_digest):
        return False
    session.run("DELETE FROM sweep_unit WHERE sweep_id = :s AND position >= :n", s=sweep_id, n=n_units)
    session.update(t.sweep, [{"id": sweep_id, "plan_digest": plan_digest}])
    return True


def refresh_statistics(session: Session) -> None:
    """Let PostgreSQL count the units: until it does so itself, a minute later, it joins as if there were few."""
    if session.dialect == "postgresql":
        session.run("ANALYZE unit, sweep_unit")


def _unfinished(plan_digest: str) -> str:
    """Mark of a plan that is being written."""
    return f"~{plan_digest[1:]}"


def _plan_mark(session: Session, sweep_id: int) -> str | None:
    """What `sweep.plan_digest` says; holds others that write this sweep's plan off until the transaction ends."""
    lock = "FOR NO KEY UPDATE" if session.dialect == "postgresql" else ""
    found: str | None = session.one(f"SELECT plan_digest FROM sweep WHERE id = :s {lock}", s=sweep_id)
    return found


def _is_written(session: Session, sweep_id: int, plan_digest: str) -> bool:
    mark = _plan_mark(session, sweep_id)
    if mark not in (plan_digest, _unfinished(plan_digest)):
        raise RunError(
            "the sweep was given another specification while this run wrote its units down (another sweep file, other "
            "data, or another file of a router where the other run was started); what is done is kept: run the file "
            "again that is meant."
        )
    return mark == plan_digest


def put_units(
    session: Session,
    sweep_id: int,
    plan_digest: str,
    start: int,
    wanted: Sequence[tuple[str | None, ...]],
    unit_row: Callable[[int], dict[str, Any]],
) -> bool:
    """Store the units of a stretch of a plan that are not there yet and make them the sweep's.

    Args:
        session: Write transaction.
        sweep_id: Sweep.
        plan_digest: Digest of the plan, as `begin_plan` was given it.
        start: Position of the first.
        wanted: Key and display names (benchmark, task, encoder, router, twin_of) of each unit.
        unit_row: Makes the row of `unit` of the i-th; asked for units that do not exist.

    Returns:
        False when another coordinator has already written all of the same plan.

    Raises:
        RunError: The sweep was given another plan meanwhile.
    """
    if _is_written(session, sweep_id, plan_digest):
        return False
    keys = [str(key) for key, *_ in wanted]
    ids = _unit_ids(session, keys)
    # By key, and below by id, so that two sweeps that start at once never wait for each other in a circle.
    new = sorted((key, i) for i, key in enumerate(keys) if key not in ids)
    for batch in chunks(new, 1_000):
        session.insert(t.unit, [unit_row(i) for _, i in batch], ignore_conflicts=True)
    ids |= _unit_ids(session, [key for key, _ in new])
    there: Iterable[Any] = session.run(
        """SELECT position, unit_id, benchmark, task, encoder, router, twin_of FROM sweep_unit
           WHERE sweep_id = :s AND position >= :first AND position < :end""",
        s=sweep_id,
        first=start,
        end=start + len(wanted),
    )
    known = {row[0] - start: tuple(row[1:]) for row in there}
    changed = [i for i, (_, *names) in enumerate(wanted) if known.get(i) != (ids[keys[i]], *names)]
    if not changed:
        return True
    first, last = changed[0], changed[-1]
    session.run(
        "DELETE FROM sweep_unit WHERE sweep_id = :s AND position >= :first AND position <= :last",
        s=sweep_id,
        first=start + first,
        last=start + last,
    )
    rows = [
        {
            "sweep_id": sweep_id,
            "position": start + i,
            "unit_id": ids[keys[i]],
            **dict(zip(NAMES, wanted[i][1:], strict=True)),
        }
        for i in range(first, last + 1)
    ]
    session.insert(t.sweep_unit, sorted(rows, key=lambda row: (row["unit_id"], row["position"])))
    return True


def _unit_ids(session: Session, keys: Sequence[str]) -> dict[str, int]:
    """Ids of units by key."""
    if not keys:
        return {}
    among, bound = session.among("keys", keys)
    rows: Iterable[Any] = session.run(f"SELECT key, id FROM unit WHERE key {among}", **bound)
    return {key: unit_id for key, unit_id in rows}
