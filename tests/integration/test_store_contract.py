"""What every database must do: one class, run against SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from orchestrator.catalog import EvaluatedBenchmark, NamedEncoder
from orchestrator.enlist import enlist, source_digest
from orchestrator.errors import QueryError, RunError, TransitionError
from orchestrator.explain import explain_all
from orchestrator.plan import Plan, PlannedUnit, plan_sweep
from orchestrator.planned import Units
from orchestrator.queue import State
from orchestrator.store import Store, claims, open_store, plans, reading, registry, results
from orchestrator.store.results import Finished
from orchestrator.sweep import Sweep
from workers.benchmarks.base import Benchmark, Model
from workers.encoders.base import make_encoder
from workers.splits import split_benchmark
from workers.units import PREFERENCES, EmbedResult, EvaluateResult, FrontierPoint, UnitFailure

HOST = "here"
N, M = 40, 40


def benchmark() -> Benchmark:
    """40 queries and 40 models, so that model codes need both of their digits."""
    rng = np.random.default_rng(3)
    return Benchmark.build(
        name="b",
        queries=[f"q{i:02d}" for i in range(N)],
        prompts=[f"prompt {i}" for i in range(N)],
        tasks=["odd" if i % 2 else "even" for i in range(N)],
        models=[Model(name=f"m{j:02d}") for j in range(M)],
        S=rng.random((N, M)),
        C=rng.random((N, M)),
    )


KNN3: dict[str, Any] = {"name": "knn@3", "use": "knn", "k": 3}


def make_plan(found: Benchmark, **keys: Any) -> Plan:
    data = {"name": "s", "benchmarks": ["b"], "encoders": ["hash-ngrams"], "routers": ["zero-router", KNN3], "seeds": 3}
    sweep = Sweep.from_dict({**data, **keys})
    encoders = [NamedEncoder(name=e.name, entry=e, encoder=make_encoder(e.target, e.params)) for e in sweep.encoders]
    return plan_sweep(sweep, [EvaluatedBenchmark(name="b", task=None, benchmark=found, source=found)], encoders)


def answer(found: Benchmark, key: str, seed: int, *, auc: float = 50.0, **metrics: float | None) -> EvaluateResult:
    """A made-up result: at the first preference every query gets the model of its own position, then the next ones."""
    split = split_benchmark(found, seed)
    chosen = {name: (np.arange(len(split.test)) + seed + i) % M for i, name in enumerate(PREFERENCES)}
    return EvaluateResult(
        key=key,
        n_train=len(split.train),
        n_validation=len(split.validation),
        n_test=len(split.test),
        metrics={
            "auc": auc,
            "auc_path": auc - 1,
            "auc_rel": None,
            "utility_mean": auc / 2,
            "fit_seconds": 0.1,
            **metrics,
        },
        frontier=(
            FrontierPoint(cost=0.25, score=0.5, price_of_cost=None, on_hull=True),
            FrontierPoint(cost=0.5, score=0.75, price_of_cost=0.125, on_hull=False),
        ),
        decisions=chosen,
        bootstrap=np.array([1.0, np.nan]),
        seconds=0.01,
    )


@dataclass(eq=False)
class Bench:
    """A store with one enlisted sweep, and short ways of working on it."""

    store: Store
    plan: Plan
    sweep_id: int
    environment_id: int

    @property
    def found(self) -> Benchmark:
        return self.plan.benchmarks[0].benchmark

    def coordinator(self, host: str = HOST) -> str:
        name = str(uuid4())
        with self.store.begin() as session:
            claims.register(session, name, self.sweep_id, host)
        return name

    def claim(self, who: str, *, limit: int = 1000, lease: float = 60.0) -> list[Any]:
        with self.store.begin() as session:
            return claims.claim(session, self.sweep_id, who, limit=limit, lease=lease)

    def record(self, who: str, finished: Sequence[Finished]) -> dict[str, int]:
        with self.store.begin() as session:
            states = results.record(session, who, finished, environment_id=self.environment_id)
        return dict(Counter("late" if state is None else state.value for state in states))

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with self.store.read() as session:
            return [dict(row) for row in session.rows(sql, **values)]

    def finished(self, row: Any, result: Any = None, **facts: Any) -> Finished:
        """What a worker sends back for a claimed row."""
        planned = next(unit for unit in self.plan.units if unit.key == row["key"])
        if planned.kind == "embed" and result is None:
            start, stop = planned.unit.start, planned.unit.stop  # type: ignore[union-attr]
            result = EmbedResult(
                key=row["key"], url="file:///x", sha256="c" * 64, n_rows=stop - start, dim=4, n_bytes=100, seconds=0.1
            )
            assert planned.embedding is not None
            facts = {"embedding": planned.embedding.digest, "start": start, "stop": stop, **facts}
        result = result or answer(self.found, row["key"], planned.spec["split"])
        return Finished(
            unit_id=row["id"], epoch=row["epoch"], result=result, worker="w", host=HOST, pid=1, started_at=1.0, **facts
        )

    def work_off(self, who: str, auc: Any = lambda planned: 50.0) -> None:
        """Claim and finish everything there is."""
        while rows := self.claim(who):
            done = []
            for row in rows:
                planned = next(unit for unit in self.plan.units if unit.key == row["key"])
                made = None
                if planned.kind == "evaluate":
                    made = answer(self.found, row["key"], planned.spec["split"], auc=auc(planned))
                done.append(self.finished(row, made))
            self.record(who, done)

    def reasons(self) -> list[str]:
        """What `plan --explain` says of each unit."""
        with self.store.read() as session:
            return [name for _, name, _ in explain_all(session, self.plan)]


def open_bench(url: str, **keys: Any) -> Bench:
    store = open_store(url)
    plan = make_plan(benchmark(), **keys)
    sweep_id = enlist(store, plan)
    with store.begin() as session:
        environment_id = registry.put_environment(session, {"python": "3"})
    return Bench(store, plan, sweep_id, environment_id)


class Watched(Units):
    """A plan's units, each announced before it is made for a whole walk."""

    def __init__(self, plan: Plan, announce: Callable[[int], None]) -> None:
        super().__init__(plan.units.groups)
        self._announce = announce

    def __iter__(self) -> Iterator[PlannedUnit]:
        for position, unit in enumerate(super().__iter__()):
            self._announce(position)
            yield unit


