"""Who works on which unit? Claims with leases in database time, fenced by an epoch per claim."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from orchestrator.errors import RunError
from orchestrator.queue import State, check_transition
from orchestrator.store import tables as t
from orchestrator.store.registry import chunks, put_event
from orchestrator.store.store import Session

#: A unit waits until every slice of its embedding is there.
_UNBLOCKED = """(u.kind = 'embed' OR u.embedding IS NULL OR NOT EXISTS (
    SELECT 1 FROM unit e WHERE e.embedding = u.embedding AND e.kind = 'embed' AND e.state <> 'done'))"""


#: Seconds by which two readings of one process's start may differ: they are made of clocks that get corrected.
_START_TOLERANCE = 5.0


def boot_id() -> str:
    """Changes at every boot of this host."""
    kernel = Path("/proc/sys/kernel/random/boot_id")  # the boot's time is corrected with the clock and so may move
    return kernel.read_text().strip() if kernel.exists() else str(int(psutil.boot_time()))


def register(session: Session, coordinator_id: str, sweep_id: int, host: str) -> None:
    """Write the coordinator down, with what tells later whether its process still lives."""
    process = psutil.Process()
    session.insert(
        t.coordinator,
        [
            {
                "id": coordinator_id,
                "sweep_id": sweep_id,
                "host": host,
                "boot": boot_id(),
                "pid": process.pid,
                "process_started": process.create_time(),
                "started_at": session.time(),
            }
        ],
        ignore_conflicts=True,  # written before, by a transaction whose end was not seen
    )


def end(session: Session, coordinator_id: str, exit_code: int) -> None:
    """Write down that the coordinator ended, and how."""
    session.run(
        f"UPDATE coordinator SET ended_at = {session.now}, exit_code = :x WHERE id = :c", c=coordinator_id, x=exit_code
    )


def expire_dead(session: Session, host: str) -> int:
    """End the leases of coordinators of this host whose process is gone; return how many units that frees.

    Other hosts' coordinators are judged by their leases alone.
    """
    freed = 0
    for row in session.rows(
        """SELECT c.id, c.pid, c.boot, c.process_started FROM coordinator c
           WHERE c.host = :h AND EXISTS (SELECT 1 FROM unit u WHERE u.coordinator_id = c.id AND u.state = 'running')""",
        h=host,
    ):
        if not _lives(row):
            freed += session.run(
                """UPDATE unit SET lease_expires = 0
                   WHERE coordinator_id = :c AND state = 'running' AND lease_expires > 0""",
                c=row["id"],
            ).rowcount
    return freed


def _lives(row: Mapping[str, Any]) -> bool:
    if row["boot"] != boot_id():
        return False
    try:
        process = psutil.Process(row["pid"])
        same = abs(process.create_time() - row["process_started"]) < _START_TOLERANCE
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def claim(
    session: Session, sweep_id: int, coordinator_id: str, *, limit: int, lease: float, after: int = 0
) -> list[Mapping[str, Any]]:
    """Claim up to `limit` units of a sweep in its order: ready ones and those of others whose lease has run out.

    A coordinator whose own leases ran out (its machine slept) still works on them: its next heartbeat renews them.

    Args:
        session: Write transaction.
        sweep_id: Sweep.
        coordinator_id: Who claims.
        limit: How many at most.
        lease: Seconds until the claim runs out unless it is beaten.
        after: Position in the sweep from which on to look: what is done before it need not be passed each time.

    Returns:
        Rows with `id, key, kind, position, epoch` and the strikes `n_deaths, n_ooms` of the claimed units.

    Raises:
        RunError: Another run took the sweep over.
    """
    check_not_fenced(session, coordinator_id)
    skip_locked = "FOR UPDATE OF u SKIP LOCKED" if session.dialect == "postgresql" else ""
    found = session.rows(
        f"""SELECT su.position, u.id, u.key, u.kind, u.state, u.epoch, u.coordinator_id, u.claimed_at, u.lease_expires,
                   u.n_deaths, u.n_ooms
            FROM sweep_unit su JOIN unit u ON u.id = su.unit_id
            WHERE su.sweep_id = :s AND su.position >= :after
              AND (u.state IN ('ready', 'invalidated')
                   OR (u.state = 'running' AND u.coordinator_id <> :c AND u.lease_expires <= {session.now}))
              AND {_UNBLOCKED}
            ORDER BY su.position LIMIT :n {skip_locked}""",
        s=sweep_id,
        c=coordinator_id,
        after=after,
        n=limit,
    )
    # One unit may stand in a sweep under two display names.
    candidates = list({row["id"]: row for row in reversed(found)}.values())[::-1]
    _lose(session, [row for row in candidates if row["state"] == "running"], coordinator_id)
    if candidates:
        among, bound = session.among("u", [row["id"] for row in candidates])
        session.run(
            f"""UPDATE unit SET state = 'running', reason = NULL, epoch = epoch + 1, coordinator_id = :c,
                claimed_at = {session.now}, lease_expires = {session.now} + :lease WHERE id {among}""",
            c=coordinator_id,
            lease=lease,
            **bound,
        )
    return [{**row, "epoch": row["epoch"] + 1} for row in candidates]


def _lose(session: Session, lost: Sequence[Mapping[str, Any]], coordinator_id: str) -> None:
    """Write down that claims ran out."""
    if not lost:
        return
    now = session.time()
    session.insert(
        t.attempt,
        [
            {
                "unit_id": row["id"],
                "epoch": row["epoch"],
                "coordinator_id": row["coordinator_id"],
                "outcome": "lost",
                "message": "its coordinator died or stopped beating",
                "started_at": row["claimed_at"],
                "finished_at": now,
            }
            for row in lost
        ],
    )
    put_event(
        session, "reclaimed", f"{len(lost)} units of dead coordinators claimed again", coordinator_id=coordinator_id
    )


def forgotten(session: Session, coordinator_id: str, known: Collection[int]) -> list[Mapping[str, Any]]:
    """Claims of a coordinator that it does not know of: the connection was lost while they were committed.

    Returns:
        Rows as `claim`.
    """
    found = session.rows(
        """SELECT su.position, u.id, u.key, u.kind, u.epoch, u.n_deaths, u.n_ooms
               FROM coordinator c JOIN unit u ON u.coordinator_id = c.id AND u.state = 'running'
               JOIN sweep_unit su ON su.sweep_id = c.sweep_id AND su.unit_id = u.id
               WHERE c.id = :c ORDER BY su.position""",
        c=coordinator_id,
    )
    return list({row["id"]: row for row in reversed(found) if row["id"] not in known}.values())[::-1]


def beat(session: Session, coordinator_id: str, *, lease: float) -> int:
    """Renew every lease of a coordinator; return how many it holds.

    Raises:
        RunError: Another run took the sweep over.
    """
    check_not_fenced(session, coordinator_id)
    # In the order in which results are recorded, or the two could wait for each other.
    lock = "ORDER BY id FOR UPDATE" if session.dialect == "postgresql" else ""
    return session.run(
        f"""UPDATE unit SET lease_expires = {session.now} + :lease WHERE id IN (
                SELECT id FROM unit WHERE coordinator_id = :c AND state = 'running' {lock})""",
        c=coordinator_id,
        lease=lease,
    ).rowcount


def take_over(session: Session, sweep_id: int, coordinator_id: str) -> int:
    """End every other coordinator of a sweep, alive or not: its leases run out now, it can neither beat nor claim.

    Returns:
        How many coordinators still held units.
    """
    others = session.rows(
        """SELECT c.id, c.host, c.pid FROM coordinator c WHERE c.sweep_id = :s AND c.id <> :c AND c.ended_at IS NULL""",
        s=sweep_id,
        c=coordinator_id,
    )
    holding = 0
    for row in others:
        session.run(f"UPDATE coordinator SET ended_at = {session.now} WHERE id = :c", c=row["id"])
        n = session.run(
            "UPDATE unit SET lease_expires = 0 WHERE coordinator_id = :c AND state = 'running'", c=row["id"]
        ).rowcount
        if n:
            holding += 1
            put_event(
                session,
                "taken_over",
                f"{n} units of coordinator {row['id']} on {row['host']} (pid {row['pid']}) taken over by hand",
                coordinator_id=coordinator_id,
            )
    return holding


def check_not_fenced(session: Session, coordinator_id: str) -> None:
    """Raise if another run took over what this coordinator works on.

    Raises:
        RunError: It did.
    """
    if session.one("SELECT 1 FROM coordinator WHERE id = :c AND ended_at IS NOT NULL", c=coordinator_id):
        raise RunError("another run took this sweep over (`run --takeover`); what is done is kept, this run ends.")


def settled(
    session: Session, coordinator_id: str, wanted: Sequence[tuple[int, int]]
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Which of these claims (unit id and epoch) the coordinator still holds, and which it has settled already.

    A claim is settled once: by its result, its failure or by being handed back. Seeing one again means that the
    connection was lost while it was committed.
    """
    lock = "ORDER BY id FOR UPDATE" if session.dialect == "postgresql" else ""
    among, bound = session.among("u", [unit_id for unit_id, _ in wanted])
    held: set[tuple[int, int]] = set()
    over: set[tuple[int, int]] = set()
    for row in session.rows(f"SELECT id, epoch, state, coordinator_id FROM unit WHERE id {among} {lock}", **bound):
        if row["coordinator_id"] == coordinator_id:
            (held if row["state"] == "running" else over).add((row["id"], row["epoch"]))
    return held.intersection(wanted), over.intersection(wanted)


