"""A random walk over the queue, on both databases, beside a small model of what each unit must be.

The model knows no SQL and none of `orchestrator.queue`'s rules; after each step the whole database must agree with it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestrator.errors import RunError
from orchestrator.queue import TRANSITIONS, State
from orchestrator.repair import Repair
from orchestrator.store import Session, Store, claims, open_store, registry, results
from orchestrator.store import tables as t
from orchestrator.store.results import Finished
from workers.units import EmbedResult, EvaluateResult, UnitFailure

LEASE = 3600.0
#: Strikes of a kind that end a unit, and the state they end it in; None: it is never the unit's fault.
STRIKES: dict[str, tuple[str, int, str] | None] = {
    "exception": ("failures", 3, "failed"),
    "user_error": ("failures", 1, "failed"),
    "worker_death": ("deaths", 3, "quarantined"),
    "timeout": ("deaths", 3, "quarantined"),
    "out_of_memory": ("ooms", 2, "quarantined"),
    "artifact": None,
    "node_loss": None,
}
#: Kinds that count against a unit only when it was alone in its shard.
WHEN_ALONE = {"worker_death", "timeout", "out_of_memory"}
#: Steps by rule, over all examples of both databases.
WALKED: Counter[str] = Counter()


@dataclass(eq=False)
class Unit:
    """What the model knows of a unit."""

    id: int
    key: str
    kind: str = "evaluate"
    waits: bool = True
    state: str = "ready"
    epoch: int = 0
    holder: str | None = None
    #: `live`, `over` (ran out), `ended` (by another's hand); None when nobody works on it.
    lease: str | None = None
    strikes: Counter[str] = field(default_factory=Counter)
    #: The number that its stored result shows; None without a stored result.
    result: int | None = None
    #: The number of its last stored result, which outlives an invalidation.
    last: int | None = None
    divergences: int = 0
    #: (epoch, coordinator, outcome) of every attempt.
    attempts: Counter[tuple[int, str, str]] = field(default_factory=Counter)

    def leave(self, state: str) -> None:
        self.state, self.lease = state, None

    def by_hand(self, state: str) -> None:
        self.leave(state)
        self.strikes.clear()


@dataclass(frozen=True)
class Claim:
    """A claim that someone once got."""

    unit: Unit
    epoch: int
    who: str


class Queue(RuleBasedStateMachine):
    """Coordinators of two sweeps that share units: one slice, four evaluations, one unit that is skipped."""

    def __init__(self, store: Store, folder: Path) -> None:
        super().__init__()
        self.store, self.folder = store, folder
        # Names of its own: other walks went over the same database.
        self.host, self.embedding = uuid4().hex, uuid4().hex * 2
        #: Sweep of each coordinator; those that ended; those whose process is gone.
        self.coordinators: dict[str, int] = {}
        self.ended: set[str] = set()
        self.crashed: set[str] = set()
        self.claims: list[Claim] = []
        self.touched_by_hand = False
        with store.begin() as session:
            self.environment_id = registry.put_environment(session, {})
            self.units = [
                self._enlist(session, kind="embed"),
                self._enlist(session, waits=False),
                self._enlist(session),
                # One that has a strike left of each kind, or short walks would see few units given up.
                self._enlist(session, strikes=Counter(failures=2, deaths=2, ooms=1)),
                self._enlist(session),
                self._enlist(session, state="skipped"),
            ]
            orders = (self.units, [self.units[i] for i in (3, 0, 2, 1)])
            self.sweeps = {self._put_sweep(session, order): order for order in orders}
        self.before = {unit.id: (unit.state, 0) for unit in self.units}
        for sweep in self.sweeps:
            self._register(sweep)

    def _enlist(self, session: Session, **facts: Any) -> Unit:
        unit = Unit(id=0, key=f"u1:{uuid4().hex}", **facts)
        row: dict[str, Any] = {"key": unit.key, "kind": unit.kind, "spec": "{}", "config": "c", "state": unit.state}
        row |= dict(n_failures=unit.strikes["failures"], n_deaths=unit.strikes["deaths"], n_ooms=unit.strikes["ooms"])
        embedding = self.embedding if unit.kind == "embed" or unit.waits else None
        session.insert(t.unit, [{**row, "embedding": embedding, "twin": False, "privileged": False}])
        unit.id = session.one("SELECT id FROM unit WHERE key = :k", k=unit.key)
        return unit

    def _put_sweep(self, session: Session, order: list[Unit]) -> int:
        found = registry.put_sweep(session, uuid4().hex, {}, reference=None, margin=1.0)
        rows = [{"sweep_id": found, "position": i, "unit_id": unit.id} for i, unit in enumerate(order)]
        session.insert(t.sweep_unit, rows)
        return found

    # -- the model's own view --------------------------------------------------------------------------------------

    def held_by(self, who: str) -> list[Unit]:
        return [unit for unit in self.units if unit.state == "running" and unit.holder == who]

    def at_work(self) -> set[str]:
        return {unit.holder or "" for unit in self.units if unit.state == "running"}

    def is_held(self, claim: Claim) -> bool:
        return (claim.unit.state, claim.unit.epoch, claim.unit.holder) == ("running", claim.epoch, claim.who)

    def claimable(self, sweep: int, who: str) -> list[Unit]:
        embedded = self.units[0].state == "done"
        return [
            unit
            for unit in self.sweeps[sweep]
            if (
                unit.state in ("ready", "invalidated")
                or (unit.state == "running" and unit.lease != "live" and unit.holder != who)
            )
            and (unit.kind == "embed" or not unit.waits or embedded)
        ]

    def pick(self, data: st.DataObject, of: Any) -> Any:
        """One of these, in an order that does not depend on random names."""
        return data.draw(st.sampled_from(list(of)))

    # -- coordinators ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.coordinators) < 5)
    @rule(sweep=st.integers(0, 1))
    def register(self, sweep: int) -> None:
        self._register(list(self.sweeps)[sweep])
        WALKED["register"] += 1

    def _register(self, sweep: int) -> str:
        who = str(uuid4())
        self.coordinators[who] = sweep
        with self.store.begin() as session:
            claims.register(session, who, sweep, self.host)
        return who

    @rule(data=st.data(), limit=st.integers(1, 4))
    def claim(self, data: st.DataObject, limit: int) -> None:
        self._claim(self.pick(data, self.coordinators), limit)
        WALKED["claim"] += 1

    def _claim(self, who: str, limit: int) -> list[Claim]:
        sweep = self.coordinators[who]
        if who in self.ended:
            with pytest.raises(RunError, match="took this sweep over"), self.store.begin() as session:
                claims.claim(session, sweep, who, limit=limit, lease=LEASE)
            return []
        with self.store.begin() as session:
            rows = claims.claim(session, sweep, who, limit=limit, lease=LEASE)
        expected = self.claimable(sweep, who)[:limit]
        assert [(row["id"], row["key"], row["kind"], row["epoch"]) for row in rows] == [
            (unit.id, unit.key, unit.kind, unit.epoch + 1) for unit in expected
        ]
        assert [(row["position"], row["n_deaths"], row["n_ooms"]) for row in rows] == [
            (self.sweeps[sweep].index(unit), unit.strikes["deaths"], unit.strikes["ooms"]) for unit in expected
        ]
        for unit in expected:
            if unit.state == "running":
                unit.attempts[unit.epoch, unit.holder or "", "lost"] += 1
            unit.state, unit.epoch, unit.holder, unit.lease = "running", unit.epoch + 1, who, "live"
        made = [Claim(unit, unit.epoch, who) for unit in expected]
        self.claims += made
        return made

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        who = self.pick(data, self.coordinators)
        if who in self.ended:
            with pytest.raises(RunError, match="took this sweep over"), self.store.begin() as session:
                claims.beat(session, who, lease=LEASE)
        else:
            with self.store.begin() as session:
                assert claims.beat(session, who, lease=LEASE) == len(self.held_by(who))
            for unit in self.held_by(who):
                unit.lease = "live"
        WALKED["beat"] += 1

    @precondition(lambda self: any(unit.lease == "live" for unit in self.units))
    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        unit = self.pick(data, [unit for unit in self.units if unit.lease == "live"])
        with self.store.begin() as session:
            session.run(f"UPDATE unit SET lease_expires = {session.now} WHERE id = :u", u=unit.id)
        unit.lease = "over"
        WALKED["lease runs out"] += 1

    @precondition(lambda self: self.at_work() - self.crashed)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        who = self.pick(data, [who for who in self.coordinators if who in self.at_work() - self.crashed])
        with self.store.begin() as session:
            session.run("UPDATE coordinator SET process_started = 1 WHERE id = :c", c=who)
        self.crashed.add(who)
        WALKED["crash"] += 1

    @precondition(lambda self: self.at_work() & self.crashed)
    @rule()
    def notice_crashes(self) -> None:
        orphans = [unit for who in self.crashed for unit in self.held_by(who)]
        with self.store.begin() as session:
            assert claims.expire_dead(session, "elsewhere") == 0
            assert claims.expire_dead(session, self.host) == sum(unit.lease != "ended" for unit in orphans)
        for unit in orphans:
            unit.lease = "ended"
        WALKED["notice crashes"] += 1

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        self._take_over(self.pick(data, self.coordinators))
        WALKED["take over"] += 1

    def _take_over(self, who: str) -> str:
        sweep = self.coordinators[who]
        others = [other for other, its in self.coordinators.items() if its == sweep and other != who]
        others = [other for other in others if other not in self.ended]
        with self.store.begin() as session:
            assert claims.take_over(session, sweep, who) == sum(bool(self.held_by(other)) for other in others)
        for other in others:
            for unit in self.held_by(other):
                unit.lease = "ended"
        self.ended.update(others)
        return who

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), end=st.booleans())
    def hand_back(self, data: st.DataObject, end: bool) -> None:
        who = self.pick(data, [who for who in self.coordinators if who in self.at_work()])
        mine = self.held_by(who)
        with self.store.begin() as session:
            assert claims.release(session, who) == len(mine)
            if end:
                claims.end(session, who, 3)
                self.ended.add(who)
        for unit in mine:
            unit.attempts[unit.epoch, who, "released"] += 1
            unit.leave("ready")
        WALKED["hand back"] += 1

    # -- results, of claims that are held and of those that were lost long ago ---------------------------------------

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """Of what is held."""
        self._record_some(data, [c for c in self.claims if self.is_held(c)])

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), kind=st.sampled_from(sorted(STRIKES)))
    def fail(self, data: st.DataObject, kind: str) -> None:
        """One that is held and was alone in its shard."""
        claim = self.pick(data, [c for c in self.claims if self.is_held(c)])
        self._record(claim.who, [(claim, kind, 1, True)])

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def record_whatever(self, data: st.DataObject) -> None:
        """Also of what was lost long ago, or is settled."""
        self._record_some(data, self.claims)

    def _record_some(self, data: st.DataObject, of: list[Claim]) -> None:
        who = self.pick(data, dict.fromkeys(claim.who for claim in of))
        mine = [claim for claim in of if claim.who == who]
        batch = data.draw(
            st.lists(
                st.sampled_from(mine), min_size=1, max_size=3, unique_by=lambda claim: (claim.unit.id, claim.epoch)
            )
        )
        kind = st.none() | st.sampled_from(sorted(STRIKES))
        self._record(
            who, [(claim, data.draw(kind), data.draw(st.integers(1, 2)), data.draw(st.booleans())) for claim in batch]
        )

    def _record(self, who: str, batch: list[tuple[Claim, str | None, int, bool]]) -> None:
        sent = [self._finished(*item) for item in batch]
        # What is late is compared with what the same batch brings.
        in_turn = sorted(range(len(batch)), key=lambda i: not self.is_held(batch[i][0]))
        states = {i: self._expect(*batch[i]) for i in in_turn}
        expected = [states[i] for i in range(len(batch))]
        with self.store.begin() as session:
            found = results.record(session, who, sent, environment_id=self.environment_id)
        assert [None if state is None else state.value for state in found] == expected

    def _finished(self, claim: Claim, kind: str | None, number: int, alone: bool) -> Finished:
        key = claim.unit.key
        result: EvaluateResult | EmbedResult | UnitFailure
        if kind is not None:
            result = UnitFailure(key=key, kind=kind, message="m")
        elif claim.unit.kind == "embed":
            result = EmbedResult(key=key, url="file:///x", sha256=str(number) * 64, n_rows=1, dim=1, n_bytes=4)
        else:
            metrics = {"auc": float(number), "fit_seconds": 0.5}
            result = EvaluateResult(key=key, n_train=1, n_validation=1, n_test=1, metrics=metrics)
        return Finished(
            unit_id=claim.unit.id, epoch=claim.epoch, result=result, embedding=self.embedding, stop=1, alone=alone
        )

    def _expect(self, claim: Claim, kind: str | None, number: int, alone: bool) -> str | None:
        """The state that the unit goes to, after the model has gone there; None where nothing may change."""
        unit = claim.unit
        mine = (unit.holder, unit.epoch) == (claim.who, claim.epoch)
        held = self.is_held(claim)
        if kind is None and unit.last not in (None, number) and (held or unit.kind == "evaluate"):
            unit.divergences += 1
        if not held:
            WALKED["record again" if mine else "record late"] += 1
            if not mine:
                unit.attempts[claim.epoch, claim.who, "late"] += 1
            return None
        WALKED["record done" if kind is None else f"record {kind}"] += 1
        unit.attempts[unit.epoch, claim.who, "done" if kind is None else "failed"] += 1
        if kind is None:
            unit.result = unit.last = number
            unit.strikes.clear()
            unit.leave("done")
            return "done"
        unit.leave("ready")
        if (strike := STRIKES[kind]) is not None and (alone or kind not in WHEN_ALONE):
            name, limit, end = strike
            unit.strikes[name] += 1
            if unit.strikes[name] >= limit:
                unit.leave(end)
        return unit.state

    # -- a person's hand, and the disk's -------------------------------------------------------------------------------

    @precondition(lambda self: any(unit.state in ("failed", "quarantined") for unit in self.units))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        unit = self.pick(data, [unit for unit in self.units if unit.state in ("failed", "quarantined")])
        ids = [other.id for other in self.units]
        if data.draw(st.booleans()):  # what is in another state stays whatever is asked
            ids = [unit.id]
        moved = [other for other in self.units if other.id in ids and other.state == unit.state]
        with self.store.begin() as session:
            n = claims.move(session, ids, before=State(unit.state), to=State.READY, reason=None)
        assert n == len(moved)
        for other in moved:
            other.by_hand("ready")
        self.touched_by_hand = True
        WALKED["retry"] += 1

    @precondition(lambda self: any(unit.state == "done" for unit in self.units))
    @rule(data=st.data())
    def invalidate(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from([unit.id for unit in self.units]), min_size=1, unique=True))
        moved = [unit for unit in self.units if unit.id in ids and unit.state == "done"]
        with self.store.begin() as session:
            assert results.invalidate(session, ids, "why") == len(moved)
        for unit in moved:
            unit.by_hand("invalidated")
            unit.result = None
        self.touched_by_hand = True
        WALKED["invalidate"] += 1

    @precondition(lambda self: self.units[0].last is not None)
    @rule()
    def artifact_gets_lost(self) -> None:
        needed = any(unit.waits and unit.state in ("ready", "running", "invalidated") for unit in self.units[1:])
        needed &= self.units[0].state == "done"  # or somebody embeds it again already
        n = Repair(self.store, str(self.folder), str(uuid4())).check(next(iter(self.sweeps)))
        assert n == needed
        if needed:
            self.units[0].leave("ready")
            self.units[0].result = None
            self.touched_by_hand = True
        WALKED["artifact gets lost"] += 1

    # -- what must hold after each step ------------------------------------------------------------------------------

    @invariant()
    def the_database_agrees(self) -> None:
        ids = [unit.id for unit in self.units]
        with self.store.read() as session:
            among, bound = session.among("u", ids)
            rows = session.rows(
                f"""SELECT id, state, epoch, coordinator_id, n_failures, n_deaths, n_ooms, CASE
                        WHEN lease_expires IS NULL THEN NULL WHEN lease_expires = 0 THEN 'ended'
                        WHEN lease_expires <= {session.now} THEN 'over' ELSE 'live' END AS lease
                    FROM unit WHERE id {among} ORDER BY id""",
                **bound,
            )
            found = {row["id"]: row for row in rows}
            metrics = session.rows(f"SELECT unit_id, name, value FROM metric WHERE unit_id {among}", **bound)
            slices = session.rows(f"SELECT unit_id, sha256 FROM artifact WHERE unit_id {among}", **bound)
            attempts = session.rows(
                f"SELECT unit_id, epoch, coordinator_id, outcome FROM attempt WHERE unit_id {among}", **bound
            )
            events = session.rows(f"SELECT unit_id FROM event WHERE kind = 'divergence' AND unit_id {among}", **bound)
            counts = {sweep: claims.counts(session, sweep) for sweep in self.sweeps}
        for unit in self.units:
            row = found.pop(unit.id)
            state, epoch = row["state"], row["epoch"]
            # A unit is in one state, moves only as the table allows, and leaves a final one by hand alone.
            state_before, epoch_before = self.before[unit.id]
            assert epoch >= epoch_before
            if (state, epoch) != (state_before, epoch_before):
                assert State(state) in TRANSITIONS[State(state_before)]
                assert self.touched_by_hand or state_before not in ("done", "failed", "quarantined", "skipped")
            self.before[unit.id] = (state, epoch)
            assert (state, epoch, row["coordinator_id"], row["lease"]) == (
                unit.state,
                unit.epoch,
                unit.holder,
                unit.lease,
            )
            assert (row["n_failures"], row["n_deaths"], row["n_ooms"]) == tuple(
                unit.strikes[name] for name in ("failures", "deaths", "ooms")
            )
            # Every claim is settled once, and only the one that is held is not.
            mine = Counter((a["epoch"], a["coordinator_id"], a["outcome"]) for a in attempts if a["unit_id"] == unit.id)
            assert mine == unit.attempts
            settled = Counter(epoch for epoch, _, outcome in mine.elements() if outcome != "late")
            assert settled == Counter(range(1, unit.epoch + (unit.state != "running")))
            # A result is there if and only if the unit is done, and nobody wrote over it.
            values = {m["name"]: m["value"] for m in metrics if m["unit_id"] == unit.id}
            if unit.kind == "evaluate":
                assert values == ({} if unit.result is None else {"auc": float(unit.result), "fit_seconds": 0.5})
                assert (unit.state == "done") == bool(values)
            else:
                stored = [s["sha256"] for s in slices if s["unit_id"] == unit.id]
                assert stored == ([] if unit.last is None else [str(unit.last) * 64])
            assert sum(event["unit_id"] == unit.id for event in events) == unit.divergences
        assert not found
        for sweep, units in self.sweeps.items():
            assert counts[sweep] == dict(Counter((unit.kind, unit.state) for unit in units))
        self.touched_by_hand = False

    def teardown(self) -> None:
        """No unit is lost: from wherever the walk ended, a run that takes each sweep over brings it to its end."""
        if sys.exc_info()[0] is not None:
            return
        runs = [self._take_over(self._register(sweep)) for sweep in self.sweeps]
        for who in runs:
            while made := self._claim(who, 2):
                self.the_database_agrees()
                self._record(who, [(claim, None, 1, True) for claim in made])
                self.the_database_agrees()
            with self.store.read() as session:
                assert not claims.anything_left(session, self.coordinators[who])
        ended = {unit.state for unit in self.units}
        assert ended <= {"done", "failed", "quarantined", "skipped"} or self.units[0].state in ("failed", "quarantined")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


def test_whatever_happens_no_unit_is_lost_and_no_result_is_written_twice(store: Store, tmp_path: Path) -> None:
    run_state_machine_as_test(
        lambda: Queue(store, tmp_path / "nothing"),  # type: ignore[arg-type]
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )
    sys.stdout.write(f"{WALKED.total()} steps: " + ", ".join(f"{n} {name}" for name, n in WALKED.most_common()) + "\n")
