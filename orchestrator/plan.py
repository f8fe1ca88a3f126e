"""Which units does a sweep ask for? Benchmarks x encoders x routers x splits, with content keys; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from orchestrator.catalog import EvaluatedBenchmark, NamedEncoder
from orchestrator.errors import PlanError
from orchestrator.keys import digest, unit_key
from orchestrator.sweep import RouterEntry, Sweep
from workers.benchmarks.base import ENOUGH_COMPLETE
from workers.embed import BATCH_SCHEME, UniqueInputs, check_inputs, embedding_digest, slice_bounds, unique_inputs
from workers.errors import RouterError
from workers.metrics.summary import VERSION as METRICS_VERSION
from workers.routers.base import Router, resolve_params, router_class
from workers.sides import ENOUGH_VALIDATION, FOLDS
from workers.splits import split_benchmark
from workers.tuning import CRITERIA
from workers.units import EmbedUnit, EvaluateUnit, Formulation

#: Part of every key: raise one when its code would give other results for the same inputs.
VERSIONS = {"protocol": "1", "metrics": METRICS_VERSION}


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding:
    """One embedding that a sweep needs: an encoder's rows of a source's unique inputs."""

    #: Digest of recipe and inputs.
    digest: str
    encoder: NamedEncoder
    recipe: Mapping[str, Any]
    inputs: UniqueInputs
    #: The source's query ids in order, to find a benchmark's rows.
    queries: tuple[str, ...]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First and one-past-last input of every slice."""
        return slice_bounds(len(self.inputs.inputs))


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedUnit:
    """A unit with the names that this sweep shows it under."""

    #: What travels to a worker.
    unit: EvaluateUnit | EmbedUnit
    #: What the key is made of.
    spec: Mapping[str, Any]
    #: Digest of the specification without the split.
    config: str
    embedding: Embedding | None
    evaluated: EvaluatedBenchmark | None = None
    encoder: str | None = None
    router: str | None = None
    twin_of: str | None = None
    #: Why it cannot be computed by definition.
    skipped: str | None = None

    @property
    def key(self) -> str:
        """Content key."""
        return self.unit.key

    @property
    def kind(self) -> str:
        """`embed` or `evaluate`."""
        return "embed" if isinstance(self.unit, EmbedUnit) else "evaluate"


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that a sweep asks for, in the order in which it is worked off."""

    sweep: Sweep
    benchmarks: tuple[EvaluatedBenchmark, ...]
    embeddings: tuple[Embedding, ...]
    units: tuple[PlannedUnit, ...]


@dataclass(frozen=True, kw_only=True)
class _PlannedRouter:
    entry: RouterEntry
    cls: type[Router]
    params: Mapping[str, Any]
    tuned: bool


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
    names = [evaluated.name for evaluated in benchmarks]
    for name in names:
        if names.count(name) > 1:
            raise PlanError(f"benchmarks: two are named {name!r}, one of them a task; give one another `name:`.")
    embeddings: dict[tuple[int, str], Embedding] = {}
    units: list[PlannedUnit] = []
    for evaluated in benchmarks:
        n_train = _training_sizes(sweep, evaluated)
        for encoder in (None, *encoders):
            embedding = None
            if encoder is not None:
                where = (id(evaluated.source), encoder.name)
                if where not in embeddings:
                    embeddings[where] = _embedding(evaluated, encoder)
                embedding = embeddings[where]
            for router, formulation in product(chosen, sweep.formulation):
                if router.cls.needs_embedding == (encoder is None):
                    continue
                units += _evaluate_units(sweep, evaluated, embedding, router, formulation, n_train)
    distinct = {embedding.digest: embedding for embedding in embeddings.values()}
    embeds = [planned for embedding in distinct.values() for planned in _embed_units(embedding)]
    return Plan(sweep=sweep, benchmarks=tuple(benchmarks), embeddings=tuple(distinct.values()), units=(*embeds, *units))


def _resolve_router(entry: RouterEntry) -> _PlannedRouter:
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
    return _PlannedRouter(entry=entry, cls=cls, params=params, tuned=tuned)


def _training_sizes(sweep: Sweep, evaluated: EvaluatedBenchmark) -> dict[tuple[float, int], int]:
    """Queries on the training side by training size and split index."""
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
    recipe = encoder.encoder.recipe()
    inputs = unique_inputs(evaluated.source, encoder.encoder.modality)
    check_inputs(encoder.encoder, inputs)
    return Embedding(
        digest=embedding_digest(recipe, inputs.digest),
        encoder=encoder,
        recipe=recipe,
        inputs=inputs,
        queries=evaluated.source.queries,
    )


def _embed_units(embedding: Embedding) -> list[PlannedUnit]:
    planned = []
    for start, stop in embedding.bounds:
        spec = {
            "kind": "embed",
            "recipe": embedding.recipe,
            "inputs": embedding.inputs.digest,
            "batches": BATCH_SCHEME,
            "slice": [start, stop],
        }
        unit = EmbedUnit(
            key=unit_key(spec),
            embedding=embedding.digest,
            encoder=embedding.encoder.entry.target,
            params=embedding.encoder.entry.params,
            start=start,
            stop=stop,
        )
        planned.append(
            PlannedUnit(
                unit=unit,
                spec=spec,
                config=digest({**spec, "slice": None}),
                embedding=embedding,
                encoder=embedding.encoder.name,
            )
        )
    return planned


def _evaluate_units(
    sweep: Sweep,
    evaluated: EvaluatedBenchmark,
    embedding: Embedding | None,
    router: _PlannedRouter,
    formulation: Formulation,
    n_train: Mapping[tuple[float, int], int],
) -> list[PlannedUnit]:
    if formulation not in router.cls.formulations:
        return []
    name = router.entry.name
    planned = []
    missing = [need for need in router.cls.needs if not _offers(evaluated, need)]
    for twin, size in product((False, True) if router.entry.twin else (False,), sweep.train_sizes):
        for seed in range(sweep.seeds):
            # By the unit's own split: what is skipped must depend on nothing that is not in its key.
            skipped = f"needs {', '.join(missing)}" if missing else _too_small(evaluated, router, n_train, size, seed)
            spec = _evaluate_spec(sweep, evaluated, embedding, router, formulation, twin, size, seed)
            unit = EvaluateUnit(
                key=unit_key(spec),
                router=router.cls.name,
                params=router.params,
                tuned=router.tuned,
                twin=twin,
                formulation=formulation,
                split=seed,
                root_seed=sweep.root_seed,
                train_size=size,
                protocol=sweep.protocol.options(),
            )
            planned.append(
                PlannedUnit(
                    unit=unit,
                    spec=spec,
                    config=digest({**spec, "split": None}),
                    embedding=embedding,
                    evaluated=evaluated,
                    encoder=embedding.encoder.name if embedding else None,
                    router=f"{name} blind twin" if twin else name,
                    twin_of=name if twin else None,
                    skipped=skipped,
                )
            )
    return planned


def _offers(evaluated: EvaluatedBenchmark, need: str) -> bool:
    return need == "task" and any(evaluated.benchmark.tasks)


def _too_small(
    evaluated: EvaluatedBenchmark,
    router: _PlannedRouter,
    n_train: Mapping[tuple[float, int], int],
    size: float,
    seed: int,
) -> str | None:
    instance = router.cls(**router.params)
    try:
        instance.check(n_train=n_train[1.0, seed])
    except RouterError as error:
        raise PlanError(f"benchmark {evaluated.name!r}, router {router.entry.name!r}: {error}") from error
    try:
        instance.check(n_train=n_train[size, seed])
    except RouterError as error:
        return str(error)
    return None


def _evaluate_spec(
    sweep: Sweep,
    evaluated: EvaluatedBenchmark,
    embedding: Embedding | None,
    router: _PlannedRouter,
    formulation: Formulation,
    twin: bool,
    size: float,
    seed: int,
) -> dict[str, Any]:
    options = asdict(sweep.protocol.options())
    tuning = None
    budget = options.pop("tuning_budget")
    if router.tuned:
        tuning = {
            "space": router.cls.space(),
            "budget": budget,
            "criterion": CRITERIA[formulation],
            "cross_validation": {"below": ENOUGH_VALIDATION, "folds": FOLDS},
        }
    if formulation == "selection":  # it draws no frontier and resamples nothing
        options = {name: options[name] for name in ("cost_normalizer", "missing")}
    benchmark = evaluated.benchmark
    return {
        "kind": "evaluate",
        "benchmark": benchmark.fingerprint,
        "source_groups": benchmark.groups_digest,
        # Resamples of the bootstrap depend on these two names.
        "suite": [benchmark.suite, benchmark.embedded] if options.get("bootstrap") else None,
        "embedding": embedding
        and {"recipe": embedding.recipe, "inputs": embedding.inputs.digest, "batches": BATCH_SCHEME},
        "router": {
            "name": router.cls.name,
            "version": router.cls.version,
            "params": router.params,
            "tuning": tuning,
            "twin": twin,
        },
        "formulation": formulation,
        "split": seed,
        "root_seed": sweep.root_seed,
        "train_size": size,
        "protocol": options,
        "versions": VERSIONS,
    }
