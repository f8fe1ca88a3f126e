"""How does a result become durable? Result, state and attempt of a unit in one transaction, at most once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.keys import canonical_json, encode, normal
from orchestrator.queue import State, Strikes, after_failure
from orchestrator.store import claims
from orchestrator.store import tables as t
from orchestrator.store.registry import chunks, model_code, put_event
from orchestrator.store.store import Session
from workers.units import OBSERVED_METRICS, EmbedResult, EvaluateResult, MeasureResult, UnitFailure

#: A success takes back what counted against a unit: only failures in a row do.
_NO_STRIKES = {"n_failures": 0, "n_deaths": 0, "n_ooms": 0}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One unit that came back from a worker."""

    unit_id: int
    epoch: int
    result: EvaluateResult | EmbedResult | MeasureResult | UnitFailure
    #: Digest of the embedding's recipe and inputs, for slices.
    embedding: str | None = None
    start: int = 0
    stop: int = 0
    #: sha256 over the embedding's slices, for evaluations.
    embedding_sha256: str | None = None
    #: Whether the unit was alone in its shard.
    alone: bool = False
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    started_at: float | None = None


def deterministic_digest(result: EvaluateResult | MeasureResult) -> str:
    """sha256 of every deterministic column of a result: all but timings, hosts and times.

    This is the one list of them: chosen parameters, sizes, every metric but `fit_seconds` and
    `route_us_per_query`, the frontier, the decisions and the bootstrap areas; of a measure its findings but seconds.
    """
    if isinstance(result, MeasureResult):
        found = [
            [f.quantity, f.label, *(None if v is None else float(v).hex() for v in (f.x, f.value, f.low, f.high))]
            for f in result.findings
            if f.quantity not in OBSERVED_METRICS
        ]
        return hashlib.sha256(encode(found).encode()).hexdigest()
    content = {
        "n": [result.n_train, result.n_validation, result.n_test],
        "chosen": None if result.chosen is None else normal(result.chosen),
        "metrics": {
            name: None if value is None else float(value).hex()
            for name, value in result.metrics.items()
            if name not in OBSERVED_METRICS
        },
        "frontier": [
            [p.cost.hex(), p.score.hex(), None if p.price_of_cost is None else p.price_of_cost.hex(), p.on_hull]
            for p in result.frontier
        ],
        "decisions": {name: encode_decisions(chosen) for name, chosen in result.decisions.items()},
        "bootstrap": None
        if result.bootstrap is None
        else np.ascontiguousarray(result.bootstrap, dtype="<f8").tobytes().hex(),
    }
    # Canonical as it stands: every number in it is an integer or spelled out.
    return hashlib.sha256(encode(content).encode()).hexdigest()


def encode_decisions(chosen: Iterable[int]) -> str:
    """Model positions as codes of two characters, run together."""
    positions = np.asarray(chosen)
    codes = np.array([model_code(i) for i in range(int(positions.max(initial=0)) + 1)])
    return "".join(codes[positions].tolist())


def record(
    session: Session, coordinator_id: str, finished: Sequence[Finished], *, environment_id: int
) -> list[State | None]:
    """Commit what came back: results of claims still held once, late ones as a logged no-op.

    Recording the same again changes nothing.

    Returns:
        The state that each unit went to, None for late ones and those that were recorded before.
    """
    held, settled = claims.settled(session, coordinator_id, [(item.unit_id, item.epoch) for item in finished])
    now = session.time()
    states: list[State | None] = []
    attempts: list[dict[str, Any]] = []
    evaluated: list[tuple[Finished, EvaluateResult]] = []
    late: list[Finished] = []
    for item in finished:
        claim, state, result = (item.unit_id, item.epoch), None, item.result
        if claim not in held:
            late.append(item)
        elif isinstance(result, UnitFailure):
            state = _fail(session, item, result)
        elif isinstance(result, EmbedResult):
            state = State.DONE
            _put_slice(session, coordinator_id, item, result, environment_id, now)
        elif isinstance(result, MeasureResult):
            state = State.DONE
            _put_findings(session, coordinator_id, item, result, environment_id, now)
        else:
            state = State.DONE
            evaluated.append((item, result))
        states.append(state)
        if claim not in settled:
            attempts.append(_attempt(item, coordinator_id, held=claim in held, now=now))
    _put_evaluations(session, coordinator_id, evaluated, environment_id, now)
    for item in late:  # after the results of this batch: one of them may be of the same unit
        if isinstance(item.result, EvaluateResult | MeasureResult):
            _compare(session, coordinator_id, item.unit_id, deterministic_digest(item.result))
    session.insert(t.attempt, attempts)
    return states


