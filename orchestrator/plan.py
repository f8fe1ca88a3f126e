"""Which units does a sweep ask for? Benchmarks x encoders x routers x splits, with content keys; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from orchestrator.catalog import EvaluatedBenchmark, NamedEncoder
from orchestrator.errors import PlanError
from orchestrator.planned import Embedding, EmbedGroup, EvaluateGroup, PlannedRouter, PlannedUnit, UnitGroup, Units
from orchestrator.studies import ONLY_MEASURES, dosed, measure_groups
from orchestrator.sweep import EncoderEntry, RouterEntry, Sweep
from workers.benchmarks.base import ENOUGH_COMPLETE
from workers.embed import check_inputs, embedding_digest, unique_inputs
from workers.encoders.fitted import FittedEncoder
from workers.errors import RouterError
from workers.routers.base import Router, resolve_params, router_class
from workers.splits import split_benchmark

__all__ = ["Embedding", "Plan", "PlannedUnit", "plan_sweep"]

#: Queries on the training side by training size and split index.
TrainingSizes = Mapping[tuple[float, int], int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that a sweep asks for, in the order in which it is worked off."""

    sweep: Sweep
    benchmarks: tuple[EvaluatedBenchmark, ...]
    embeddings: tuple[Embedding, ...]
    #: A unit's index is its `sweep_unit.position`.
    units: Units


def plan_sweep(sweep: Sweep, benchmarks: Sequence[EvaluatedBenchmark], encoders: Sequence[NamedEncoder]) -> Plan:
    """Resolve a sweep into units.

    Raises:
        PlanError: A router that needs an encoder and has none, or k above the training side.
        RouterError: Unknown router or parameter.
        EncoderError: An encoder that cannot read these inputs or is not installed.
    """
    chosen = [_resolve_router(entry) for entry in sweep.routers]
    for router in chosen:
        if router.entry.name == sweep.reference and router.cls.privileged:
            raise PlanError(
                f"reference: {sweep.reference!r} reads test outcomes, so no verdict can rest on it; name a router."
            )
        if not set(router.cls.formulations) & set(sweep.formulation):
            raise PlanError(
                f"router {router.entry.name!r} has no {' or '.join(sweep.formulation)} formulation; "
                f"remove it, or add {router.cls.formulations[0]!r} to `formulation:`."
            )
    if not encoders and any(router.cls.needs_embedding for router in chosen):
        first = next(router for router in chosen if router.cls.needs_embedding)
        raise PlanError(f"router {first.entry.name!r} needs an embedding; name at least one encoder under `encoders:`.")
    if not any(router.cls.needs_embedding for router in chosen):
        encoders = ()
    for name, n in Counter(evaluated.name for evaluated in benchmarks).items():
        if n > 1:
            raise PlanError(f"benchmarks: two are named {name!r}, one of them a task; give one another `name:`.")
    study = sweep.study.kind if sweep.study else None
    if study == "locality":
        encoders = [*encoders, *dosed(encoders, sweep)]
    embeddings: dict[tuple[int, str], Embedding] = {}
    groups: list[UnitGroup] = []
    for evaluated in benchmarks:
        n_train = _training_sizes(sweep, evaluated)
        for encoder in (None, *encoders):
            embedding = None
            if encoder is not None:
                where = (id(evaluated.source), encoder.name)
                if where not in embeddings:
                    embeddings[where] = _embedding(evaluated, encoder)
                embedding = embeddings[where]
            readers = [router for router in chosen if router.cls.needs_embedding == (encoder is not None)]
            if study not in ONLY_MEASURES:
                for router in readers:
                    groups += _evaluate_groups(sweep, evaluated, embedding, router, n_train)
            groups += measure_groups(sweep, evaluated, embedding, readers)
    distinct = {embedding.digest: embedding for embedding in embeddings.values()}
    for embedding in embeddings.values():
        if embedding.base is not None:
            distinct.setdefault(embedding.base.digest, embedding.base)
    embeds = [EmbedGroup(embedding=embedding) for embedding in distinct.values() if not embedding.fitted]
    return Plan(
        sweep=sweep,
        benchmarks=tuple(benchmarks),
        embeddings=tuple(distinct.values()),
        units=Units([*embeds, *groups]),
    )


