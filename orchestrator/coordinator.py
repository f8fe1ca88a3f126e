"""The loop: claim units, dispatch shards, record what comes back, until nothing is left or someone says stop."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.contexts import build_context
from orchestrator.errors import OrchestratorError, RunError
from orchestrator.executors.base import Executor, Shard, ShardReport
from orchestrator.plan import Plan, PlannedUnit
from orchestrator.queue import exit_code
from orchestrator.shards import Backlog, Claimed, Pace, context_name, label, measured_seconds
from orchestrator.store import Store, claims, registry, results
from orchestrator.store.results import Finished
from workers.artifacts import ArtifactStore
from workers.embed import slice_name
from workers.errors import ArtifactError
from workers.units import EmbedUnit, UnitFailure

log = logging.getLogger("roadtest.coordinator")

#: Seconds between two looks at what other coordinators left.
OTHERS_SECONDS = 0.5


class Progress(Protocol):
    """Whoever wants to show how far a run is."""

    def update(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Units of the sweep by (kind, state)."""


@dataclass(kw_only=True, eq=False)
class _Flight:
    """A shard that is out."""

    shard: Shard
    units: tuple[Claimed, ...]
    embedding_sha256: str | None


@dataclass(eq=False)
class Coordinator:
    """Works off one sweep on one executor; the single writer of its results."""

    store: Store
    plan: Plan
    sweep_id: int
    executor: Executor
    artifacts: str
    environment_id: int
    progress: Progress | None = None
    pace: Pace = field(default_factory=Pace)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        # A plain flag: a signal handler that sets an Event can meet its lock in the hands of the thread it interrupts.
        self._stop = False
        self._ended = threading.Event()
        self._by_key = {planned.key: planned for planned in self.plan.units}
        self._backlog = Backlog(self.pace, workers=self.executor.workers)
        self._flights: dict[int, _Flight] = {}
        self._finished: list[Finished] = []
        self._flushed_at = time.monotonic()
        self._next_shard = 0
        #: Contexts that the executor knows, each with the sha256 of its embedding.
        self._contexts: dict[str, str | None] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def stop(self) -> None:
        """Ask the loop to hand back what it holds and end; safe in a signal handler."""
        self._stop = True

    @property
    def stopped(self) -> bool:
        """Whether someone asked for the end."""
        return self._stop

    def run(self) -> dict[tuple[str, str], int]:
        """Work the sweep off; returns its units by (kind, state).

        Raises:
            RunError: The machine or the database failed; what was committed stays.
        """
        with self.store.begin() as session:
            claims.register(session, self.id, self.sweep_id, socket.gethostname())
            freed = claims.expire_dead(session, socket.gethostname())
            self._counts = claims.counts(session, self.sweep_id)
            self._backlog.expect(measured_seconds(session))
        if freed:
            log.info("reclaiming %d units of dead coordinators", freed)
        failed = True
        heart = threading.Thread(target=self._beat, name="roadtest-heart", daemon=True)
        heart.start()
        try:
            self._check_artifacts()
            self._loop()
            failed = False
        finally:
            self._ended.set()
            heart.join()
            self._end(failed)
        return self._counts

    def _loop(self) -> None:
        while not self.stopped:
            self._fill()
            for report in self.executor.wait(0.1):
                self._take(report)
            self._flush_if_due()
            if not self._flights and not self._backlog:
                self._flush()
                if not self._fill() and not self._others_work():
                    return

    def _others_work(self) -> bool:
        """Whether another coordinator works on this sweep or has just left units to claim; waits a little if so."""
        with self.store.read() as session:
            left = claims.unfinished(session, self.sweep_id)
        if left:
            time.sleep(OTHERS_SECONDS)
        return left > 0

    # -- out ---------------------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Keep every worker busy; returns whether anything is out."""
        room = 2 * self.executor.workers - len(self._flights)
        while room > 0:
            if not self._backlog:
                self._claim()
            if not self._backlog:
                break
            self._submit(self._backlog.next_units())
            room -= 1
        return bool(self._flights)

    def _claim(self) -> None:
        with self.store.begin() as session:
            rows = claims.claim(
                session,
                self.sweep_id,
                self.id,
                limit=self._fair_share(),
                lease=self.pace.lease,
            )
        if any(row["key"] not in self._by_key for row in rows):
            raise RunError(
                f"sweep {self.plan.sweep.name!r} was given another specification while this run worked on it; "
                "what is done is kept: run the file again that is meant."
            )
        self._backlog.extend(
            Claimed(unit_id=row["id"], epoch=row["epoch"], planned=self._by_key[row["key"]]) for row in rows
        )

    def _fair_share(self) -> int:
        """Units to claim at once: half of what is left, so that another coordinator finds work too."""
        left = sum(n for (_, state), n in self._counts.items() if state in ("ready", "invalidated"))
        least, most = 4 * self.executor.workers, 2 * self.executor.workers * self.pace.shard_units
        return max(least, min(left // 2, most))

    def _submit(self, units: tuple[Claimed, ...]) -> None:
        context = self._share(units[0].planned)
        shard = Shard(id=self._next_shard, context=context, units=tuple(claimed.planned.unit for claimed in units))  # type: ignore[arg-type]
        self._next_shard += 1
        self._flights[shard.id] = _Flight(shard=shard, units=units, embedding_sha256=self._contexts[context])
        self.executor.submit(shard)

    def _share(self, planned: PlannedUnit) -> str:
        name = context_name(planned)
        if name not in self._contexts:
            in_use = {flight.shard.context for flight in self._flights.values()}
            for old in [old for old in self._contexts if old not in in_use][: max(0, len(self._contexts) - 4)]:
                self.executor.forget(old)
                del self._contexts[old]
            context, self._contexts[name] = build_context(self.store, planned, self.artifacts)
            self.executor.share(name, context)
        return name

    # -- in ----------------------------------------------------------------------------------------------------------

    def _take(self, report: ShardReport) -> None:
        flight = self._flights.pop(report.shard)
        if report.environment_error is not None:
            raise RunError(
                f"the machine failed in mid-run: {report.environment_error}. "
                "What is done is kept; mend it and run the same command again."
            )
        if report.died is not None:
            # Ctrl-C reaches a terminal's whole process group: such a death says nothing about a unit.
            if not self.stopped:
                self._bury(flight, report.died)
            return
        damaged = False
        for claimed, result in zip(flight.units, report.results, strict=True):
            unit_context = {"unit": claimed.planned.key}
            if isinstance(result, UnitFailure):
                damaged |= result.kind == "artifact"
                log.warning(
                    "%s failed: %s: %s", label(claimed.planned), result.kind, result.message, extra=unit_context
                )
            else:
                log.info("%s done in %.3f s", label(claimed.planned), result.seconds, extra=unit_context)
                self._backlog.learn(claimed.planned, result.seconds)
            self._finish(flight, claimed, result, report)
        if damaged:
            self._flush()
            self._mend(flight)

    def _finish(self, flight: _Flight, claimed: Claimed, result: Any, report: ShardReport) -> None:
        unit = claimed.planned.unit
        start, stop = (unit.start, unit.stop) if isinstance(unit, EmbedUnit) else (0, 0)
        self._finished.append(
            Finished(
                unit_id=claimed.unit_id,
                epoch=claimed.epoch,
                result=result,
                embedding=claimed.planned.embedding.digest if claimed.planned.embedding else None,
                start=start,
                stop=stop,
                embedding_sha256=flight.embedding_sha256,
                alone=len(flight.units) == 1,
                worker=report.worker,
                host=report.host,
                pid=report.pid,
                started_at=report.started_at,
            )
        )

    def _bury(self, flight: _Flight, reason: str) -> None:
        """A worker died: halve the shard until the unit that kills is alone."""
        log.warning("a worker died with %d units: %s", len(flight.units), reason)
        if len(flight.units) > 1:
            half = len(flight.units) // 2
            self._submit(flight.units[:half])
            self._submit(flight.units[half:])
            return
        claimed = flight.units[0]
        self._backlog.suspect(claimed.planned.key)
        failure = UnitFailure(key=claimed.planned.key, kind="worker_death", message=reason)
        self._finish(flight, claimed, failure, ShardReport(shard=flight.shard.id))

    def _mend(self, flight: _Flight) -> None:
        """An embedding cannot be read: its damaged slices are embedded again before its units are claimed again."""
        self.executor.forget(flight.shard.context)
        self._contexts.pop(flight.shard.context, None)
        embedding = flight.units[0].planned.embedding
        assert embedding is not None
        self._reopen(embedding.digest, verify=True)

    def _check_artifacts(self) -> None:
        """Files that went missing between runs are embedded again, if any unit still needs them."""
        with self.store.read() as session:
            needed = {
                row["embedding"]
                for row in session.rows(
                    """SELECT DISTINCT u.embedding FROM sweep_unit su JOIN unit u ON u.id = su.unit_id
                       WHERE su.sweep_id = :s AND u.kind = 'evaluate' AND u.embedding IS NOT NULL
                         AND u.state IN ('ready', 'running', 'invalidated')""",
                    s=self.sweep_id,
                )
            }
        for embedding in sorted(needed):
            self._reopen(embedding, verify=False)

    def _reopen(self, embedding: str, *, verify: bool) -> None:
        store = ArtifactStore(self.artifacts)
        with self.store.read() as session:
            slices = session.rows("SELECT unit_id, start, stop, sha256 FROM artifact WHERE embedding = :e", e=embedding)
        lost = []
        for row in slices:
            name = slice_name(embedding, row["start"], row["stop"])
            try:
                if verify:
                    store.read(name, row["sha256"])
                elif not store.exists(name):
                    raise ArtifactError(f"{name} is missing")
            except ArtifactError as error:
                lost.append((row["unit_id"], str(error)))
        if not lost:
            return
        with self.store.begin() as session:
            for unit_id, reason in lost:
                log.warning("embedding again: %s", reason)
                reopened = session.run(
                    "UPDATE unit SET state = 'ready', reason = :r WHERE id = :u AND state = 'done'", u=unit_id, r=reason
                )
                if reopened.rowcount:
                    registry.put_event(session, "artifact_lost", reason, coordinator_id=self.id, unit_id=unit_id)

    # -- down --------------------------------------------------------------------------------------------------------

    def _flush_if_due(self) -> None:
        due = time.monotonic() - self._flushed_at >= self.pace.flush_seconds
        if len(self._finished) >= self.pace.flush_units or (self._finished and due):
            self._flush()

    def _flush(self) -> None:
        """Commit what came back; it leaves the buffer only when it is down."""
        self._flushed_at = time.monotonic()
        if self._finished:
            with self.store.begin() as session:
                moved = results.record(session, self.id, self._finished, environment_id=self.environment_id)
            if moved.get("late"):
                log.info("%d late results of claims no longer held: no-op", moved["late"])
            self._finished = []
        with self.store.read() as session:
            self._counts = claims.counts(session, self.sweep_id)
        if self.progress is not None:
            self.progress.update(self._counts)

    def _beat(self) -> None:
        while not self._ended.wait(self.pace.lease / 3):
            try:
                with self.store.begin() as session:
                    claims.beat(session, self.id, lease=self.pace.lease)
            except OrchestratorError as error:
                log.warning("a heartbeat failed: %s", error)

    def _end(self, failed: bool) -> None:
        """Keep what is nearly done, hand the rest back, write the end down; works after an error too."""
        until = time.monotonic() + self.pace.grace
        try:
            while self.stopped and self._flights and time.monotonic() < until:
                for report in self.executor.wait(0.1):
                    self._take(report)
            self._flush()
            with self.store.begin() as session:
                handed_back = claims.release(session, self.id)
                self._counts = claims.counts(session, self.sweep_id)
                claims.end(session, self.id, 4 if failed else exit_code(self._counts, stopped=self.stopped))
            if handed_back:
                log.info("handed %d units back", handed_back)
        except OrchestratorError as error:
            if not failed:
                raise
            log.error("could not hand units back, their leases will run out: %s", error)