def enlist_at_once(url: str, plans: Sequence[Plan]) -> None:
    """Enlist every plan in a thread of its own; fail with what went wrong in one of them."""
    start = threading.Barrier(len(plans))

    def work(plan: Plan) -> None:
        store = open_store(url)
        try:
            start.wait()
            enlist(store, plan)
        finally:
            store.close()

    with ThreadPoolExecutor(len(plans)) as threads:
        for done in [threads.submit(work, plan) for plan in plans]:
            done.result()


def listed(bench: Bench, sweep: str = "s") -> list[tuple[Any, ...]]:
    """What the database says are a sweep's units: position, key and names."""
    rows = bench.rows(
        """SELECT su.position, u.key, su.benchmark, su.task, su.encoder, su.router, su.twin_of
           FROM sweep_unit su JOIN unit u ON u.id = su.unit_id JOIN sweep s ON s.id = su.sweep_id
           WHERE s.name = :s ORDER BY su.position""",
        s=sweep,
    )
    return [tuple(row.values()) for row in rows]


def wanted(plan: Plan) -> list[tuple[Any, ...]]:
    """What it should say."""
    return [
        (i, unit.key, unit.evaluated and unit.evaluated.name, None, unit.encoder, unit.router, unit.twin_of)
        for i, unit in enumerate(plan.units)
    ]


@pytest.fixture
def bench(url: str) -> Iterator[Bench]:
    opened = open_bench(url)
    yield opened
    opened.store.close()


def views(bench: Bench) -> dict[str, pd.DataFrame]:
    """All views without what is observed, in an order that does not depend on the database."""
    with bench.store.read() as session:
        frames = dict(
            reading.view_frames(session, "s", ("results", "leaderboard", "decisions", "frontier", "progress"))
        )
    for name, frame in frames.items():
        frame = frame.drop(columns=[c for c in ("finished_at", "tuning_seconds") if c in frame])
        for column in ("privileged", "query_blind", "on_hull"):
            if column in frame:
                frame[column] = frame[column].astype(bool)
        frame = frame.astype(object).where(frame.notna(), None)
        frames[name] = frame.sort_values(list(frame.columns), key=lambda c: c.map(str)).reset_index(drop=True)
    return frames


#: Leaves the read-only transaction and writes in one of its own.
ESCAPE = "COMMIT; SET default_transaction_read_only = off; COMMIT; UPDATE unit SET reason = 'got out'; COMMIT"


