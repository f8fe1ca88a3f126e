"""A pool of Ray actors, on a local Ray or a cluster. With `orchestrator.cluster` the only importer of ray."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from orchestrator import cluster
from orchestrator.errors import SweepError
from orchestrator.executors.base import Context, Shard, ShardReport, execute
from orchestrator.sweep import Resources, StageResources

#: Shards at an actor: one computes, one waits, so that it never idles.
IN_FLIGHT = 2


class _Worker:
    """The actor: computes shards one after the other."""

    def run(self, shard: Shard, context: Context) -> ShardReport:
        return execute(shard, context)


@dataclass(frozen=True, eq=False)
class _Sent:
    """A shard with its context's place in Ray's object store: the context's name may mean another one by now."""

    shard: Shard
    context: Any
    #: Whether it was at an actor that died: from then on an actor has it and nothing else.
    alone: bool = False


@dataclass(eq=False)
class _Seat:
    """One place in the pool and the actor that sits there now."""

    stage: str
    actor: Any = None
    #: Shards by the reference to their report, in the order in which the actor does them.
    pending: dict[Any, _Sent] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return len(self.pending) < IN_FLIGHT and not any(sent.alone for sent in self.pending.values())


class RayExecutor:
    """Runs shards in actors, as many per stage as `workers`; an actor that died is replaced."""

    def __init__(self, workers: int | None, *, address: str | None, resources: Resources) -> None:
        self._owned = cluster.connect(address, workers=workers)
        self._total: dict[str, float] = ray.cluster_resources()
        self.workers = workers or max(1, int(self._total.get("CPU", 1)))
        self._resources = resources
        self._contexts: dict[str, Any] = {}
        self._seats: list[_Seat] = []
        self._queue: deque[_Sent] = deque()
        for stage in Resources.model_fields:
            if not self._fits([_Seat(stage=stage)]):
                cluster.disconnect(owned=self._owned)
                wanted = ", ".join(f"{amount:g} {name}" for name, amount in self._reserved(stage).items())
                there = ", ".join(f"{self._total.get(name, 0):g} {name}" for name in self._reserved(stage))
                raise SweepError(
                    f"resources.{stage}: a worker wants {wanted}, Ray has {there}; lower it, raise --workers, "
                    "or join a larger cluster."
                )

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
        """Reports of the shards that ended, those of dead actors among them."""
        self._dispatch()
        refs = {ref: seat for seat in self._seats for ref in seat.pending}
        if not refs:
            return []
        ready, _ = ray.wait(list(refs), num_returns=1, timeout=timeout)
        if ready and len(refs) > 1:
            rest = [ref for ref in refs if ref not in ready]
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        reports = [report for ref in ready for report in self._collect(refs[ref], ref)]
        self._dispatch()
        return reports

    def close(self) -> None:
        """End the actors, and Ray too where this executor started it."""
        for seat in self._seats:
            if seat.actor is not None:
                ray.kill(seat.actor)
        self._seats.clear()
        cluster.disconnect(owned=self._owned)

    def _collect(self, seat: _Seat, ref: Any) -> list[ShardReport]:
        if ref not in seat.pending:
            return []
        try:
            report = ray.get(ref)
        except RayTaskError as error:
            # `execute` returns errors as data: this one is of the machinery, such as a result that cannot be pickled.
            report = _dead(seat.pending[ref], f"{type(error.cause).__name__ if error.cause else 'error'}: {error}")
        except RayError as error:
            return self._clear(seat, f"{type(error).__name__}: {str(error).partition(chr(10))[0] or 'no message'}")
        del seat.pending[ref]
        return [report]

    def _clear(self, seat: _Seat, reason: str) -> list[ShardReport]:
        """An actor died: a shard that was alone there is to blame, of several each goes out again alone.

        The first without a report need not be the one: a report can be lost when the next shard kills at once (seen).
        """
        pending, seat.pending, seat.actor = seat.pending, {}, None
        reports: list[ShardReport] = []
        unfinished: list[_Sent] = []
        for ref, sent in pending.items():
            try:
                reports.append(ray.get(ref))
            except RayError:
                unfinished.append(sent)
        if len(unfinished) == 1:
            return [*reports, _dead(unfinished[0], reason)]
        self._queue.extendleft(replace(sent, alone=True) for sent in reversed(unfinished))
        return reports

    def _dispatch(self) -> None:
        waiting: deque[_Sent] = deque()
        while self._queue:
            sent = self._queue.popleft()
            seat = self._free_seat(sent.shard.kind, alone=sent.alone)
            if seat is None:
                waiting.append(sent)
                continue
            seat.actor = seat.actor or self._actor(sent.shard.kind)
            seat.pending[seat.actor.run.remote(sent.shard, sent.context)] = sent
        self._queue = waiting

    def _free_seat(self, stage: str, *, alone: bool) -> _Seat | None:
        seats = [seat for seat in self._seats if seat.stage == stage]
        idle = next((seat for seat in seats if not seat.pending), None)
        if idle is not None:
            return idle
        if self._make_room(stage):
            self._seats.append(_Seat(stage=stage))
            return self._seats[-1]
        return None if alone else next((seat for seat in seats if seat.has_room), None)

    def _make_room(self, stage: str) -> bool:
        """Whether another actor of this stage fits; idle ones of the other stage give their place back for it."""
        while not self._fits([*self._seats, _Seat(stage=stage)]):
            idle = next((seat for seat in self._seats if seat.stage != stage and not seat.pending), None)
            if idle is None:
                return False
            if idle.actor is not None:
                ray.kill(idle.actor)
            self._seats.remove(idle)
        return True

    def _fits(self, seats: Sequence[_Seat]) -> bool:
        """Whether actors of these seats can live at the same time: one that cannot would wait for ever."""
        wanted: Counter[str] = Counter()
        for seat in seats:
            wanted.update(self._reserved(seat.stage))
        return len(seats) <= self.workers and all(n <= self._total.get(name, 0) for name, n in wanted.items())

    def _reserved(self, stage: str) -> dict[str, float]:
        """What an actor of a stage reserves, by Ray's names."""
        wanted: StageResources = getattr(self._resources, stage)
        given = {"CPU": wanted.num_cpus, "GPU": wanted.num_gpus, "memory": wanted.memory or 0}
        return {name: amount for name, amount in given.items() if amount}

    def _actor(self, stage: str) -> Any:
        wanted: StageResources = getattr(self._resources, stage)
        options: dict[str, Any] = {
            "num_cpus": wanted.num_cpus,
            "num_gpus": wanted.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if wanted.memory is not None:
            options["memory"] = wanted.memory
        return ray.remote(_Worker).options(**options).remote()


def _dead(sent: _Sent, reason: str) -> ShardReport:
    return ShardReport(shard=sent.shard.id, died=reason)