def _resolve_router(entry: RouterEntry) -> PlannedRouter:
    cls = router_class(entry.target)
    try:
        params = resolve_params(cls, entry.params)
    except RouterError as error:
        raise RouterError(f"routers: {entry.name!r}: {error}") from error
    free = [name for name in cls.tunables if name not in entry.params]
    fixes_one = any(name in entry.params for name in cls.tunables)
    tuned = entry.tune if entry.tune is not None else bool(cls.tunables) and cls.tuned_by_default and not fixes_one
    if tuned and not free:
        raise RouterError(
            f"routers: {entry.name!r}: `tune: true`, but nothing is left to tune "
            f"({', '.join(cls.tunables) or 'it has no tunables'})."
        )
    unset = [name for name in cls.tunables if params[name] is None]
    if unset and not tuned:
        raise RouterError(
            f"routers: {entry.name!r}: `tune: false`, but {', '.join(unset)} is not given; give it or tune."
        )
    if entry.twin:
        cls.check_twin()
    if tuned:
        params = {name: value for name, value in params.items() if name not in free}
    return PlannedRouter(entry=entry, cls=cls, params=params, tuned=tuned)


def _training_sizes(sweep: Sweep, evaluated: EvaluatedBenchmark) -> TrainingSizes:
    complete = float(evaluated.benchmark.complete.mean())
    if "utility" in sweep.formulation and complete < ENOUGH_COMPLETE:
        raise PlanError(
            f"benchmark {evaluated.name!r}: only {complete:.0%} of the queries have every model observed; an area that "
            f"means something needs {ENOUGH_COMPLETE:.0%}: choose a smaller pool with `models:` or `family:`."
        )
    sizes: dict[tuple[float, int], int] = {}
    for size, seed in product(sorted({1.0, *sweep.train_sizes}), range(sweep.seeds)):
        split = split_benchmark(evaluated.benchmark, seed, root_seed=sweep.root_seed, train_size=size)
        sizes[size, seed] = len(split.train)
        if not len(split.train) or not len(split.test):
            raise PlanError(
                f"benchmark {evaluated.name!r}: split {seed} at train size {size} has {len(split.train)} training and "
                f"{len(split.test)} complete test queries; it is too small to be split."
            )
    return sizes


def _embedding(evaluated: EvaluatedBenchmark, encoder: NamedEncoder) -> Embedding:
    recipe, base = encoder.encoder.recipe(), None
    if isinstance(encoder.encoder, FittedEncoder) and encoder.encoder.base is not None:
        name, params = encoder.encoder.base_entry
        entry = EncoderEntry(name=name, **params)
        base = _embedding(evaluated, NamedEncoder(name=name, entry=entry, encoder=encoder.encoder.base))
    inputs = unique_inputs(evaluated.source, encoder.encoder.modality)
    check_inputs(encoder.encoder, inputs)
    return Embedding(
        digest=embedding_digest(recipe, inputs.digest),
        encoder=encoder,
        recipe=recipe,
        inputs=inputs,
        queries=evaluated.source.queries,
        base=base,
    )


def _evaluate_groups(
    sweep: Sweep,
    evaluated: EvaluatedBenchmark,
    embedding: Embedding | None,
    router: PlannedRouter,
    n_train: TrainingSizes,
) -> Iterator[EvaluateGroup]:
    formulations = [formulation for formulation in sweep.formulation if formulation in router.cls.formulations]
    if not formulations:
        return
    skipped = {size: _skipped_splits(sweep, evaluated, router, n_train, size) for size in sweep.train_sizes}
    twins = (False, True) if router.entry.twin else (False,)
    for formulation, twin, size in product(formulations, twins, sweep.train_sizes):
        yield EvaluateGroup(
            sweep=sweep,
            evaluated=evaluated,
            embedding=embedding,
            router=router,
            formulation=formulation,
            twin=twin,
            train_size=size,
            skipped=skipped[size],
        )


def _skipped_splits(
    sweep: Sweep, evaluated: EvaluatedBenchmark, router: PlannedRouter, n_train: TrainingSizes, size: float
) -> Mapping[int, str]:
    """Why splits of a training size cannot be computed by definition, of those that cannot.

    By each unit's own split: what is skipped must depend on nothing that is not in its key.
    """
    needs = router.cls(**router.params).requirements()
    missing = [need for need in needs if not evaluated.benchmark.offers(need)]
    if missing:
        return dict.fromkeys(range(sweep.seeds), f"needs {', '.join(missing)}")
    if router.cls.check is Router.check:
        return {}
    instance = router.cls(**router.params)
    try:
        for n in dict.fromkeys(n_train[1.0, seed] for seed in range(sweep.seeds)):
            instance.check(n_train=n)
    except RouterError as error:
        raise PlanError(f"benchmark {evaluated.name!r}, router {router.entry.name!r}: {error}") from error
    refused: dict[int, str] = {}
    sizes = [n_train[size, seed] for seed in range(sweep.seeds)]
    for n in set(sizes):
        try:
            instance.check(n_train=n)
        except RouterError as error:
            refused[n] = str(error)
    return {seed: refused[n] for seed, n in enumerate(sizes) if n in refused}
