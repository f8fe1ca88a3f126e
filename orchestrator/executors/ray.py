"""A pool of Ray actors, on a local Ray or a cluster. With `orchestrator.cluster` the only importer of ray."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from orchestrator import cluster
from orchestrator.errors import RunError, SweepError
from orchestrator.executors.base import IN_FLIGHT, Context, Death, Shard, ShardReport, execute
from orchestrator.executors.memory import limit_memory
from workers.units import UnitFailure

if TYPE_CHECKING:  # workers import this module, and need no sweep files
    from orchestrator.sweep import Resources, StageResources

log = logging.getLogger("roadtest.executor")

#: Seconds between two looks at the cluster's nodes.
WATCH_SECONDS = 2.0
#: Seconds between two complaints that no node is left.
WARN_SECONDS = 30.0
#: Seconds that an actor may take to start, and a report to arrive after its shard's time is up.
GRACE_SECONDS = 60.0


class _Worker:
    """The actor: computes shards one after the other."""

    def __init__(self, memory: int | None) -> None:
        if memory is not None:
            limit_memory(memory)

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def run(self, shard: Shard, context: Context) -> ShardReport:
        return execute(shard, context)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What actors differ in."""

    stage: str
    more_memory: bool = False


@dataclass(frozen=True, eq=False)
class _Sent:
    """A shard with its context's place in Ray's object store: the context's name may mean another one by now."""

    shard: Shard
    context: Any
    #: Whether it was at an actor that died: from then on an actor has it and nothing else.
    alone: bool = False

    @property
    def kind(self) -> _Kind:
        return _Kind(stage=self.shard.stage, more_memory=self.shard.more_memory)


@dataclass(eq=False)
class _Seat:
    """One place in the pool and the actor that sits there."""

    kind: _Kind
    actor: Any
    #: Reference to the node that it is on, then that node.
    asked: Any
    node: str | None = None
    #: Shards by the reference to their report, in the order in which the actor does them.
    pending: dict[Any, _Sent] = field(default_factory=dict)
    #: When its first shard got there or came first.
    since: float = field(default_factory=time.monotonic)

    @property
    def has_room(self) -> bool:
        return len(self.pending) < IN_FLIGHT and not any(sent.alone for sent in self.pending.values())

    @property
    def overdue(self) -> bool:
        """Whether its first shard should have been reported as hung by the worker itself long ago."""
        first = next(iter(self.pending.values()), None)
        return first is not None and time.monotonic() - self.since > first.shard.seconds + GRACE_SECONDS

    def took(self, ref: Any) -> None:
        """A report came: the next shard is the first."""
        del self.pending[ref]
        self.since = time.monotonic()