def release(session: Session, coordinator_id: str) -> int:
    """Hand back everything a coordinator holds (it stops gracefully); return how many units."""
    rows = session.rows(
        "SELECT id, epoch, claimed_at FROM unit WHERE coordinator_id = :c AND state = 'running'", c=coordinator_id
    )
    now = session.time()
    session.insert(
        t.attempt,
        [
            {
                "unit_id": row["id"],
                "epoch": row["epoch"],
                "coordinator_id": coordinator_id,
                "outcome": "released",
                "started_at": row["claimed_at"],
                "finished_at": now,
            }
            for row in rows
        ],
    )
    return session.run(
        "UPDATE unit SET state = 'ready', lease_expires = NULL WHERE coordinator_id = :c AND state = 'running'",
        c=coordinator_id,
    ).rowcount


def counts(session: Session, sweep_id: int) -> dict[tuple[str, str], int]:
    """Units of a sweep by (kind, state)."""
    return {
        (row["kind"], row["state"]): row["n"]
        for row in session.rows(
            """SELECT u.kind, u.state, count(*) AS n FROM unit u
               WHERE EXISTS (SELECT 1 FROM sweep_unit su WHERE su.sweep_id = :s AND su.unit_id = u.id)
               GROUP BY u.kind, u.state""",
            s=sweep_id,
        )
    }


