"""The loop: claim units, dispatch shards, record what comes back, until nothing is left or someone says stop."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from orchestrator.contexts import build_context
from orchestrator.errors import OrchestratorError, RunError
from orchestrator.executors.base import IN_FLIGHT, Context, Death, Executor, Shard, ShardReport
from orchestrator.plan import Plan, PlannedUnit
from orchestrator.queue import State, exit_code
from orchestrator.repair import Repair
from orchestrator.shards import Backlog, Claimed, Pace, context_name, label, measured_seconds
from orchestrator.store import Session, Store, claims, guards, results
from orchestrator.store.results import Finished
from workers.units import EmbedUnit, UnitFailure

log = logging.getLogger("roadtest.coordinator")

#: Seconds between two looks at what other coordinators left, at first and at most.
OTHERS_SECONDS = (0.2, 3.0)
#: Seconds after which the units are counted again instead of adding up what this coordinator did.
COUNT_SECONDS = 5.0


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for cyclic garbage rarely: a coordinator makes none, and looking took a fifth of its time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


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
    #: Whether to end other coordinators of this sweep first.
    takeover: bool = False
    make_context: Callable[[Store, PlannedUnit, str], tuple[Context, str | None]] = build_context
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        # A plain flag: a signal handler that sets an Event can meet its lock in the hands of the thread it interrupts.
        self._stop = False
        self._ended = threading.Event()
        self._backlog = Backlog(self.pace)
        self._repair = Repair(self.store, self.artifacts, self.id)
        self._flights: dict[int, _Flight] = {}
        self._finished: list[tuple[Claimed, Finished]] = []
        self._flushed_at = time.monotonic()
        self._next_shard = 0
        #: Position in the sweep from which on there may be something to claim.
        self._after = 0
        #: Contexts that the executor knows, each with the sha256 of its embedding.
        self._contexts: dict[str, str | None] = {}
        #: First shard that went out after an embedding was looked at for damage.
        self._mended: dict[str, int] = {}
        #: Until when there is nothing to claim: to look for it passes the whole sweep.
        self._nothing_until = 0.0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._counted_at = 0.0
        self._counting_takes = 0.0

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
        self.store.transact(self._register)
        failed = True
        heart = threading.Thread(target=self._beat, name="roadtest-heart", daemon=True)
        heart.start()
        try:
            self._repair.check(self.sweep_id)
            self._count()
            with _rare_collections():
                self._loop()
            failed = False
        finally:
            self._ended.set()
            heart.join()
            self._end(failed)
        return dict(self._counts)

    def _register(self, session: Session) -> None:
        claims.register(session, self.id, self.sweep_id, socket.gethostname())
        if self.takeover:
            taken = claims.take_over(session, self.sweep_id, self.id)
            log.info("took over from %d coordinators", taken)
        freed = claims.expire_dead(session, socket.gethostname())
        if freed:
            log.info("reclaiming %d units of dead coordinators", freed)
        guards.require_one_host(session, socket.gethostname())
        self._backlog.expect(measured_seconds(session, [b.benchmark.fingerprint for b in self.plan.benchmarks]))

    def _loop(self) -> None:
        nap = OTHERS_SECONDS[0]
        while not self.stopped:
            self._fill()
            for report in self.executor.wait(0.1):
                self._take(report)
            self._flush_if_due()
            if self._flights or self._backlog:
                nap = OTHERS_SECONDS[0]
                continue
            self._flush()
            if self._fill():
                continue
            # What others hold may fail or run out and be ours then.
            if not self.store.query(lambda session: claims.anything_left(session, self.sweep_id)):
                return
            self.executor.rest()
            time.sleep(nap)
            nap = min(2 * nap, OTHERS_SECONDS[1])

    # -- out ---------------------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Keep every worker busy; returns whether anything is out."""
        while len(self._flights) < IN_FLIGHT * self.executor.workers:
            if self._backlog.starved:
                self._claim()
            left = self._number(State.READY, State.INVALIDATED)
            units = self._backlog.next_units(workers=self.executor.workers, idle=not self._flights, left=left)
            if not units:
                break
            self._submit(units)
        return bool(self._flights)

    def _claim(self) -> None:
        """Claim the next units, from where the last claim ended; once more from the start when nothing is there."""
        began, after = time.monotonic(), self._after
        if began < self._nothing_until:
            return
        if not self._claim_after(after) and not (after and self._claim_after(0)):
            now = time.monotonic()
            self._nothing_until = now + max(OTHERS_SECONDS[0], 20 * (now - began))

    def _claim_after(self, after: int) -> int:
        left = self._number(State.READY, State.INVALIDATED)
        limit = self._backlog.appetite(workers=self.executor.workers, left=left)
        tries = 0

        def work(session: Session) -> list[Mapping[str, Any]]:
            nonlocal tries
            tries += 1
            mine = claims.forgotten(session, self.id, self._known()) if tries > 1 else []
            return [
                *mine,
                *claims.claim(session, self.sweep_id, self.id, limit=limit, lease=self.pace.lease, after=after),
            ]

        rows = self.store.transact(work)
        self._after = rows[-1]["position"] + 1 if rows else 0
        self._backlog.extend(
            Claimed(
                unit_id=row["id"],
                epoch=row["epoch"],
                planned=self._planned(row),
                n_deaths=row["n_deaths"],
                n_ooms=row["n_ooms"],
            )
            for row in rows
        )
        for row in rows:
            self._counts[row["kind"], "ready"] -= 1
            self._counts[row["kind"], "running"] += 1
        return len(rows)

    def _planned(self, row: Mapping[str, Any]) -> PlannedUnit:
        if row["position"] < len(self.plan.units):
            planned: PlannedUnit = self.plan.units[row["position"]]
            if planned.key == row["key"]:
                return planned
        raise RunError(
            f"sweep {self.plan.sweep.name!r} was given another specification while this run worked on it; "
            "what is done is kept: run the file again that is meant."
        )

    def _known(self) -> set[int]:
        """Units that this coordinator knows it holds."""
        held = {claimed.unit_id for flight in self._flights.values() for claimed in flight.units}
        return held | {claimed.unit_id for claimed, _ in self._finished} | self._backlog.unit_ids

    def _submit(self, units: tuple[Claimed, ...]) -> None:
        planned = units[0].planned
        context = self._share(planned)
        stage = getattr(self.plan.sweep.resources, planned.kind)
        shard = Shard(
            id=self._next_shard,
            stage=planned.kind,
            context=context,
            units=tuple(claimed.planned.unit for claimed in units),
            seconds=self._backlog.patience(units, stage.timeout),
            more_memory=units[0].n_ooms > 0,
        )
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
            context, self._contexts[name] = self.make_context(self.store, planned, self.artifacts)
            self.executor.share(name, context)
        return name

    # -- back --------------------------------------------------------------------------------------------------------

    def _take(self, report: ShardReport) -> None:
        flight = self._flights.pop(report.shard)
        if report.environment_error is not None:
            raise RunError(
                f"a worker on {report.host} failed in mid-run: {report.environment_error}. "
                "What is done is kept; mend it and run the same command again."
            )
        if report.death is not None:
            # Ctrl-C reaches a terminal's whole process group: such a death says nothing about a unit.
            if not self.stopped:
                self._bury(flight, report, report.death)
            return
        damaged, seconds = False, []
        for claimed, result in zip(flight.units, report.results, strict=True):
            if isinstance(result, UnitFailure):
                damaged |= result.kind == "artifact"
                self._say_failed(claimed, result)
                if result.kind == "out_of_memory" and len(flight.units) > 1:
                    self._backlog.extend([replace(claimed, alone=True)])
                    continue
            else:
                seconds.append(result.seconds)
            self._finish(flight, claimed, result, report)
        if seconds:
            self._backlog.learn(flight.units, sum(seconds) / len(seconds))
        log.info(
            "%s: %d units done on %s", label(flight.units[0].planned), len(flight.units), report.host,
            extra={"unit": flight.units[0].planned.key},
        )  # fmt: skip
        if damaged:
            self._flush()
            self._mend(flight)

    def _say_failed(self, claimed: Claimed, failure: UnitFailure) -> None:
        extra = {"unit": claimed.planned.key}
        log.warning("%s failed: %s: %s", label(claimed.planned), failure.kind, failure.message, extra=extra)

    def _finish(self, flight: _Flight, claimed: Claimed, result: Any, report: ShardReport) -> None:
        unit = claimed.planned.unit
        start, stop = (unit.start, unit.stop) if isinstance(unit, EmbedUnit) else (0, 0)
        finished = Finished(
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
        self._finished.append((claimed, finished))

    def _bury(self, flight: _Flight, report: ShardReport, death: Death) -> None:
        """A worker is gone: halve the shard until the unit that takes workers down is alone; no unit loses a node."""
        log.warning("%d units went down with their worker: %s: %s", len(flight.units), death.kind, death.message)
        if len(flight.units) > 1 and death.kind != "node_loss":
            half = len(flight.units) // 2
            self._submit(flight.units[:half])
            self._submit(flight.units[half:])
            return
        for claimed in flight.units:
            failure = UnitFailure(
                key=claimed.planned.key, kind=death.kind, message=death.message, traceback=death.traceback
            )
            self._finish(flight, claimed, failure, report)

    def _mend(self, flight: _Flight) -> None:
        """An embedding cannot be read: its damaged slices are embedded again before its units are claimed again."""
        planned = flight.units[0].planned.embedding
        embedding = planned.stored if planned else None
        assert embedding is not None
        if flight.shard.id < self._mended.get(embedding.digest, 0):
            return  # it went out before the last look and says nothing about what is there now
        self._mended[embedding.digest] = self._next_shard
        self.executor.forget(flight.shard.context)
        self._contexts.pop(flight.shard.context, None)
        self._repair.reopen(embedding.digest, verify=True)
        self._after = 0

    # -- down --------------------------------------------------------------------------------------------------------

    def _flush_if_due(self) -> None:
        due = time.monotonic() - self._flushed_at >= self.pace.flush_seconds
        if len(self._finished) >= self.pace.flush_units or (self._finished and due):
            self._flush()
        elif due and time.monotonic() - self._counted_at > max(COUNT_SECONDS, 20 * self._counting_takes):
            self._count()

    def _flush(self) -> None:
        """Commit what came back; it leaves the buffer only when it is down."""
        self._flushed_at = time.monotonic()
        if self._finished:
            items = [finished for _, finished in self._finished]
            states = self.store.transact(
                lambda session: results.record(session, self.id, items, environment_id=self.environment_id)
            )
            for (claimed, _), state in zip(self._finished, states, strict=True):
                if state is not None:
                    self._counts[claimed.planned.kind, "running"] -= 1
                    self._counts[claimed.planned.kind, state.value] += 1
            if late := states.count(None):
                log.info("%d late results of claims no longer held: no-op", late)
            self._finished = []
            self._nothing_until = 0.0  # what was recorded may be ready again, or others have waited for it
        if self.progress is not None:
            self.progress.update(self._counts)

    def _count(self) -> None:
        """Count the units afresh: other coordinators work too."""
        began = time.monotonic()
        self._counts = Counter(self.store.query(lambda session: claims.counts(session, self.sweep_id)))
        self._counted_at = time.monotonic()
        self._counting_takes = self._counted_at - began
        if self.progress is not None:
            self.progress.update(self._counts)

    def _number(self, *states: State) -> int:
        return sum(n for (_, state), n in self._counts.items() if state in states)

    def _beat(self) -> None:
        while not self._ended.wait(self.pace.lease / 3):
            try:
                self.store.transact(lambda session: claims.beat(session, self.id, lease=self.pace.lease))
            except OrchestratorError as error:
                log.warning("a heartbeat failed: %s", error)

    def _end(self, failed: bool) -> None:
        """Keep what is nearly done, hand the rest back, write the end down; works after an error too."""
        until = time.monotonic() + self.pace.grace
        late_error: RunError | None = None
        try:
            while self.stopped and self._flights and late_error is None and time.monotonic() < until:
                try:
                    for report in self.executor.wait(0.1):
                        self._take(report)
                except RunError as error:  # of a worker's machine: what is done is committed all the same
                    late_error = error
            self._flush()
            handed_back = self.store.transact(lambda session: claims.release(session, self.id))
            self._count()
            code = 4 if failed or late_error else exit_code(self._counts, stopped=self.stopped)
            self.store.transact(lambda session: claims.end(session, self.id, code))
            if handed_back:
                log.info("handed %d units back", handed_back)
        except OrchestratorError as error:
            if not failed:
                raise
            log.error("could not hand units back, their leases will run out: %s", error)
        if late_error is not None:
            raise late_error
