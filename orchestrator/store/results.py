"""How does a result become durable? Result, state and attempt of a unit in one transaction, at most once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.keys import canonical_json
from orchestrator.queue import State, after_failure
from orchestrator.store import claims
from orchestrator.store import tables as t
from orchestrator.store.registry import chunks, model_code, put_event
from orchestrator.store.store import Session
from workers.units import OBSERVED_METRICS, EmbedResult, EvaluateResult, UnitFailure


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One unit that came back from a worker."""

    unit_id: int
    epoch: int
    result: EvaluateResult | EmbedResult | UnitFailure
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


def deterministic_digest(result: EvaluateResult) -> str:
    """sha256 of every deterministic column of a result: all but timings, hosts and times.

    This is the one list of them: chosen parameters, sizes, every metric but `fit_seconds` and
    `route_us_per_query`, the frontier, the decisions and the bootstrap areas.
    """
    content = {
        "n": [result.n_train, result.n_validation, result.n_test],
        "chosen": None if result.chosen is None else dict(result.chosen),
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
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def encode_decisions(chosen: Iterable[int]) -> str:
    """Model positions as codes of two characters, run together."""
    positions = np.asarray(chosen)
    codes = np.array([model_code(i) for i in range(int(positions.max(initial=0)) + 1)])
    return "".join(codes[positions].tolist())


def record(
    session: Session, coordinator_id: str, finished: Sequence[Finished], *, environment_id: int
) -> dict[str, int]:
    """Commit what came back: results of claims still held once, late ones as a logged no-op.

    Returns:
        How many units went to each state, late ones under `late`.
    """
    still = claims.held(session, coordinator_id, [(item.unit_id, item.epoch) for item in finished])
    now = session.time()
    moved: dict[str, int] = {}
    attempts: list[dict[str, Any]] = []
    evaluated: list[tuple[Finished, EvaluateResult]] = []
    for item in finished:
        result, failure = item.result, item.result if isinstance(item.result, UnitFailure) else None
        outcome = "late" if (item.unit_id, item.epoch) not in still else "failed" if failure else "done"
        attempts.append(
            {
                "unit_id": item.unit_id,
                "epoch": item.epoch,
                "coordinator_id": coordinator_id,
                "worker": item.worker,
                "host": item.host,
                "pid": item.pid,
                "outcome": outcome,
                "error_kind": failure.kind if failure else None,
                "message": _storable(failure.message) if failure else None,
                "traceback": _storable(failure.traceback) if failure else None,
                "started_at": item.started_at,
                "finished_at": now,
                "seconds": result.seconds,
            }
        )
        if outcome == "late":
            moved["late"] = moved.get("late", 0) + 1
            if isinstance(result, EvaluateResult):
                _compare(session, coordinator_id, item.unit_id, deterministic_digest(result))
            continue
        if isinstance(result, UnitFailure):
            state = _fail(session, item, result)
        elif isinstance(result, EmbedResult):
            state = "done"
            _put_slice(session, coordinator_id, item, result, environment_id, now)
        else:
            state = "done"
            evaluated.append((item, result))
        moved[state] = moved.get(state, 0) + 1
    _put_evaluations(session, coordinator_id, evaluated, environment_id, now)
    session.insert(t.attempt, attempts)
    return moved


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


def _fail(session: Session, item: Finished, failure: UnitFailure) -> str:
    row = session.rows("SELECT n_failures, n_deaths FROM unit WHERE id = :u", u=item.unit_id)[0]
    state, failures, deaths = after_failure(
        failure.kind, n_failures=row["n_failures"], n_deaths=row["n_deaths"], alone=item.alone
    )
    session.update(
        t.unit,
        [
            {
                "id": item.unit_id,
                "state": state.value,
                "reason": _storable(f"{failure.kind}: {failure.message}"),
                "n_failures": failures,
                "n_deaths": deaths,
                "lease_expires": None,
            }
        ],
    )
    return state.value


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
                "lease_expires": None,
                "embedding_sha256": result.sha256,
                "result_digest": result.sha256,
                "seconds": result.seconds,
                "environment_id": environment_id,
                "finished_at": now,
            }
        ],
    )


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
            # NaN and infinity are never stored, whoever made them.
            {"unit_id": unit_id, "name": name, "value": value if value is not None and math.isfinite(value) else None}
            for name, value in result.metrics.items()
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


def _digests(session: Session, ids: Sequence[int]) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    for batch in chunks(ids, 10_000):
        marks, bound = session.in_list("u", batch)
        found.update(
            (row["id"], row["result_digest"])
            for row in session.rows(f"SELECT id, result_digest FROM unit WHERE id IN {marks}", **bound)
        )
    return found


def invalidate(session: Session, ids: Sequence[int], reason: str) -> int:
    """Declare results void: they are taken out, the units will be computed again, the digests are kept to compare.

    Returns:
        How many units were done and are now invalidated.
    """
    n = 0
    for batch in chunks(ids, 10_000):
        marks, bound = session.in_list("u", batch)
        rows = session.rows(f"SELECT id, result_digest FROM unit WHERE state = 'done' AND id IN {marks}", **bound)
        done = [row["id"] for row in rows]
        if not done:
            continue
        marks, bound = session.in_list("u", done)
        for table in ("metric", "frontier_point", "decision"):
            session.run(f"DELETE FROM {table} WHERE unit_id IN {marks}", **bound)
        claims.move(session, done, before=State.DONE, to=State.INVALIDATED, reason=reason)
        for row in rows:
            put_event(session, "invalidated", reason, unit_id=row["id"], detail={"result_digest": row["result_digest"]})
        n += len(done)
    return n