def _attempt(item: Finished, coordinator_id: str, *, held: bool, now: float) -> dict[str, Any]:
    failure = item.result if isinstance(item.result, UnitFailure) else None
    return {
        "unit_id": item.unit_id,
        "epoch": item.epoch,
        "coordinator_id": coordinator_id,
        "worker": item.worker,
        "host": item.host,
        "pid": item.pid,
        "outcome": "late" if not held else "failed" if failure else "done",
        "error_kind": failure.kind if failure else None,
        "message": _storable(failure.message) if failure else None,
        "traceback": _storable(failure.traceback) if failure else None,
        "started_at": item.started_at,
        "finished_at": now,
        "seconds": item.result.seconds,
    }


def _storable(message: str) -> str:
    """Any text of a worker without what PostgreSQL's text cannot hold: NUL and lone surrogates."""
    return message.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _compare(session: Session, coordinator_id: str, unit_id: int, found: str) -> None:
    before = session.one("SELECT result_digest FROM unit WHERE id = :u", u=unit_id)
    if before is not None and before != found:
        put_event(
            session,
            "divergence",
            "a second computation gave another result for the same key",
            coordinator_id=coordinator_id,
            unit_id=unit_id,
            detail={"before": before, "after": found},
        )


def _fail(session: Session, item: Finished, failure: UnitFailure) -> State:
    row = session.rows("SELECT n_failures, n_deaths, n_ooms FROM unit WHERE id = :u", u=item.unit_id)[0]
    strikes = Strikes(failures=row["n_failures"], deaths=row["n_deaths"], ooms=row["n_ooms"])
    state, strikes = after_failure(failure.kind, strikes, alone=item.alone)
    session.update(
        t.unit,
        [
            {
                "id": item.unit_id,
                "state": state.value,
                "reason": _storable(f"{failure.kind}: {failure.message}"),
                "n_failures": strikes.failures,
                "n_deaths": strikes.deaths,
                "n_ooms": strikes.ooms,
                "lease_expires": None,
            }
        ],
    )
    return state


def _put_slice(
    session: Session, coordinator_id: str, item: Finished, result: EmbedResult, environment_id: int, now: float
) -> None:
    before = session.one(
        "SELECT sha256 FROM artifact WHERE embedding = :e AND start = :s", e=item.embedding, s=item.start
    )
    if before is not None and before != result.sha256:
        put_event(
            session,
            "divergence",
            "a slice embedded again has other content",
            coordinator_id=coordinator_id,
            unit_id=item.unit_id,
            detail={"before": before, "after": result.sha256},
        )
    session.run("DELETE FROM artifact WHERE embedding = :e AND start = :s", e=item.embedding, s=item.start)
    session.insert(
        t.artifact,
        [
            {
                "unit_id": item.unit_id,
                "embedding": item.embedding,
                "start": item.start,
                "stop": item.stop,
                "url": result.url,
                "sha256": result.sha256,
                "n_rows": result.n_rows,
                "dim": result.dim,
                "n_bytes": result.n_bytes,
                "created_at": now,
            }
        ],
    )
    session.update(
        t.unit,
        [
            {
                "id": item.unit_id,
                "state": "done",
                "reason": None,
                **_NO_STRIKES,
                "lease_expires": None,
                "embedding_sha256": result.sha256,
                "result_digest": result.sha256,
                "seconds": result.seconds,
                "environment_id": environment_id,
                "finished_at": now,
            }
        ],
    )


