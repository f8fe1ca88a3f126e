"""What is a planned unit, and how does a plan hold a million of them? As groups whose units are made when asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Protocol, overload

from orchestrator.catalog import EvaluatedBenchmark, NamedEncoder
from orchestrator.keys import SpecFamily, text_digest, text_key
from orchestrator.sweep import RouterEntry, Sweep
from workers.benchmarks.base import Benchmark
from workers.embed import BATCH_SCHEME, UniqueInputs, slice_bounds
from workers.encoders.fitted import FittedEncoder
from workers.metrics.summary import VERSION as METRICS_VERSION
from workers.routers.base import Router
from workers.sides import ENOUGH_VALIDATION, FOLDS
from workers.tuning import CRITERIA
from workers.units import EmbedUnit, EvaluateUnit, Formulation, MeasureUnit

#: Part of every key: raise one when its code would give other results for the same inputs.
VERSIONS = {"protocol": "1", "metrics": METRICS_VERSION}
#: Groups whose shared part is kept ready for random access: claims come in the plan's order.
_READY_GROUPS = 64


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
    #: What a fitted encoder reads; None: texts, or it is not fitted.
    base: Embedding | None = None

    @property
    def fitted(self) -> bool:
        """Whether its rows come from each split's training side, so that none are stored."""
        return isinstance(self.encoder.encoder, FittedEncoder)

    @property
    def stored(self) -> Embedding | None:
        """The embedding whose slices evaluations read: itself, or what its fitted encoder reads."""
        return self.base if self.fitted else self

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First and one-past-last input of every slice."""
        return slice_bounds(len(self.inputs.inputs))


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedRouter:
    """One router of a sweep with its parameters resolved."""

    entry: RouterEntry
    cls: type[Router]
    params: Mapping[str, Any]
    tuned: bool

    def data(self, benchmark: Benchmark) -> tuple[str, ...]:
        """What it reads of a benchmark beyond embeddings, scores, costs and tasks: `text` and names of extras."""
        asked = dict.fromkeys((*self.cls(**self.params).requirements(), *self.cls.uses))
        return tuple(name for name in asked if name != "task" and benchmark.offers(name))


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PlannedUnit:
    """A unit with the names that this sweep shows it under."""

    #: What travels to a worker.
    unit: EvaluateUnit | EmbedUnit | MeasureUnit
    #: What the key is made of.
    spec: Mapping[str, Any]
    #: The same as canonical JSON.
    spec_json: str
    #: Digest of the specification without the split.
    config: str
    embedding: Embedding | None
    evaluated: EvaluatedBenchmark | None = None
    encoder: str | None = None
    router: str | None = None
    twin_of: str | None = None
    #: What its router reads of the benchmark beyond embeddings, scores, costs and tasks.
    data: tuple[str, ...] = ()
    #: Why it cannot be computed by definition.
    skipped: str | None = None

    @property
    def key(self) -> str:
        """Content key."""
        return self.unit.key

    @property
    def kind(self) -> str:
        """`embed`, `evaluate` or `measure`."""
        kinds = {EmbedUnit: "embed", EvaluateUnit: "evaluate", MeasureUnit: "measure"}
        return kinds[type(self.unit)]


class UnitGroup(Protocol):
    """Units that follow each other in a plan and differ in one field of their specification."""

    def __len__(self) -> int:
        """Number of units."""

    def maker(self) -> Callable[[int], PlannedUnit]:
        """Work out what the units share; return what makes the i-th of them."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class EmbedGroup:
    """The slices of one embedding."""

    embedding: Embedding

    def __len__(self) -> int:
        return len(self.embedding.bounds)

    def maker(self) -> Callable[[int], PlannedUnit]:
        """Work out what the slices share; return what makes the i-th of them."""
        embedding = self.embedding
        bounds, entry = embedding.bounds, embedding.encoder.entry
        family = SpecFamily(
            {
                "kind": "embed",
                "recipe": embedding.recipe,
                "inputs": embedding.inputs.digest,
                "batches": BATCH_SCHEME,
            },
            "slice",
        )
        config = text_digest(family.text(None))

        def make(i: int) -> PlannedUnit:
            start, stop = bounds[i]
            spec_json = family.text([start, stop])
            unit = EmbedUnit(
                key=text_key(spec_json),
                embedding=embedding.digest,
                encoder=entry.target,
                params=entry.params,
                start=start,
                stop=stop,
            )
            return PlannedUnit(
                unit=unit,
                spec=family.spec([start, stop]),
                spec_json=spec_json,
                config=config,
                embedding=embedding,
                encoder=embedding.encoder.name,
            )

        return make


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class EvaluateGroup:
    """The splits of one configuration: benchmark x encoder x router x formulation x twin x training size."""

    sweep: Sweep
    evaluated: EvaluatedBenchmark
    embedding: Embedding | None
    router: PlannedRouter
    formulation: Formulation
    twin: bool
    train_size: float
    #: Why a split cannot be computed by definition, of those that cannot.
    skipped: Mapping[int, str]

    def __len__(self) -> int:
        return self.sweep.seeds

    def maker(self) -> Callable[[int], PlannedUnit]:
        """Work out what the splits share; return what makes the i-th of them."""
        family = SpecFamily(self._shared_spec(), "split")
        config = text_digest(family.text(None))
        router, root_seed = self.router, self.sweep.root_seed
        protocol = self.sweep.protocol.options()
        name = router.entry.name
        encoder = self.embedding.encoder.name if self.embedding else None
        data = router.data(self.evaluated.benchmark)
        shown, twin_of = (f"{name} blind twin", name) if self.twin else (name, None)

        def make(split: int) -> PlannedUnit:
            spec_json = family.text(split)
            unit = EvaluateUnit(
                key=text_key(spec_json),
                router=router.cls.name,
                params=router.params,
                tuned=router.tuned,
                twin=self.twin,
                formulation=self.formulation,
                split=split,
                root_seed=root_seed,
                train_size=self.train_size,
                protocol=protocol,
            )
            return PlannedUnit(
                unit=unit,
                spec=family.spec(split),
                spec_json=spec_json,
                config=config,
                embedding=self.embedding,
                evaluated=self.evaluated,
                encoder=encoder,
                router=shown,
                twin_of=twin_of,
                data=data,
                skipped=self.skipped.get(split),
            )

        return make

    def _shared_spec(self) -> dict[str, Any]:
        """All that the key is made of, but for the split."""
        options = asdict(self.sweep.protocol.options())
        cls, tuning = self.router.cls, None
        budget = options.pop("tuning_budget")
        if self.router.tuned:
            tuning = {
                "space": cls.space(),
                "budget": budget,
                "criterion": CRITERIA[self.formulation],
                "cross_validation": {"below": ENOUGH_VALIDATION, "folds": FOLDS},
            }
        if self.formulation == "selection":  # it draws no frontier and resamples nothing
            options = {name: options[name] for name in ("cost_normalizer", "missing")}
        benchmark, embedding = self.evaluated.benchmark, self.embedding
        extras = {n: benchmark.extra_digests[n] for n in self.router.data(benchmark) if n in benchmark.extras}
        return {
            "kind": "evaluate",
            "benchmark": benchmark.fingerprint,
            "source_groups": benchmark.groups_digest,
            # Resamples of the bootstrap depend on these two names.
            "suite": [benchmark.suite, benchmark.embedded] if options.get("bootstrap") else None,
            "embedding": embedding
            and {"recipe": embedding.recipe, "inputs": embedding.inputs.digest, "batches": BATCH_SCHEME},
            "router": {
                "name": cls.name,
                "version": cls.version,
                "params": self.router.params,
                "tuning": tuning,
                "twin": self.twin,
                **({"data": extras} if extras else {}),
            },
            "formulation": self.formulation,
            "root_seed": self.sweep.root_seed,
            "train_size": self.train_size,
            "protocol": options,
            "versions": VERSIONS,
        }


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class MeasureGroup:
    """One measure of a study, of a benchmark under an encoder: at several splits, or of one parameter's values."""

    sweep: Sweep
    evaluated: EvaluatedBenchmark
    embedding: Embedding | None
    measure: str
    version: str
    params: Mapping[str, Any]
    #: What the units differ in: `split`, or a parameter of the measure.
    field: str
    values: tuple[Any, ...]
    #: Display name of the router that is measured, None where it is the embedding.
    router: str | None = None

    def __len__(self) -> int:
        return len(self.values)

    def maker(self) -> Callable[[int], PlannedUnit]:
        """Work out what the units share; return what makes the i-th of them."""
        benchmark, embedding = self.evaluated.benchmark, self.embedding
        family = SpecFamily(
            {
                "kind": "measure",
                "measure": {"name": self.measure, "version": self.version, "params": self.params},
                "benchmark": benchmark.fingerprint,
                "source_groups": benchmark.groups_digest,
                "embedding": embedding
                and {"recipe": embedding.recipe, "inputs": embedding.inputs.digest, "batches": BATCH_SCHEME},
                "root_seed": self.sweep.root_seed,
            },
            self.field,
        )
        config = text_digest(family.text(None))

        def make(i: int) -> PlannedUnit:
            value = self.values[i]
            of_split = self.field == "split"
            spec_json = family.text(value)
            unit = MeasureUnit(
                key=text_key(spec_json),
                measure=self.measure,
                params=self.params if of_split else {**self.params, self.field: value},
                split=value if of_split else 0,
                root_seed=self.sweep.root_seed,
            )
            return PlannedUnit(
                unit=unit,
                spec=family.spec(value),
                spec_json=spec_json,
                config=config,
                embedding=embedding,
                evaluated=self.evaluated,
                encoder=embedding.encoder.name if embedding else None,
                router=self.router,
            )

        return make


class Units(Sequence[PlannedUnit]):
    """Every unit of a plan in its order, each made when it is asked for.

    Attributes:
        groups: What they are made from.
    """

    def __init__(self, groups: Sequence[UnitGroup]) -> None:
        self.groups = groups
        #: Position of each group's first unit, and one past the last unit of all.
        self._starts = [0, *accumulate(map(len, groups))]
        self._maker = lru_cache(maxsize=_READY_GROUPS)(lambda group: groups[group].maker())

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[PlannedUnit]:
        for group in self.groups:
            yield from map(group.maker(), range(len(group)))

    @overload
    def __getitem__(self, position: int) -> PlannedUnit: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[PlannedUnit]: ...
    def __getitem__(self, position: int | slice) -> PlannedUnit | Sequence[PlannedUnit]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"the plan has {len(self)} units")
        group = bisect_right(self._starts, position) - 1
        return self._maker(group)(position - self._starts[group])
