"""What in a database and its artefact store does no sweep need any more, and how is it taken out?"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import DatabaseError, NotFoundError
from orchestrator.store import guards, plans
from orchestrator.store.store import Session, Store
from workers.artifacts import ArtifactStore, StoredFile
from workers.embed import slice_name

DAY = 86_400.0

#: Files of a slice, and those that were being written when their writer died. Others in the store are not ours.
_SLICE = re.compile(r"([0-9a-f]{64}/\d+-\d+)\.(npy|json)")
_TORN = re.compile(r"[0-9a-f]{64}/\.\d+-\d+\.(npy|json)\.[0-9a-f]{32}\.tmp")

#: Units that go: those of no sweep, but for the sweep that goes itself.
_GONE = """(SELECT u.id FROM unit u
    WHERE NOT EXISTS (SELECT 1 FROM sweep_unit k WHERE k.unit_id = u.id AND k.sweep_id <> :gone))"""
#: Attempts of these are history once they are old; of the others they tell why the unit failed.
_HISTORY = "(SELECT u.id FROM unit u WHERE u.state NOT IN ('failed', 'quarantined'))"

#: What goes from each table, in the order that references allow. No condition depends on an earlier deletion: a dry
#: run counts by the same words.
_RULES = (
    ("metric", f"unit_id IN {_GONE}"),
    ("frontier_point", f"unit_id IN {_GONE}"),
    ("decision", f"unit_id IN {_GONE}"),
    ("finding", f"unit_id IN {_GONE}"),
    ("artifact", f"unit_id IN {_GONE}"),
    # Divergences are facts about results that are still there.
    ("event", f"unit_id IN {_GONE} OR (at < :before AND kind <> 'divergence')"),
    ("attempt", f"unit_id IN {_GONE} OR (finished_at < :before AND unit_id IN {_HISTORY})"),
    ("sweep_unit", "sweep_id = :gone"),
    ("unit", f"id IN {_GONE}"),
    ("sweep", "id = :gone"),
)


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What goes, or went."""

    #: Rows by table, in the order in which they go; tables that lose none are left out.
    rows: Mapping[str, int]
    #: Files of the artefact store that no row refers to.
    files: Sequence[StoredFile]
    #: How many more there are that are too young to go.
    n_young: int


def prune(
    store: Store,
    artifacts: ArtifactStore | None,
    *,
    sweep: str | None = None,
    history_days: float | None = None,
    grace_days: float = 1.0,
    apply: bool = False,
) -> Garbage:
    """Find, and with `apply` take out, what no sweep needs.

    Rows go in one transaction and files after it, so that what a crash leaves is found the next time.

    Args:
        store: Database.
        artifacts: Its artefact store; None leaves files alone.
        sweep: Sweep that goes too, with every unit that no other sweep has.
        history_days: Attempts and events older than this go too.
        grace_days: Files younger than this stay: someone may just have written them and not yet said so.
        apply: Whether to do it.

    Raises:
        NotFoundError: No such sweep.
        DatabaseError: A coordinator is at work (with `apply`), or a sweep is not written down to its end.
        StoreError: The artefact store cannot be reached or refuses.
    """
    if apply:
        with store.begin() as session:
            guards.lock_tables(session)
            guards.require_idle(session)
            bound = _bound(session, sweep, history_days)
            rows = _delete(session, bound)
    with store.read() as session:
        bound = _bound(session, None if apply else sweep, history_days)
        if not apply:
            rows = {
                table: session.one(f"SELECT count(*) FROM {table} WHERE {which}", **bound) for table, which in _RULES
            }
        known = _known_slices(session, bound)
    files, n_young = _garbage(artifacts, known, grace_days) if artifacts else ([], 0)
    if apply and artifacts:
        for file in files:
            artifacts.delete(file.name)
    return Garbage(rows={table: n for table, n in rows.items() if n}, files=files, n_young=n_young)


def _bound(session: Session, sweep: str | None, history_days: float | None) -> dict[str, float]:
    """Values of the rules: id of the sweep that goes, and the time before which history goes."""
    gone = -1
    if sweep is not None:
        found = session.one("SELECT id FROM sweep WHERE name = :n", n=sweep)
        if found is None:
            raise NotFoundError(f"there is no sweep {sweep!r} in this database; `roadtest status` names the last one.")
        gone = found
    # `plans.begin_plan` marks a plan that is being written so; units of its rest would look like nobody's.
    for row in session.rows(f"SELECT name FROM sweep WHERE {plans.UNWRITTEN} AND id <> :g", g=gone):
        raise DatabaseError(
            f"which units sweep {row['name']!r} has is not yet written to the end: its run began just now, or was "
            f"interrupted. Run it once more, or take it out with --sweep {row['name']}."
        )
    return {"gone": gone, "before": 0.0 if history_days is None else session.time() - history_days * DAY}


def _delete(session: Session, bound: Mapping[str, float]) -> dict[str, int]:
    rows = {}
    for table, which in _RULES:
        if table == "sweep":
            _part_from_coordinators(session, bound["gone"])
        rows[table] = session.run(f"DELETE FROM {table} WHERE {which}", **bound).rowcount
    return rows


def _part_from_coordinators(session: Session, gone: float) -> None:
    """A sweep's coordinators go with it, but for those that worked on units of others: these pass to one of them."""
    session.run(
        """DELETE FROM coordinator WHERE sweep_id = :gone
           AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.coordinator_id = coordinator.id)
           AND NOT EXISTS (SELECT 1 FROM unit u WHERE u.coordinator_id = coordinator.id)""",
        gone=gone,
    )
    session.run(
        """UPDATE coordinator SET sweep_id = (SELECT min(k.sweep_id) FROM sweep_unit k WHERE k.unit_id IN (
               SELECT a.unit_id FROM attempt a WHERE a.coordinator_id = coordinator.id
               UNION SELECT u.id FROM unit u WHERE u.coordinator_id = coordinator.id))
           WHERE sweep_id = :gone""",
        gone=gone,
    )


def _known_slices(session: Session, bound: Mapping[str, float]) -> set[str]:
    """Names of the slices that a sweep needs."""
    return {
        slice_name(row["embedding"], row["start"], row["stop"])
        for row in session.rows(
            """SELECT a.embedding, a.start, a.stop FROM artifact a
               WHERE EXISTS (SELECT 1 FROM sweep_unit k WHERE k.unit_id = a.unit_id AND k.sweep_id <> :gone)""",
            **bound,
        )
    }


def _garbage(artifacts: ArtifactStore, known: set[str], grace_days: float) -> tuple[list[StoredFile], int]:
    until = time.time() - grace_days * DAY
    old, n_young = [], 0
    for file in artifacts.files():
        whole = _SLICE.fullmatch(file.name)
        if not (_TORN.fullmatch(file.name) or (whole and whole[1] not in known)):
            continue
        if file.modified < until:
            old.append(file)
        else:
            n_young += 1
    return old, n_young