class RayExecutor:
    """Runs shards in actors, as many as `workers`; one that died is replaced, one on a lost node elsewhere."""

    def __init__(self, connection: cluster.Connection, *, workers: int | None, resources: Resources) -> None:
        self._connection = connection
        self._daemons = cluster.own_daemons() if connection.wait() else []
        self._wanted_workers = workers
        self._resources = resources
        self._contexts: dict[str, Any] = {}
        self._seats: list[_Seat] = []
        self._queue: deque[_Sent] = deque()
        #: What each living node offers, by Ray's names.
        self._nodes: dict[str, dict[str, float]] = _living_nodes()
        self._watched_at = time.monotonic()
        self._warned_at = -WARN_SECONDS
        for stage in type(resources).model_fields:
            if not self._fits([_Kind(stage=stage)]):
                connection.close()
                wanted, no_node = self._reserved(_Kind(stage=stage)), dict[str, float]()
                largest = max(self._nodes.values(), key=lambda node: node.get("CPU", 0), default=no_node)
                raise SweepError(
                    f"resources.{stage}: a worker wants {_amounts(wanted, wanted)}, the largest node of Ray has "
                    f"{_amounts(wanted, largest)}; lower it, raise --workers, or join a larger cluster."
                )

    @property
    def workers(self) -> int:
        """Actors that compute at the same time: as asked for, else the cluster's CPUs of now."""
        return self._wanted_workers or max(1, int(sum(node.get("CPU", 0) for node in self._nodes.values())))

    def share(self, name: str, context: Context) -> None:
        """Put the context into Ray's object store once."""
        self._contexts[name] = ray.put(context)

    def forget(self, name: str) -> None:
        """Let the object go."""
        self._contexts.pop(name, None)

    def submit(self, shard: Shard) -> None:
        """Queue the shard; it starts where an actor has room."""
        self._queue.append(_Sent(shard, self._contexts[shard.context]))
        self._dispatch()

    def wait(self, timeout: float) -> list[ShardReport]:
        """Reports of the shards that ended, those of dead, hung and lost actors among them."""
        if not all(map(_lives, self._daemons)):
            # Before Ray notices: it then ends this process with code 1, or leaves it without a node for ever (seen).
            raise RunError(
                "the local Ray is gone: a daemon of it was killed, perhaps for want of memory. "
                "What is done is kept; run the same command again."
            )
        reports = self._watch() if time.monotonic() - self._watched_at > WATCH_SECONDS else []
        self._dispatch()
        refs = {ref: seat for seat in self._seats for ref in seat.pending}
        if reports or not refs:
            if not reports:
                time.sleep(timeout)
            return reports
        ready, _ = ray.wait(list(refs), num_returns=1, timeout=timeout)
        if ready and len(refs) > 1:
            rest = [ref for ref in refs if ref not in ready]
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        reports = [report for ref in ready for report in self._collect(refs[ref], ref)]
        self._dispatch()
        return reports

    def rest(self) -> None:
        """Give the CPUs of idle actors back: another run on this cluster may wait for them with what is left."""
        for seat in [seat for seat in self._seats if not seat.pending]:
            self._remove(seat)

    def close(self) -> None:
        """End the actors, and leave Ray."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats.clear()
        self._connection.close()

    # -- what comes back -----------------------------------------------------------------------------------------------

    def _collect(self, seat: _Seat, ref: Any) -> list[ShardReport]:
        if ref not in seat.pending:
            return []
        try:
            report: ShardReport = ray.get(ref)
        except RayTaskError as error:
            # `execute` returns errors as data: this one is of the machinery, such as a result that cannot be pickled.
            message = f"{type(error.cause).__name__ if error.cause else 'error'}: {_first_line(error)}"
            report = _dead(seat.pending[ref], Death(kind="worker_death", message=message, traceback=str(error)))
        except RayError as error:
            return list(self._vacate(seat, self._cause(seat, error)))
        seat.took(ref)
        if seat.kind.more_memory or _spoiled(report):
            # Whoever needs more memory gets an actor in which nobody was; what waited behind it is not to blame.
            self._queue.extendleft(reversed(seat.pending.values()))
            self._remove(seat)
        return [report]

    def _cause(self, seat: _Seat, error: RayError) -> Death:
        """Why an actor is gone: by its unit, or with its node."""
        message = f"{type(error).__name__}: {_first_line(error)}"
        if isinstance(error, OutOfMemoryError):
            return Death(kind="out_of_memory", message=message, traceback=str(error))
        # An unavailable actor may or may not have run its shard: its node cannot be reached.
        lost = isinstance(error, ActorUnavailableError) or "node has died" in str(error) or "node died" in str(error)
        self._nodes = _living_nodes()  # or its place would be given to an actor that can never start
        if not lost and seat.node is not None:
            lost = seat.node not in self._nodes
        return Death(kind="node_loss" if lost else "worker_death", message=message, traceback=str(error))

    def _vacate(self, seat: _Seat, death: Death) -> Iterator[ShardReport]:
        """An actor is gone with all its shards.

        If it died, one that was alone there is to blame, of several each goes out again alone: the first without a
        report need not be the one, a report can be lost when the next shard kills at once (seen).
        """
        unfinished: list[_Sent] = []
        for ref, sent in seat.pending.items():
            try:
                ready, _ = ray.wait([ref], timeout=0)
                if not ready:
                    raise RayError
                yield ray.get(ref)
            except RayError:
                unfinished.append(sent)
        self._remove(seat)
        if death.kind == "node_loss" or len(unfinished) == 1:
            yield from (_dead(sent, death) for sent in unfinished)
        else:
            self._queue.extendleft(replace(sent, alone=True) for sent in reversed(unfinished))

    def _watch(self) -> list[ShardReport]:
        """Look after nodes that are gone and actors that do not answer: Ray may take a minute to say so, or never."""
        now, before = time.monotonic(), self._watched_at
        self._watched_at = now
        if now - before > 5 * WATCH_SECONDS:  # this process was stopped, or waited for its database: nobody else hung
            for seat in self._seats:
                seat.since += now - before
        self._nodes = _living_nodes()
        reports: list[ShardReport] = []
        for seat in list(self._seats):
            if seat.node is None and ray.wait([seat.asked], timeout=0)[0]:
                try:
                    seat.node = ray.get(seat.asked)
                except RayError as error:
                    reports += self._vacate(seat, self._cause(seat, error))
                    continue
            if seat.node is not None and seat.node not in self._nodes:
                death = Death(kind="node_loss", message=f"node {seat.node[:12]} left the cluster")
            elif seat.overdue and seat.node is None:
                death = Death(kind="node_loss", message="the worker did not start: its node cannot be reached")
            elif seat.overdue:  # Ray would have dropped the node by now: the unit holds the interpreter
                death = Death(kind="timeout", message="no answer long after its time")
            else:
                continue
            log.warning("%s; %d shards go elsewhere", death.message, len(seat.pending))
            reports += self._vacate(seat, death)
        if self._queue and not self._seats and time.monotonic() - self._warned_at > WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("no living node has room for a worker: waiting for one to join")
        # An actor whose place went with a node before it started would wait for ever, and its shards with it.
        for seat in [seat for seat in reversed(self._seats) if seat.node is None]:
            if not self._fits([placed.kind for placed in self._seats]):
                self._queue.extendleft(reversed(seat.pending.values()))
                self._remove(seat)
        return reports

    def _remove(self, seat: _Seat) -> None:
        seat.pending = {}
        ray.kill(seat.actor)  # no harm if it is dead
        self._seats.remove(seat)

    # -- what goes out -------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        waiting: deque[_Sent] = deque()
        while self._queue:
            sent = self._queue.popleft()
            seat = self._free_seat(sent.kind, alone=sent.alone)
            if seat is None:
                waiting.append(sent)
                continue
            if not seat.pending:
                seat.since = time.monotonic()
            seat.pending[seat.actor.run.remote(sent.shard, sent.context)] = sent
        self._queue = waiting

    def _free_seat(self, kind: _Kind, *, alone: bool) -> _Seat | None:
        if kind.more_memory and not self._fits([kind]):
            kind = replace(kind, more_memory=False)  # no node has twice as much: what there is, with nothing beside it
        seats = [seat for seat in self._seats if seat.kind == kind]
        idle = next((seat for seat in seats if not seat.pending), None)
        if idle is not None:
            return idle
        if self._make_room(kind):
            self._seats.append(self._seat(kind))
            return self._seats[-1]
        return None if alone else next((seat for seat in seats if seat.has_room), None)

    def _make_room(self, kind: _Kind) -> bool:
        """Whether another actor of this kind fits; idle ones of other kinds give their place back for it."""
        while not self._fits([*(seat.kind for seat in self._seats), kind]):
            idle = next((seat for seat in self._seats if seat.kind != kind and not seat.pending), None)
            if idle is None:
                return False
            self._remove(idle)
        return True

    def _fits(self, kinds: Sequence[_Kind]) -> bool:
        """Whether such actors can live at the same time: one that cannot would wait for ever."""
        if len(kinds) > self.workers:
            return False
        free = [dict(node) for node in self._nodes.values()]
        for wanted in sorted((self._reserved(kind) for kind in kinds), key=lambda r: sorted(r.items()), reverse=True):
            place = next((node for node in free if all(node.get(name, 0) >= n for name, n in wanted.items())), None)
            if place is None:
                return False
            place.update({name: place[name] - n for name, n in wanted.items()})
        return True

    def _reserved(self, kind: _Kind) -> dict[str, float]:
        """What an actor reserves, by Ray's names."""
        wanted: StageResources = getattr(self._resources, kind.stage)
        given = {"CPU": wanted.num_cpus, "GPU": wanted.num_gpus, "memory": self._memory(kind) or 0.0}
        return {name: amount for name, amount in given.items() if amount}

    def _memory(self, kind: _Kind) -> int | None:
        wanted: StageResources = getattr(self._resources, kind.stage)
        return wanted.memory and wanted.memory * (2 if kind.more_memory else 1)

    def _seat(self, kind: _Kind) -> _Seat:
        wanted: StageResources = getattr(self._resources, kind.stage)
        memory = self._memory(kind)
        options: dict[str, Any] = {
            "num_cpus": wanted.num_cpus,
            "num_gpus": wanted.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if memory is not None:
            options["memory"] = memory
        actor = ray.remote(_Worker).options(**options).remote(memory)
        return _Seat(kind=kind, actor=actor, asked=actor.node.remote())


def _lives(process: psutil.Process) -> bool:
    try:  # a child that nobody has waited for keeps its number: `is_running`, which is slow, has nothing to add
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _spoiled(report: ShardReport) -> bool:
    """Whether the actor has to go: a thread hangs in it, or what a unit leaked is still there."""
    if report.death is not None:
        return report.death.kind == "timeout"
    return any(isinstance(result, UnitFailure) and result.kind == "out_of_memory" for result in report.results)


def _dead(sent: _Sent, death: Death) -> ShardReport:
    return ShardReport(shard=sent.shard.id, death=death)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or "no message"


def _amounts(names: Mapping[str, float], of: Mapping[str, float]) -> str:
    return ", ".join(f"{of.get(name, 0):g} {name}" for name in names)


def _living_nodes() -> dict[str, dict[str, float]]:
    """What each node that is alive offers, by its id: Ray goes on listing the dead ones."""
    return {node["NodeID"]: dict(node["Resources"]) for node in ray.nodes() if node["Alive"]}