class TestStoreContract:
    """SQLite and PostgreSQL keep the same promises."""

    def test_enlisting_again_changes_nothing(self, bench: Bench) -> None:
        tables = ("benchmark", "model", "query", "outcome", "split", "test_query", "encoder", "unit", "sweep_unit")
        counts = {name: bench.rows(f"SELECT count(*) AS n FROM {name}") for name in tables}
        assert enlist(bench.store, bench.plan) == bench.sweep_id
        assert {name: bench.rows(f"SELECT count(*) AS n FROM {name}") for name in tables} == counts
        assert counts["outcome"] == [{"n": N * M}]
        assert bench.rows("SELECT * FROM event") == []

    @pytest.mark.parametrize("stretch", [1, 4, 10_000])
    def test_a_sweep_holds_the_units_of_its_last_plan_in_their_order(
        self, bench: Bench, stretch: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestrator.enlist.STRETCH", stretch)
        for keys in (
            {"seeds": 5},
            {"routers": ["oracle", "zero-router", KNN3]},
            {"routers": [{**KNN3, "name": "neighbours", "twin": True}, "zero-router"]},
            {"seeds": 1},
            # One unit under two names.
            {"routers": [KNN3, {**KNN3, "name": "again"}]},
            {},
        ):
            plan = make_plan(benchmark(), **keys)
            assert enlist(bench.store, plan) == bench.sweep_id
            assert listed(bench) == wanted(plan)
            assert bench.rows(f"SELECT name FROM sweep WHERE {plans.UNWRITTEN}") == []

    def test_enlisting_that_was_cut_off_is_finished_by_the_next(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestrator.enlist.STRETCH", 3)
        plan = make_plan(benchmark(), seeds=6)

        def cut(position: int) -> None:
            if position == 8:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            enlist(bench.store, replace(plan, units=Watched(plan, cut)))
        assert len(listed(bench)) < len(plan.units)
        assert bench.rows(f"SELECT name FROM sweep WHERE {plans.UNWRITTEN}") == [{"name": "s"}]
        enlist(bench.store, plan)
        assert listed(bench) == wanted(plan)

    def test_an_unchanged_plan_is_not_written_again(self, bench: Bench) -> None:
        def fail(position: int) -> None:
            raise AssertionError(f"unit {position} was asked for")

        enlist(bench.store, replace(bench.plan, units=Watched(bench.plan, fail)))
        assert listed(bench) == wanted(bench.plan)

    def test_two_that_enlist_one_plan_at_once_both_end_well(
        self, bench: Bench, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestrator.enlist.STRETCH", 7)
        plans = [make_plan(benchmark(), seeds=40) for _ in range(3)]
        enlist_at_once(url, plans)
        assert listed(bench) == wanted(plans[0])
        assert bench.rows("SELECT count(*) AS n FROM unit") == [{"n": len(plans[0].units)}]

    def test_two_sweeps_that_share_units_are_enlisted_at_once(
        self, bench: Bench, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestrator.enlist.STRETCH", 7)
        routers = ["zero-router", KNN3, {"name": "knn@5", "use": "knn", "k": 5}]
        plans = [make_plan(benchmark(), name=f"s{i}", seeds=40, routers=routers[:: 1 - 2 * i]) for i in (0, 1)]
        enlist_at_once(url, plans)
        assert [listed(bench, plan.sweep.name) for plan in plans] == [wanted(plan) for plan in plans]

    def test_who_writes_a_plan_that_was_replaced_meanwhile_stops(
        self, bench: Bench, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestrator.enlist.STRETCH", 3)
        mine, theirs = make_plan(benchmark(), seeds=6), make_plan(benchmark(), seeds=5)

        def replace_it(position: int) -> None:
            if position == 8:
                other = open_store(url)
                enlist(other, theirs)
                other.close()

        with pytest.raises(RunError, match="another specification"):
            enlist(bench.store, replace(mine, units=Watched(mine, replace_it)))
        assert listed(bench) == wanted(theirs)

    def test_a_router_whose_file_changed_is_warned_of_once(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench.work_off(bench.coordinator())
        enlist(bench.store, bench.plan)
        assert bench.rows("SELECT * FROM event WHERE kind = 'source_changed'") == []
        monkeypatch.setattr(
            "orchestrator.enlist.source_digest", lambda name: "0" * 64 if name == "knn" else source_digest(name)
        )
        for _ in range(2):
            enlist(bench.store, bench.plan)
            [event] = bench.rows("SELECT message FROM event WHERE kind = 'source_changed'")
            assert "'knn' changed since 3 results" in event["message"]

    def test_progress_counts_each_unit_of_a_sweep_once(self, bench: Bench) -> None:
        enlist(bench.store, make_plan(benchmark(), name="t", seeds=1, routers=[KNN3, {**KNN3, "name": "again"}]))
        who = bench.coordinator()
        bench.record(who, [bench.finished(bench.claim(who, limit=1)[0])])
        assert len(bench.claim(who, limit=1)) == 1
        rows = bench.rows("SELECT sweep, kind, state, n FROM progress ORDER BY sweep, kind, state")
        assert [tuple(row.values()) for row in rows] == [
            ("s", "embed", "done", 1), ("s", "evaluate", "ready", 5), ("s", "evaluate", "running", 1),
            ("t", "embed", "done", 1), ("t", "evaluate", "ready", 1),
        ]  # fmt: skip
        with bench.store.read() as session:
            own, other = (reading.status(session, name)["coordinators"] for name in ("s", "t"))
        assert [(row["id"], row["units"]) for row in own] == [(who, 1)]
        assert other == []

    def test_a_changed_sweep_is_an_event_and_shares_units(self, bench: Bench) -> None:
        bench.work_off(bench.coordinator())
        enlist(bench.store, make_plan(benchmark(), seeds=4))
        states = Counter(row["state"] for row in bench.rows("SELECT state FROM unit"))
        assert states == {"done": 7, "ready": 2}
        [event] = bench.rows("SELECT kind, detail FROM event")
        assert event["kind"] == "sweep_changed"
        assert '"seeds":3' in event["detail"]

    def test_units_wait_for_their_embedding_and_keep_the_sweeps_order(self, bench: Bench) -> None:
        who = bench.coordinator()
        first = bench.claim(who)
        assert [row["kind"] for row in first] == ["embed", "evaluate", "evaluate", "evaluate"]
        assert [row["key"] for row in first] == [unit.key for unit in bench.plan.units[:4]]
        assert bench.claim(who) == []
        assert bench.record(who, [bench.finished(first[0])]) == {"done": 1}
        assert [row["key"] for row in bench.claim(who)] == [unit.key for unit in bench.plan.units[4:]]

    def test_coordinators_at_once_claim_each_unit_once(self, bench: Bench, url: str) -> None:
        bench.work_off(bench.coordinator())  # the slice, so that nothing waits
        enlist(bench.store, make_plan(benchmark(), seeds=40))
        claimed: list[int] = []
        start = threading.Barrier(4)

        def work() -> None:
            store = open_store(url)
            mine = Bench(store, bench.plan, bench.sweep_id, bench.environment_id)
            who = mine.coordinator()
            start.wait()
            while rows := mine.claim(who, limit=1):
                claimed.extend(row["id"] for row in rows)
            store.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ready = bench.rows("SELECT id FROM unit WHERE state = 'running'")
        assert len(claimed) == 2 * 37
        assert sorted(claimed) == sorted(row["id"] for row in ready)

    def test_leases_run_in_the_databases_time(self, bench: Bench) -> None:
        who = bench.coordinator()
        with bench.store.begin() as session:
            before = session.time()
            claims.claim(session, bench.sweep_id, who, limit=1, lease=100.0)
            after = session.time()
        [row] = bench.rows("SELECT claimed_at, lease_expires FROM unit WHERE state = 'running'")
        assert before - 0.01 <= row["claimed_at"] <= after + 0.01
        assert row["lease_expires"] - row["claimed_at"] == pytest.approx(100.0, abs=0.01)
        with bench.store.begin() as session:
            assert claims.beat(session, who, lease=1000.0) == 1
            assert claims.beat(session, "nobody", lease=1000.0) == 0
        [row] = bench.rows("SELECT lease_expires FROM unit WHERE state = 'running'")
        assert row["lease_expires"] >= before + 1000.0 - 0.01

    def test_a_stale_lease_is_reclaimed_and_the_late_result_is_a_logged_no_op(self, bench: Bench) -> None:
        slow, quick = bench.coordinator(), bench.coordinator()
        first = bench.claim(slow, lease=-1.0)
        assert bench.reasons()[:4] == ["stale lease"] * 4
        second = bench.claim(quick)
        assert [(row["id"], row["epoch"]) for row in second] == [(row["id"], row["epoch"] + 1) for row in first]
        lost = bench.rows("SELECT coordinator_id, epoch, outcome FROM attempt")
        assert lost == [{"coordinator_id": slow, "epoch": 1, "outcome": "lost"}] * 4
        assert bench.record(slow, [bench.finished(row) for row in first]) == {"late": 4}
        assert bench.rows("SELECT count(*) AS n FROM metric") == [{"n": 0}]
        assert bench.reasons()[:4] == ["running"] * 4
        assert bench.record(quick, [bench.finished(row) for row in second]) == {"done": 4}
        outcomes = Counter(row["outcome"] for row in bench.rows("SELECT outcome FROM attempt"))
        assert outcomes == {"lost": 4, "late": 4, "done": 4}
        assert Counter(row["kind"] for row in bench.rows("SELECT kind FROM event")) == {"reclaimed": 1}

    def test_a_late_result_that_differs_is_a_divergence(self, bench: Bench) -> None:
        slow, quick = bench.coordinator(), bench.coordinator()
        first, second = bench.claim(slow, lease=-1.0), bench.claim(quick)
        bench.record(quick, [bench.finished(row) for row in second])
        other = answer(bench.found, first[1]["key"], 0, auc=51.0)
        same_but_slower = answer(bench.found, first[2]["key"], 1, fit_seconds=9.0)
        late = [bench.finished(first[1], other), bench.finished(first[2], same_but_slower)]
        assert bench.record(slow, late) == {"late": 2}
        [event] = bench.rows("SELECT unit_id, coordinator_id FROM event WHERE kind = 'divergence'")
        assert event == {"unit_id": first[1]["id"], "coordinator_id": slow}
        [kept] = bench.rows("SELECT value FROM metric WHERE unit_id = :u AND name = 'auc'", u=first[1]["id"])
        assert kept == {"value": 50.0}

    def test_leases_of_dead_processes_of_this_host_end_at_once(self, bench: Bench) -> None:
        dead, alive, elsewhere = bench.coordinator(), bench.coordinator(), bench.coordinator(host="there")
        held = [bench.claim(who, limit=1)[0]["id"] for who in (dead, alive, elsewhere)]
        with bench.store.begin() as session:
            session.run("UPDATE coordinator SET process_started = 1 WHERE id IN (:a, :b)", a=dead, b=elsewhere)
            assert claims.expire_dead(session, HOST) == 1
            assert claims.expire_dead(session, HOST) == 0
        assert [row["id"] for row in bench.claim(bench.coordinator(), limit=1)] == held[:1]

    def test_what_is_handed_back_can_be_claimed_again(self, bench: Bench) -> None:
        who = bench.coordinator()
        rows = bench.claim(who)
        with bench.store.begin() as session:
            assert claims.release(session, who) == 4
            claims.end(session, who, 3)
        assert [row["id"] for row in bench.claim(bench.coordinator())] == [row["id"] for row in rows]
        [ended] = bench.rows("SELECT exit_code FROM coordinator WHERE ended_at IS NOT NULL")
        assert ended == {"exit_code": 3}

    def test_failures_are_bounded_and_a_retry_starts_afresh(self, bench: Bench) -> None:
        who = bench.coordinator()
        for attempt in range(3):
            row = next(row for row in bench.claim(who) if row["kind"] == "evaluate")
            failure = UnitFailure(key=row["key"], kind="exception", message="no \0 luck \ud800", traceback="tr\0ace")
            moved = bench.record(who, [bench.finished(row, failure)])
            assert moved == {"failed" if attempt == 2 else "ready": 1}
            with bench.store.begin() as session:
                claims.release(session, who)
        assert bench.reasons()[1] == "failed"
        [failed] = bench.rows("SELECT router, error_kind, message, attempts, last_host, state FROM failures")
        assert failed == {
            "router": "zero-router",
            "error_kind": "exception",
            "message": "no \N{REPLACEMENT CHARACTER} luck ?",
            "attempts": 3,
            "last_host": HOST,
            "state": "failed",
        }
        with bench.store.begin() as session:
            ids = reading.select_units(session, sweep="s", states=("failed",))
            assert claims.move(session, ids, before=State.FAILED, to=State.READY, reason=None) == 1
            assert claims.move(session, ids, before=State.FAILED, to=State.READY, reason=None) == 0
            with pytest.raises(TransitionError):
                claims.move(session, ids, before=State.READY, to=State.DONE, reason=None)
        [unit] = bench.rows("SELECT state, n_failures, reason FROM unit WHERE id = :u", u=ids[0])
        assert unit == {"state": "ready", "n_failures": 0, "reason": None}
        bench.work_off(bench.coordinator())
        assert set(bench.reasons()) == {"done"}

    def test_a_user_error_is_final_at_once(self, bench: Bench) -> None:
        who = bench.coordinator()
        row = bench.claim(who)[1]
        failure = UnitFailure(key=row["key"], kind="user_error", message="cannot be")
        assert bench.record(who, [bench.finished(row, failure)]) == {"failed": 1}

    def test_a_unit_that_kills_alone_three_times_is_quarantined(self, bench: Bench) -> None:
        who = bench.coordinator()
        states = []
        for alone in (True, False, True, True):
            row = bench.claim(who)[0]
            death = UnitFailure(key=row["key"], kind="worker_death", message="killed")
            states += bench.record(who, [bench.finished(row, death, alone=alone)])
        assert states == ["ready", "ready", "ready", "quarantined"]
        assert bench.reasons()[0] == "quarantined"

    def test_invalidating_takes_the_result_out_and_keeps_its_digest(self, bench: Bench) -> None:
        who = bench.coordinator()
        bench.work_off(who)
        [unit] = bench.rows("SELECT id, result_digest FROM unit WHERE key = :k", k=bench.plan.units[1].key)
        with bench.store.begin() as session:
            assert results.invalidate(session, [unit["id"]], "wrong prices") == 1
            assert results.invalidate(session, [unit["id"]], "again") == 0
        assert bench.reasons() == ["done", "invalidated", *["done"] * 5]
        [after] = bench.rows("SELECT state, reason, result_digest FROM unit WHERE id = :u", u=unit["id"])
        assert after == {"state": "invalidated", "reason": "wrong prices", "result_digest": unit["result_digest"]}
        for table in ("metric", "frontier_point", "decision"):
            assert bench.rows(f"SELECT * FROM {table} WHERE unit_id = :u", u=unit["id"]) == []
        [event] = bench.rows("SELECT kind, message, detail FROM event WHERE unit_id = :u", u=unit["id"])
        assert (event["kind"], event["message"]) == ("invalidated", "wrong prices")
        assert unit["result_digest"] in event["detail"]

    @pytest.mark.parametrize(("auc", "divergences"), [(50.0, 0), (49.0, 1)])
    def test_a_recomputed_result_that_differs_is_a_divergence(self, bench: Bench, auc: float, divergences: int) -> None:
        who = bench.coordinator()
        bench.work_off(who)
        with bench.store.begin() as session:
            ids = reading.select_units(session, sweep="s", states=("done",), router="zero-router")
            assert len(ids) == 3
            results.invalidate(session, ids[:1], "check")
        bench.work_off(who, auc=lambda planned: auc)
        assert set(bench.reasons()) == {"done"}
        assert len(bench.rows("SELECT * FROM event WHERE kind = 'divergence'")) == divergences

    def test_nan_and_infinity_become_null(self, bench: Bench) -> None:
        who = bench.coordinator()
        rows = bench.claim(who)
        made = answer(
            bench.found, rows[1]["key"], 0, auc_rel=float("nan"), qnc=float("inf"), aiq=-float("inf"), peak_score=0.5
        )
        bench.record(who, [bench.finished(rows[1], made)])
        stored = bench.rows("SELECT name, value FROM metric WHERE name IN ('auc_rel', 'qnc', 'aiq', 'peak_score')")
        assert {row["name"]: row["value"] for row in stored} == {
            "auc_rel": None, "qnc": None, "aiq": None, "peak_score": 0.5
        }  # fmt: skip

    def test_explain_tells_new_from_ready_and_done(self, bench: Bench) -> None:
        assert set(bench.reasons()) == {"ready"}
        larger = Bench(bench.store, make_plan(benchmark(), seeds=4), bench.sweep_id, bench.environment_id)
        assert Counter(larger.reasons()) == {"ready": 7, "new": 2}
        bench.work_off(bench.coordinator())
        assert Counter(larger.reasons()) == {"done": 7, "new": 2}

    def test_skipped_units_are_never_claimed(self, bench: Bench) -> None:
        plan = make_plan(benchmark(), train_sizes=[0.1, 1.0], routers=[KNN3 | {"k": 5}, "zero-router"])
        assert sum(unit.skipped is not None for unit in plan.units) == 3
        mine = Bench(bench.store, plan, enlist(bench.store, plan), bench.environment_id)
        mine.work_off(mine.coordinator())
        assert Counter(mine.reasons()) == {"done": 10, "skipped": 3}

    def test_leaderboard(self, bench: Bench) -> None:
        plan = make_plan(benchmark(), routers=["zero-router", KNN3, {"name": "knn@5", "use": "knn", "k": 5}])
        mine = Bench(bench.store, plan, enlist(bench.store, plan), bench.environment_id)
        values = {"zero-router": [50.0, 50.0, 50.0], "knn@3": [1.0, 2.0, 4.5], "knn@5": [80.1, 80.2, 80.4]}
        mine.work_off(mine.coordinator(), auc=lambda unit: values[unit.router][unit.spec["split"]])
        with bench.store.read() as session:
            board = reading.leaderboard_frame(session, "s").set_index("router")
        assert list(board.index) == ["zero-router", "knn@3", "knn@5"]
        for router, aucs in values.items():
            row = board.loc[router]
            assert (row["n_seeds"], row["encoder"], row["train_size"]) == (3, "hash-ngrams", 1.0)
            assert row["auc_mean"] == pytest.approx(np.mean(aucs), abs=1e-12)
            assert row["auc_sd"] == pytest.approx(np.std(aucs, ddof=1), abs=1e-12)
            assert row["auc_path_sd"] == pytest.approx(np.std(aucs, ddof=1), abs=1e-12)
            assert row["utility_mean"] == pytest.approx(np.mean(aucs) / 2, abs=1e-12)
            assert row["auc_rel_mean"] is None or np.isnan(row["auc_rel_mean"])

    def test_baselines_stand_under_every_encoder_and_one_split_has_no_deviation(self, bench: Bench) -> None:
        encoders = ["hash-ngrams", {"name": "narrow", "use": "hash-ngrams", "dim": 64}]
        plan = make_plan(benchmark(), encoders=encoders, seeds=1)
        mine = Bench(bench.store, plan, enlist(bench.store, plan), bench.environment_id)
        mine.work_off(mine.coordinator())
        board = mine.rows("SELECT encoder, router, n_seeds, auc_mean, auc_sd FROM leaderboard ORDER BY encoder, router")
        assert board == [
            {"encoder": encoder, "router": router, "n_seeds": 1, "auc_mean": 50.0, "auc_sd": None}
            for encoder in ("hash-ngrams", "narrow")
            for router in ("knn@3", "zero-router")
        ]

    def test_parameters_are_never_averaged_under_one_name(self, bench: Bench) -> None:
        """Two configurations that a sweep shows alike: a tuned unit and a fixed one, had by hand."""
        bench.work_off(bench.coordinator())
        with bench.store.begin() as session:
            session.run("UPDATE sweep_unit SET router = 'same', encoder = NULL WHERE router IS NOT NULL")
        board = bench.rows("SELECT router, n_seeds FROM leaderboard")
        assert board == [{"router": "same", "n_seeds": 3}] * 2

    def test_decisions_expand_to_the_chosen_models_outcomes(self, bench: Bench) -> None:
        bench.work_off(bench.coordinator())
        found = bench.found
        rows = bench.rows(
            "SELECT * FROM decisions WHERE router = 'knn@3' AND seed = 2 AND preference = 'balanced' ORDER BY query_key"
        )
        test = split_benchmark(found, 2).test
        chosen = (np.arange(len(test)) + 2 + 1) % M
        assert [row["query_key"] for row in rows] == [found.queries[i] for i in test]
        assert [row["model"] for row in rows] == [f"m{j:02d}" for j in chosen]
        assert [row["score"] for row in rows] == found.S[test, chosen].tolist()
        assert [row["cost"] for row in rows] == found.C[test, chosen].tolist()
        assert bench.rows("SELECT count(*) AS n FROM decisions") == [{"n": 2 * 3 * sum(_test_sizes(found))}]

    def test_model_codes_reach_the_last_model(self, bench: Bench) -> None:
        bench.work_off(bench.coordinator())
        who = bench.coordinator()
        with bench.store.begin() as session:
            ids = reading.select_units(session, sweep="s", states=("done",), keys=[bench.plan.units[1].key])
            results.invalidate(session, ids, "again")
        [row] = bench.claim(who)
        made = answer(bench.found, row["key"], 0)
        last = np.full(made.n_test, M - 1)
        made.decisions["balanced"][:] = last  # type: ignore[index]
        bench.record(who, [bench.finished(row, made)])
        models = bench.rows(
            "SELECT DISTINCT model FROM decisions WHERE unit_key = :k AND preference = 'balanced'", k=row["key"]
        )
        assert models == [{"model": "m39"}]

    def test_bootstrap_and_frontier_come_back_bit_for_bit(self, bench: Bench) -> None:
        bench.work_off(bench.coordinator())
        blobs = {bytes(row["bootstrap"]) for row in bench.rows("SELECT bootstrap FROM unit WHERE kind = 'evaluate'")}
        assert blobs == {np.array([1.0, np.nan]).astype("<f8").tobytes()}
        with bench.store.read() as session:
            frame = reading.frontier_frame(session, "s")
            areas = reading.bootstrap_areas(session, "s", ["knn@3"])
            assert reading.bootstrap_areas(session, "s", ["nobody"]) == {}
        assert set(areas) == {
            row["key"] for row in bench.rows("SELECT u.key FROM unit u WHERE u.router = 'knn' AND u.kind = 'evaluate'")
        }
        assert all(np.array_equal(own, [1.0, np.nan], equal_nan=True) for own in areas.values())
        assert frame[frame["seed"] == 0].groupby("position")[["cost", "score"]].first().to_numpy().tolist() == [
            [0.25, 0.5], [0.5, 0.75]
        ]  # fmt: skip
        assert frame["on_hull"].tolist() == [True, False] * 6

    def test_select_units(self, bench: Bench) -> None:
        with bench.store.read() as session:
            every = reading.select_units(session, sweep="s", states=("ready",))
            knn = reading.select_units(session, sweep="s", states=("ready",), router="knn@3")
            prefix = bench.plan.units[1].key[:20]
            one = reading.select_units(session, sweep="s", states=("ready",), keys=[prefix])
            none = reading.select_units(session, sweep="s", states=("ready",), benchmark="other")
        assert (len(every), len(knn), len(one), none) == (7, 3, 1, [])

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM unit",
            "UPDATE unit SET state = 'done'",
            "DROP TABLE unit",
            "ATTACH DATABASE 'x.db' AS x",
            "PRAGMA journal_mode = DELETE",
            "SET TRANSACTION READ WRITE",
            "COPY unit TO PROGRAM 'cat'",
            "COPY unit TO STDOUT",
            "SELECT 1; SELECT 2",
            "SELECT 1; DELETE FROM unit",
            "WITH gone AS (DELETE FROM unit RETURNING id) SELECT * FROM gone",
            "EXPLAIN ANALYZE DELETE FROM unit",
            "SELECT load_extension('x')",
            "SELECT set_config('transaction_read_only', 'off', false)",
            # Semicolons that a careless reader takes for part of a string.
            rf"SELECT E'\'' ; {ESCAPE}; --'",
            f"SELECT $$ ' $$ ; {ESCAPE}; SELECT $$ ' $$",
            "",
            "-- nothing",
        ],
    )
    def test_only_one_reading_statement_is_let_through(self, bench: Bench, url: str, sql: str) -> None:
        with pytest.raises(QueryError):
            reading.run_query(url, sql)
        assert bench.rows("SELECT count(*) AS n FROM unit WHERE state = 'ready' AND reason IS NULL") == [{"n": 7}]

    def test_other_ways_of_writing_are_refused(self, bench: Bench, url: str) -> None:
        for sql in (
            "SELECT * INTO stolen FROM unit",
            "SELECT * FROM unit FOR UPDATE",
            "SELECT nextval('unit_id_seq')",
            "SELECT lo_create(0)",
            "SELECT query_to_xml('DELETE FROM unit', true, true, '')",
            "SELECT * FROM pragma_journal_mode('delete')",
            "SELECT writefile('x', 'y')",
            "VACUUM INTO 'x.db'",
            "WITH a AS (SELECT 1) INSERT INTO metric SELECT id, 'x', 1 FROM unit",
            "EXPLAIN ANALYZE SELECT 1; DELETE FROM unit",
            "/* SELECT */ DELETE FROM unit",
            "DO $$ BEGIN DELETE FROM unit; END $$",
            "COMMIT",
        ):
            with pytest.raises(QueryError):
                reading.run_query(url, sql)
                pytest.fail(f"was let through: {sql}")
        assert bench.rows("SELECT count(*) AS n FROM unit WHERE state = 'ready' AND reason IS NULL") == [{"n": 7}]

    @pytest.mark.parametrize(
        ("sql", "rows"),
        [
            ("SELECT count(*) AS n FROM unit", [{"n": 7}]),
            ("select count(*) as n from unit where key like 'u1:%' ;", [{"n": 7}]),
            ("SELECT ':x; %s -- no' AS n", [{"n": ":x; %s -- no"}]),
            ("/* first */ WITH a AS (SELECT 1 AS n) SELECT n FROM a -- last", [{"n": 1}]),
            ("VALUES(1)", [{"column1": 1}]),
            ("SELECT n FROM progress WHERE kind = 'embed'", [{"n": 1}]),
            ("SELECT key FROM unit WHERE 1 = 0", []),
        ],
    )
    def test_reading_statements_run(self, bench: Bench, url: str, sql: str, rows: list[dict[str, Any]]) -> None:
        assert reading.run_query(url, sql).to_dict("records") == rows

    def test_a_wrong_statement_says_what_the_database_said(self, bench: Bench, url: str) -> None:
        with pytest.raises(QueryError, match="nonsense"):
            reading.run_query(url, "SELECT nonsense FROM unit")


def _test_sizes(found: Benchmark) -> list[int]:
    return [len(split_benchmark(found, seed).test) for seed in range(3)]


def test_both_databases_show_the_same_rows(folder: Any, postgres_url: str) -> None:
    shown = []
    for url in (f"sqlite:///{folder}/roadtest.db", postgres_url):
        bench = open_bench(url)
        who = bench.coordinator()
        bench.work_off(who, auc=lambda unit: 50 + unit.spec["split"] ** 2 / 7)
        with bench.store.begin() as session:
            ids = reading.select_units(session, sweep="s", states=("done",), router="knn@3")
            results.invalidate(session, ids[:1], "why not")
        shown.append(views(bench))
        bench.store.close()
    lite, postgres = shown
    for name in lite:
        assert len(lite[name]) > 0
        pd.testing.assert_frame_equal(lite[name], postgres[name], rtol=1e-12, atol=0, check_dtype=False)
