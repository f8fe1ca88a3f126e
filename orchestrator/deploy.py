"""How does a result become a router to use? Fit a unit's router again and write it with all that routing needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.contexts import build_context
from orchestrator.errors import NotFoundError
from orchestrator.executors.base import EvaluateContext
from orchestrator.plan import PlannedUnit
from orchestrator.run import artifacts_url, load_plan
from orchestrator.store import Session, Store, reading
from orchestrator.sweep import Sweep
from workers.deployed import Deployed
from workers.encoders.base import make_encoder
from workers.encoders.fitted import FittedEncoder, encoder_stream, fitted_rows
from workers.errors import RouterError
from workers.routers.base import Router, router_class
from workers.seeding import generator
from workers.sides import cost_ratios, hidden, subset, whole
from workers.splits import split_benchmark
from workers.units import PREFERENCES, EvaluateUnit

#: Data that `route` can give a router; the rest comes from calling models.
_KNOWN_BEFORE_CALLING = {"task", "text"}


def best_unit(
    session: Session, sweep: str, *, benchmark: str | None = None, encoder: str | None = None
) -> Mapping[str, Any]:
    """The first split of the router with the highest mean `auc_path`, but for references, twins and cascades.

    Args:
        session: Database.
        sweep: Name of the sweep.
        benchmark: Display name; must be given when the sweep has several.
        encoder: Display name; default any.

    Raises:
        NotFoundError: No such result, or it is not clear which benchmark is meant.
    """
    frame = reading.results_frame(session, sweep)
    registered = {
        row["key"]: row["router"]
        for row in session.rows(
            """SELECT u.key, u.router FROM unit u JOIN sweep_unit su ON su.unit_id = u.id
               JOIN sweep s ON s.id = su.sweep_id WHERE s.name = :s AND u.kind = 'evaluate'""",
            s=sweep,
        )
    }
    frame = frame[~frame.privileged & frame.twin_of.isna() & (frame.formulation == "utility")]
    frame = frame[frame.train_size == frame.train_size.max()]
    if benchmark is None and frame.benchmark.nunique() > 1:
        names = ", ".join(sorted(frame.benchmark.unique()))
        raise NotFoundError(f"sweep {sweep!r} has several benchmarks ({names}); say which with --benchmark.")
    if benchmark is not None:
        frame = frame[frame.benchmark == benchmark]
    if encoder is not None:
        frame = frame[frame.encoder.isna() | (frame.encoder == encoder)]
    needs = [set(router_class(registered[key]).needs) for key in frame.unit_key]
    usable = frame[[need <= _KNOWN_BEFORE_CALLING for need in needs]]
    if usable.empty:
        raise NotFoundError(f"sweep {sweep!r} has no finished result of that benchmark and encoder to export.")
    config = usable.groupby("config").auc_path.mean().idxmax()
    return dict(usable[usable.config == config].sort_values("seed").iloc[0])


def find_unit(session: Session, key: str) -> tuple[str, str]:
    """Key and sweep of a finished evaluation, by its key or an unambiguous beginning of it.

    Raises:
        NotFoundError: None or several begin so, or it is not finished.
    """
    prefix = key if key.startswith("u1:") else f"u1:{key}"
    rows = session.rows(
        """SELECT DISTINCT u.key, s.name AS sweep, s.updated_at FROM unit u JOIN sweep_unit su ON su.unit_id = u.id
           JOIN sweep s ON s.id = su.sweep_id
           WHERE u.kind = 'evaluate' AND u.state = 'done' AND substr(u.key, 1, :n) = :k
           ORDER BY s.updated_at DESC LIMIT 50""",
        n=len(prefix),
        k=prefix,
    )
    keys = {row["key"] for row in rows}
    if len(keys) != 1:
        what = "no finished evaluation has" if not keys else "several evaluations have"
        raise NotFoundError(f"{what} a key that begins with {key!r}; `roadtest sql` on the view results shows them.")
    return rows[0]["key"], rows[0]["sweep"]


def export_unit(store: Store, key: str, sweep_name: str, directory: Path, *, train_only: bool = False) -> Deployed:
    """Fit a unit's router with the parameters that were used or chosen, and write it.

    Args:
        store: Database.
        key: Key of a finished evaluate unit.
        sweep_name: A sweep that holds it.
        directory: Folder to write; must not exist.
        train_only: Fit on the unit's training side, as it was measured; default: on all queries.

    Raises:
        NotFoundError: The sweep's files no longer give this unit.
        RouterError: The router needs data that nobody has before calling models, or the folder exists.
    """
    with store.read() as session:
        facts = reading.sweep_facts(session, sweep_name, store.shown)
        frame = reading.results_frame(session, sweep_name)
    row = frame[frame.unit_key == key].iloc[0]
    sweep = Sweep.from_dict(facts["spec"], where=f"sweep {sweep_name!r} in the database")
    plan = load_plan(sweep, home=store.home)
    planned = next((unit for unit in plan.units if unit.key == key), None)
    if planned is None:
        raise NotFoundError(
            f"the files of sweep {sweep_name!r} no longer give unit {key}; restore the benchmark as it was measured."
        )
    chosen = json.loads(row.chosen)["params"] if isinstance(row.chosen, str) else {}
    deployed = _fit(store, planned, chosen, train_only=train_only)
    provenance = {
        "unit": key,
        "sweep": sweep_name,
        "benchmark": row.benchmark,
        "router": row.router,
        "fitted_on": "training side of its split" if train_only else "all queries",
        "split": int(row.seed),
        "auc_path": None if row.auc_path != row.auc_path else float(row.auc_path),
        "utility_mean": float(row.utility_mean),
    }
    deployed = Deployed(**{**vars(deployed), "provenance": provenance})
    deployed.save(directory)
    return deployed


def _fit(store: Store, planned: PlannedUnit, chosen: Mapping[str, Any], *, train_only: bool) -> Deployed:
    unit, evaluated = planned.unit, planned.evaluated
    assert isinstance(unit, EvaluateUnit) and evaluated is not None
    cls = router_class(unit.router)
    params = {**unit.params, **chosen}
    needs = [need for need in cls(**params).requirements() if need not in _KNOWN_BEFORE_CALLING]
    if cls.privileged or needs:
        why = "reads test outcomes" if cls.privileged else f"needs {', '.join(needs)}, known after calling models alone"
        raise RouterError(f"router {planned.router!r} cannot be exported: it {why}.")
    context, _ = build_context(store, planned, artifacts_url(store.home))
    assert isinstance(context, EvaluateContext)
    benchmark = context.benchmark
    side = whole(benchmark, cost_ratios(benchmark, unit.protocol), context.embedding())
    rows = np.arange(side.n)
    if train_only:
        rows = split_benchmark(benchmark, unit.split, root_seed=unit.root_seed, train_size=unit.train_size).train
    fitted = None
    if context.encoder is not None:
        seen = side if context.encoder.texts is None else replace(side, texts=context.encoder.texts)
        encoder = make_encoder(context.encoder.name, context.encoder.params)
        assert isinstance(encoder, FittedEncoder)
        fitted = encoder.fit(subset(seen, rows), encoder_stream(encoder, unit))
        side = replace(side, matrix=fitted_rows(fitted, hidden(seen)))
    side = subset(side, rows)
    routers: dict[str, Router] = {}
    wanted: Mapping[str, float | None] = PREFERENCES if unit.formulation == "selection" else {"router": None}
    for name, price in wanted.items():
        rng = generator(unit.root_seed, "fit", cls.name, unit.split, "utility" if price is None else name)
        router = cls(**params)
        routers[name] = router.fit(side, rng) if price is None else router.fit_selector(side, price, rng)
    embedding = planned.embedding
    return Deployed(
        routers=routers,
        models=benchmark.models,
        c_ref=benchmark.c_ref,
        encoder=None if embedding is None else (embedding.encoder.entry.target, embedding.encoder.entry.params),
        recipe=None if embedding is None else json.loads(json.dumps(embedding.recipe)),
        support=side.X if side.matrix is not None else None,
        outcomes=side.outcomes,
        fitted=fitted,
    )
