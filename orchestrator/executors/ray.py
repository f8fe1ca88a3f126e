"""A pool of Ray actors, on a local Ray or a cluster. With `orchestrator.cluster` the only importer of ray."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from orchestrator import cluster
from orchestrator.executors.base import Context, Shard, ShardReport, execute
from orchestrator.sweep import Resources, StageResources

#: Shards at an actor: one computes, one waits, so that it never idles.
IN_FLIGHT = 2


class _Worker:
    """The actor: computes shards one after the other."""

    def run(self, shard: Shard, context: Context) -> ShardReport:
        return execute(shard, context)


@dataclass(eq=False)
class _Seat:
    """One place in the pool and the actor that sits there now."""

    stage: str
    actor: Any = None
    pending: dict[Any, int] = field(default_factory=dict)


class RayExecutor:
    """Runs shards in actors, as many per stage as `workers`; an actor that died is replaced."""

    def __init__(self, workers: int | None, *, address: str | None, resources: Resources) -> None:
        self._owned = cluster.connect(address, workers=workers)
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._resources = resources
        self._contexts: dict[str, Any] = {}
        self._seats: list[_Seat] = []
        self._queue: deque[Shard] = deque()

    def share(self, name: str, context: Context) -> None:
        """Put the context into Ray's object store once."""
        self._contexts[name] = ray.put(context)

    def forget(self, name: str) -> None:
        """Let the object go."""
        self._contexts.pop(name, None)

    def submit(self, shard: Shard) -> None:
        """Queue the shard; it starts where an actor has room."""
        self._queue.append(shard)
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
        shard = seat.pending.pop(ref, None)
        if shard is None:
            return []
        try:
            return [ray.get(ref)]
        except RayTaskError as error:
            # `execute` returns errors as data: this one is of the machinery, such as an unpicklable class.
            return [ShardReport(shard=shard, died=f"{type(error.cause).__name__ if error.cause else 'error'}: {error}")]
        except RayError as error:
            seat.actor = None
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            others = [*seat.pending.values()]
            seat.pending.clear()
            return [ShardReport(shard=lost, died=reason) for lost in (shard, *others)]

    def _dispatch(self) -> None:
        waiting: deque[Shard] = deque()
        while self._queue:
            shard = self._queue.popleft()
            seat = self._free_seat(shard.kind)
            if seat is None:
                waiting.append(shard)
                continue
            seat.actor = seat.actor or self._actor(shard.kind)
            seat.pending[seat.actor.run.remote(shard, self._contexts[shard.context])] = shard.id
        self._queue = waiting

    def _free_seat(self, stage: str) -> _Seat | None:
        seats = [seat for seat in self._seats if seat.stage == stage]
        idle = min(seats, key=lambda seat: len(seat.pending), default=None)
        if idle is not None and not idle.pending:
            return idle
        if len(seats) < self.workers and self._make_room(stage):
            self._seats.append(_Seat(stage=stage))
            return self._seats[-1]
        return idle if idle is not None and len(idle.pending) < IN_FLIGHT else None

    def _make_room(self, stage: str) -> bool:
        """Actors of the other stage give their place back when idle: stages share the CPUs."""
        others = [seat for seat in self._seats if seat.stage != stage]
        if len(self._seats) < self.workers:
            return True
        for seat in others:
            if not seat.pending:
                if seat.actor is not None:
                    ray.kill(seat.actor)
                self._seats.remove(seat)
                return True
        return False

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
