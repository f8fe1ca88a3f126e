"""How are claimed units cut into shards? By context and router, a few seconds of work each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.executors.base import IN_FLIGHT
from orchestrator.plan import PlannedUnit
from orchestrator.store import Session
from workers.units import TOGETHER, EvaluateUnit, MeasureUnit

#: What units of like duration agree in: kind, benchmark or embedding, router or encoder.
DurationKey = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a coordinator paces itself; none of it may change a result."""

    #: Seconds until an unbeaten claim runs out.
    lease: float = 60.0
    #: Seconds of work in a shard: splits that are in one share searches and batches.
    shard_seconds: float = 4.0
    #: Seconds of work up to which a shard is made larger so that `TOGETHER` units are in it: fewer cost more each.
    together_seconds: float = 20.0
    #: Seconds of work below which a shard is not made smaller for idle workers' sake: what units share is lost then.
    least_seconds: float = 1.0
    #: Units in a shard at most; also its size while durations are unknown, if smaller than that.
    shard_units: int = 500
    #: Units in a shard of unknown duration.
    first_units: int = TOGETHER
    #: Seconds and units after which results are committed.
    flush_seconds: float = 0.5
    flush_units: int = 2000
    #: Seconds that an interrupted run waits for shards that are nearly done.
    grace: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A unit that this coordinator holds."""

    unit_id: int
    epoch: int
    planned: PlannedUnit
    #: Workers that died with it alone, and attempts that ran out of memory, in earlier claims.
    n_deaths: int = 0
    n_ooms: int = 0
    #: It ran out of memory in company: who of them was to blame shows when each is alone.
    alone: bool = False


#: Times the expected duration that a shard may take beyond the timeout of one unit.
PATIENCE = 10


class Backlog:
    """Claimed units that wait for a worker, in the order of the plan."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        #: Units that may share a shard, by what they agree in.
        self._families: dict[tuple[str, ...], deque[Claimed]] = {}
        #: Units that once took their worker down travel alone; those that ran out of memory with no other shard out.
        self._suspects: deque[Claimed] = deque()
        self._hungry: deque[Claimed] = deque()
        self._n = 0
        self._seconds: dict[DurationKey, float] = {}
        #: Seconds of a unit of late, whatever it was.
        self._recent: float | None = None

    def __len__(self) -> int:
        return self._n

    @property
    def unit_ids(self) -> set[int]:
        """Units that wait here."""
        return {
            claimed.unit_id for units in (*self._families.values(), self._suspects, self._hungry) for claimed in units
        }

    @property
    def starved(self) -> bool:
        """Whether nothing is left that may go out beside other shards."""
        return not self._families and not self._suspects

    def extend(self, units: Iterable[Claimed]) -> None:
        """Add units that were claimed."""
        for claimed in units:
            if claimed.n_ooms:
                self._hungry.append(claimed)
            elif claimed.n_deaths or claimed.alone:
                self._suspects.append(claimed)
            else:
                self._families.setdefault(_family(claimed.planned), deque()).append(claimed)
            self._n += 1

    def expect(self, seconds: Mapping[DurationKey, float]) -> None:
        """Take durations of earlier runs for those that this one has not measured."""
        self._seconds = {**seconds, **self._seconds}

    def learn(self, units: Sequence[Claimed], seconds: float) -> None:
        """Take in how long each unit of a shard took on average."""
        key = _duration_key(units[0].planned)
        self._seconds[key] = 0.5 * self._seconds.get(key, seconds) + 0.5 * seconds
        self._recent = seconds if self._recent is None else 0.7 * self._recent + 0.3 * seconds

    def patience(self, units: Sequence[Claimed], timeout: float) -> float:
        """Seconds after which a shard of these units counts as hung, when one unit may take `timeout`."""
        expected = self._seconds.get(_duration_key(units[0].planned), timeout)
        return timeout + (len(units) - 1) * min(PATIENCE * expected, timeout)

    def next_units(self, *, workers: int, idle: bool, left: int = 0) -> tuple[Claimed, ...]:
        """Cut the next shard off: units of one context and router, about `shard_seconds` of work; empty if none may go.

        Args:
            workers: Workers that compute at the same time.
            idle: Whether no shard is out.
            left: Units that nobody has claimed yet.
        """
        if self._families:
            family, units = next(iter(self._families.items()))
            size = evenly(len(units), self._size(units[0].planned, workers=workers, waiting=self._n + left))
            shard = tuple(units.popleft() for _ in range(size))
            if not units:
                del self._families[family]
        elif self._suspects:
            shard = (self._suspects.popleft(),)
        elif self._hungry and idle:
            shard = (self._hungry.popleft(),)
        else:
            return ()
        self._n -= len(shard)
        return shard

    def appetite(self, *, workers: int, left: int) -> int:
        """Units to claim at once: two shards for each place at a worker, at most half of what is left to all.

        But enough for one shard in each place that is evaluated at once: what is claimed bit by bit shares little.
        """
        shard = self._pace.first_units if self._recent is None else usual_size(self._pace, self._recent)
        places = IN_FLIGHT * workers
        return max(places * min(shard, TOGETHER), min(left // 2, 2 * places * shard))

    def _size(self, planned: PlannedUnit, *, workers: int, waiting: int) -> int:
        if planned.kind == "embed":
            return 1
        return shard_size(self._pace, self._seconds.get(_duration_key(planned)), waiting=waiting, workers=workers)


def usual_size(pace: Pace, seconds: float) -> int:
    """Units of a shard while there are many, when a unit takes so long."""
    seconds = max(seconds, 1e-6)
    together = min(TOGETHER, int(pace.together_seconds / seconds))
    return min(max(math.ceil(pace.shard_seconds / seconds), together), pace.shard_units)


def shard_size(pace: Pace, seconds: float | None, *, waiting: int, workers: int) -> int:
    """Units of a shard.

    Args:
        pace: How long and how large a shard may be.
        seconds: That a unit takes, if known.
        waiting: Units that wait, claimed or not and of whatever kind: with many, a shard need not be small for others
            to have work.
        workers: Workers that compute at the same time.
    """
    share = math.ceil(waiting / workers)  # shrinks towards the end, so that no worker idles
    if seconds is None:
        size = min(pace.first_units, share)
    else:
        least = int(pace.least_seconds / max(seconds, 1e-6))
        size = min(usual_size(pace, seconds), max(share, least))
    return max(1, min(size, pace.shard_units))


def evenly(n: int, size: int) -> int:
    """Units of the first of the fewest shards of at most `size` that hold `n` of one family, all about as large.

    Above `TOGETHER`, whole groups of it: a rest of a few would share little among them.
    """
    if size > TOGETHER:
        size -= size % TOGETHER
    even = math.ceil(n / math.ceil(n / size))
    return min(n, math.ceil(even / TOGETHER) * TOGETHER) if even > TOGETHER else even


def measured_seconds(session: Session, fingerprints: Sequence[str]) -> dict[DurationKey, float]:
    """Seconds per evaluation by benchmark and router so far, of the slowest parameters.

    Args:
        session: Database.
        fingerprints: Of the benchmarks that are asked about.
    """
    among, bound = session.among("f", fingerprints)
    found: dict[DurationKey, float] = {}
    for row in session.rows(
        f"""SELECT b.fingerprint, u.router, avg(u.seconds) AS seconds FROM unit u
            JOIN benchmark b ON b.id = u.benchmark_id
            WHERE u.state = 'done' AND u.kind = 'evaluate' AND b.fingerprint {among}
            GROUP BY b.fingerprint, u.router, u.params""",
        **bound,
    ):
        key = ("evaluate", row["fingerprint"], row["router"])
        found[key] = max(found.get(key, 0.0), row["seconds"] or 0.0)
    return found


def _family(planned: PlannedUnit) -> tuple[str, ...]:
    """Units of one shard agree in this."""
    unit = planned.unit
    if isinstance(unit, EvaluateUnit):
        return (context_name(planned), unit.router, unit.formulation)
    if isinstance(unit, MeasureUnit):
        return (context_name(planned), "measure", unit.key)  # long, and of uneven length: each alone
    return (context_name(planned),)


def context_name(planned: PlannedUnit) -> str:
    """Name of the context that a unit's shard needs: benchmark, embedding and data, or the embedding alone."""
    embedding = planned.embedding.digest if planned.embedding else "none"
    if planned.evaluated is None:
        return embedding
    return "|".join([planned.evaluated.benchmark.fingerprint, embedding, *planned.data])


def _duration_key(planned: PlannedUnit) -> tuple[str, str, str]:
    unit = planned.unit
    if isinstance(unit, EvaluateUnit):
        assert planned.evaluated is not None
        return ("evaluate", planned.evaluated.benchmark.fingerprint, unit.router)
    if isinstance(unit, MeasureUnit):
        return ("measure", unit.measure, unit.key)
    return ("embed", unit.embedding, unit.encoder)


def label(planned: PlannedUnit) -> str:
    """A unit in words, for logs."""
    if planned.evaluated is None:
        return f"embed {planned.encoder}"
    what = ", ".join(str(part) for part in (planned.encoder or "no encoder", planned.router) if part)
    if isinstance(planned.unit, MeasureUnit):
        return f"{planned.evaluated.name}, {what}, {planned.unit.measure}"
    return f"{planned.evaluated.name}, {what}, split {planned.spec['split']}"