def _put_findings(
    session: Session, coordinator_id: str, item: Finished, result: MeasureResult, environment_id: int, now: float
) -> None:
    found = deterministic_digest(result)
    if _digests(session, [item.unit_id]).get(item.unit_id) not in (None, found):
        _compare(session, coordinator_id, item.unit_id, found)
    session.update(
        t.unit,
        [
            {
                "id": item.unit_id,
                "state": "done",
                "reason": None,
                **_NO_STRIKES,
                "lease_expires": None,
                "embedding_sha256": item.embedding_sha256,
                "seconds": result.seconds,
                "result_digest": found,
                "environment_id": environment_id,
                "finished_at": now,
            }
        ],
    )
    rows = [
        {
            "unit_id": item.unit_id,
            "position": i,
            "quantity": finding.quantity,
            "label": _storable(finding.label),
            "x": _finite(finding.x),
            "value": _finite(finding.value),
            "low": _finite(finding.low),
            "high": _finite(finding.high),
        }
        for i, finding in enumerate(result.findings)
    ]
    for batch in chunks(rows, 50_000):
        session.insert(t.finding, batch)


def _put_evaluations(
    session: Session,
    coordinator_id: str,
    evaluated: Sequence[tuple[Finished, EvaluateResult]],
    environment_id: int,
    now: float,
) -> None:
    before = _digests(session, [item.unit_id for item, _ in evaluated])
    units: list[Mapping[str, Any]] = []
    metrics: list[Mapping[str, Any]] = []
    points: list[Mapping[str, Any]] = []
    decisions: list[Mapping[str, Any]] = []
    for item, result in evaluated:
        unit_id = item.unit_id
        found = deterministic_digest(result)
        if before.get(unit_id) not in (None, found):
            _compare(session, coordinator_id, unit_id, found)
        units.append(
            {
                "id": unit_id,
                "state": "done",
                "reason": None,
                **_NO_STRIKES,
                "lease_expires": None,
                "n_train": result.n_train,
                "n_validation": result.n_validation,
                "n_test": result.n_test,
                "chosen": None if result.chosen is None else canonical_json(result.chosen),
                "embedding_sha256": item.embedding_sha256,
                "bootstrap": None
                if result.bootstrap is None
                else np.ascontiguousarray(result.bootstrap, dtype="<f8").tobytes(),
                "tuning_seconds": result.tuning_seconds,
                "seconds": result.seconds,
                "result_digest": found,
                "environment_id": environment_id,
                "finished_at": now,
            }
        )
        metrics += [
            {"unit_id": unit_id, "name": name, "value": _finite(value)}
            for name, value in result.metrics.items()
            if value != 0 or not name.startswith("share:")  # most models get nothing: half of a large pool's rows
        ]
        points += [
            {
                "unit_id": unit_id,
                "position": i,
                "cost": p.cost,
                "score": p.score,
                "price_of_cost": p.price_of_cost,
                "on_hull": p.on_hull,
            }
            for i, p in enumerate(result.frontier)
        ]
        decisions += [
            {"unit_id": unit_id, "preference": name, "models": encode_decisions(chosen)}
            for name, chosen in result.decisions.items()
        ]
    session.update(t.unit, units)
    for table, rows in ((t.metric, metrics), (t.frontier_point, points), (t.decision, decisions)):
        for batch in chunks(rows, 50_000):
            session.insert(table, batch)


def _finite(value: float | None) -> float | None:
    """The value, None for NaN and infinity, whoever made them; SQLite knows no negative zero, so nobody does."""
    return value + 0.0 if value is not None and math.isfinite(value) else None


def _digests(session: Session, ids: Sequence[int]) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    for batch in chunks(ids, 10_000):
        among, bound = session.among("u", batch)
        found.update(
            (row["id"], row["result_digest"])
            for row in session.rows(f"SELECT id, result_digest FROM unit WHERE id {among}", **bound)
        )
    return found


def invalidate(session: Session, ids: Sequence[int], reason: str) -> int:
    """Declare results void: they are taken out, the units will be computed again, the digests are kept to compare.

    Returns:
        How many units were done and are now invalidated.
    """
    n = 0
    for batch in chunks(ids, 10_000):
        among, bound = session.among("u", batch)
        rows = session.rows(f"SELECT id, result_digest FROM unit WHERE state = 'done' AND id {among}", **bound)
        done = [row["id"] for row in rows]
        if not done:
            continue
        among, bound = session.among("u", done)
        for table in ("metric", "frontier_point", "decision", "finding"):
            session.run(f"DELETE FROM {table} WHERE unit_id {among}", **bound)
        claims.move(session, done, before=State.DONE, to=State.INVALIDATED, reason=reason)
        for row in rows:
            put_event(session, "invalidated", reason, unit_id=row["id"], detail={"result_digest": row["result_digest"]})
        n += len(done)
    return n