def anything_open(session: Session, sweep_id: int) -> bool:
    """Whether some unit of the sweep has not ended, were it one that waits for a slice that failed."""
    return bool(
        session.one(
            """SELECT 1 FROM sweep_unit su JOIN unit u ON u.id = su.unit_id
               WHERE su.sweep_id = :s AND u.state IN ('ready', 'running', 'invalidated') LIMIT 1""",
            s=sweep_id,
        )
    )


def may_be_open(session: Session, sweep: str) -> bool:
    """Whether a sweep of this name has such a unit, or is not known yet."""
    ids = session.rows("SELECT id FROM sweep WHERE name = :n", n=sweep)
    return not ids or anything_open(session, ids[0]["id"])


def anything_left(session: Session, sweep_id: int) -> bool:
    """Whether someone works on a unit of the sweep or can claim one: not those that wait for a slice that failed."""
    return bool(
        session.one(
            f"""SELECT 1 FROM sweep_unit su JOIN unit u ON u.id = su.unit_id
                WHERE su.sweep_id = :s
                  AND (u.state = 'running' OR (u.state IN ('ready', 'invalidated') AND {_UNBLOCKED})) LIMIT 1""",
            s=sweep_id,
        )
    )


def move(session: Session, ids: Sequence[int], *, before: State, to: State, reason: str | None) -> int:
    """Put those units that are in one state into another by a person's hand; counters of failures start afresh.

    Returns:
        How many units moved.

    Raises:
        TransitionError: The table of transitions does not allow it.
    """
    check_transition(before, to)
    n = 0
    for batch in chunks(ids, 10_000):
        among, bound = session.among("u", batch)
        n += session.run(
            f"""UPDATE unit SET state = :to, reason = :reason, n_failures = 0, n_deaths = 0, n_ooms = 0,
                lease_expires = NULL WHERE state = :before AND id {among}""",
            before=before.value,
            to=to.value,
            reason=reason,
            **bound,
        ).rowcount
    return n
