"""How are claimed units cut into shards? By context and router, about a second of work each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.plan import PlannedUnit
from orchestrator.store import Session
from workers.units import EvaluateUnit

#: What units of like duration agree in: kind, benchmark or embedding, router or encoder.
DurationKey = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a coordinator paces itself; none of it may change a result."""

    #: Seconds until an unbeaten claim runs out.
    lease: float = 60.0
    #: Seconds of work in a shard.
    shard_seconds: float = 1.0
    #: Units in a shard at most; also its size while durations are unknown, if smaller than that.
    shard_units: int = 256
    #: Units in a shard of unknown duration.
    first_units: int = 5
    #: Seconds and units after which results are committed.
    flush_seconds: float = 0.5
    flush_units: int = 200
    #: Seconds that an interrupted run waits for shards that are nearly done.
    grace: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A unit that this coordinator holds."""

    unit_id: int
    epoch: int
    planned: PlannedUnit


class Backlog:
    """Claimed units that wait for a worker, in the order of the plan."""

    def __init__(self, pace: Pace, *, workers: int) -> None:
        self._pace = pace
        self._workers = workers
        self._units: deque[Claimed] = deque()
        self._seconds: dict[DurationKey, float] = {}
        #: Units that were alone when their worker died: from then on they travel alone.
        self._suspects: set[str] = set()

    def __len__(self) -> int:
        return len(self._units)

    def extend(self, units: Iterable[Claimed]) -> None:
        """Add units that were claimed."""
        self._units.extend(units)

    def expect(self, seconds: Mapping[DurationKey, float]) -> None:
        """Take durations of earlier runs for those that this one has not measured."""
        self._seconds = {**seconds, **self._seconds}

    def learn(self, planned: PlannedUnit, seconds: float) -> None:
        """Take in how long a unit took."""
        key = _duration_key(planned)
        self._seconds[key] = 0.7 * self._seconds.get(key, seconds) + 0.3 * seconds

    def suspect(self, key: str) -> None:
        """From now on this unit travels alone."""
        self._suspects.add(key)

    def next_units(self) -> tuple[Claimed, ...]:
        """Cut the next shard off the backlog: units of one context and router, about `shard_seconds` of work."""
        first = self._units.popleft()
        if first.planned.key in self._suspects:
            return (first,)
        group = [first]
        wanted = self._size(first.planned)
        while len(group) < wanted and self._units:
            candidate = self._units[0].planned
            if _family(candidate) != _family(first.planned) or candidate.key in self._suspects:
                break
            group.append(self._units.popleft())
        return tuple(group)

    def _size(self, planned: PlannedUnit) -> int:
        seconds = self._seconds.get(_duration_key(planned))
        size = self._pace.first_units if seconds is None else math.ceil(self._pace.shard_seconds / max(seconds, 1e-6))
        alike = 1 + sum(1 for claimed in self._units if _family(claimed.planned) == _family(planned))
        share = math.ceil(alike / self._workers)  # shrinks towards the end, so that no worker idles
        return 1 if planned.kind == "embed" else max(1, min(size, share, self._pace.shard_units))


def measured_seconds(session: Session) -> dict[DurationKey, float]:
    """Seconds per evaluation by benchmark and router, of the slowest parameters, from the results in the database."""
    found: dict[DurationKey, float] = {}
    for row in session.rows(
        """SELECT b.fingerprint, u.router, avg(u.seconds) AS seconds FROM unit u
           JOIN benchmark b ON b.id = u.benchmark_id WHERE u.state = 'done' AND u.kind = 'evaluate'
           GROUP BY b.fingerprint, u.router, u.params"""
    ):
        key = ("evaluate", row["fingerprint"], row["router"])
        found[key] = max(found.get(key, 0.0), row["seconds"] or 0.0)
    return found


def _family(planned: PlannedUnit) -> tuple[str, ...]:
    """Units of one shard agree in this."""
    unit = planned.unit
    if isinstance(unit, EvaluateUnit):
        return (context_name(planned), unit.router, unit.formulation)
    return (context_name(planned),)


def context_name(planned: PlannedUnit) -> str:
    """Name of the context that a unit's shard needs: benchmark and embedding, or the embedding alone."""
    embedding = planned.embedding.digest if planned.embedding else "none"
    return f"{planned.evaluated.benchmark.fingerprint}|{embedding}" if planned.evaluated else embedding


def _duration_key(planned: PlannedUnit) -> tuple[str, str, str]:
    unit = planned.unit
    if isinstance(unit, EvaluateUnit):
        assert planned.evaluated is not None
        return ("evaluate", planned.evaluated.benchmark.fingerprint, unit.router)
    return ("embed", unit.embedding, unit.encoder)


def label(planned: PlannedUnit) -> str:
    """A unit in words, for logs."""
    if planned.evaluated is None:
        return f"embed {planned.encoder}"
    return (
        f"{planned.evaluated.name}, {planned.encoder or 'no encoder'}, {planned.router}, split {planned.spec['split']}"
    )
