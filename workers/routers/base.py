"""What is a router? A small base class: declare, fit on a training side, predict scores and costs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats, Model
from workers.errors import RouterError
from workers.plugins import discover, nearest

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """The queries of one side as a router sees them."""

    #: Positions in the benchmark. [n]
    rows: Positions
    #: Embeddings of the whole benchmark, shared by every side; None where the router needs none. [n_benchmark, d]
    matrix: npt.NDArray[np.float32] | None
    #: Row of `matrix` of each query; differs from `rows` for a blind twin's training side. [n]
    embedding_rows: Positions
    #: Task of each query. [n]
    tasks: tuple[str, ...]
    #: Number of each query's group: equal prompts, equal number. [n]
    groups: Positions
    models: tuple[Model, ...]
    #: Scores, NaN = not observed; None on a side to be routed, but for privileged routers. [n, M]
    scores: Floats | None = None
    #: Costs in units of c_ref, NaN exactly where scores are. [n, M]
    costs: Floats | None = None
    #: The text that encoders see, of routers that declare `text`; else None. [n]
    texts: tuple[str, ...] | None = None
    #: Data that the router declares beyond embeddings, scores and costs, by name (`workers.benchmarks.base.EXTRAS`).
    #: A side to be routed has what calling the models shows (answers, confidences), not their `samples`. [n, M, ...]
    extras: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of queries."""
        return len(self.rows)

    @property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """Embeddings of the whole benchmark. [n_benchmark, d].

        Raises:
            RouterError: The router declared that it needs none.
        """
        if self.matrix is None:
            raise RouterError("this router reads embeddings but declares needs_embedding = False; declare True.")
        return self.matrix

    @property
    def X(self) -> npt.NDArray[np.float32]:
        """Embeddings of this side, unit rows. [n, d]."""
        return self.embeddings[self.embedding_rows]

    @property
    def outcomes(self) -> tuple[Floats, Floats]:
        """Observed scores and costs, NaN = not observed. Both [n, M].

        Raises:
            RouterError: This side is to be routed, so its outcomes are hidden.
        """
        if self.scores is None or self.costs is None:
            raise RouterError("this router reads the outcomes of the queries that it routes; only references may.")
        return self.scores, self.costs

    def extra(self, name: str) -> npt.NDArray[Any]:
        """Declared data of every query and model. [n, M, ...].

        Raises:
            RouterError: The router declares it neither in `needs` nor in `uses`, or this side hides it.
        """
        if name not in self.extras:
            raise RouterError(f"this router reads {name!r} of a side that lacks it; declare it in `needs`.")
        return self.extras[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Predicted scores and costs, the latter in units of c_ref; never clipped. Both [n, M]."""

    scores: Floats
    costs: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """A router without a price of cost: probabilities of choosing each model, rows sum to 1. [n, M]."""

    probabilities: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Calls:
    """A router that may call several models for one query: what it does at each of its own settings.

    Settings are ordered as a price of cost that rises would take them, the dearest first. The frontier is drawn by
    them alone; a query pays for every call.
    """

    #: Probability that each model's answer is the one given; rows sum to 1. [K, n, M]
    answers: Floats
    #: Expected number of calls of each model. [K, n, M]
    called: Floats
    #: Mean score and cost of each setting on the training side: what a price of cost chooses a setting by. Both [K].
    train_scores: Floats
    train_costs: Floats

    def setting(self, price: float) -> int:
        """The setting of the highest training utility at a price of cost; ties to the cheaper, then the earlier."""
        utilities = self.train_scores - price * self.train_costs
        return int(np.where(utilities == utilities.max(), self.train_costs, np.inf).argmin())


#: Score and cost assumed of a model that a training side never observed: nobody should choose it.
NEVER_OBSERVED = (0.0, 1.0)


def mean_outcomes(side: Side) -> tuple[Floats, Floats]:
    """Mean observed score and cost of every model. Both [M]."""
    scores, costs = side.outcomes
    observed = ~np.isnan(scores)
    counts = observed.sum(axis=0)
    score, cost = (
        np.where(counts > 0, np.where(observed, values, 0.0).sum(axis=0) / np.maximum(counts, 1), never)
        for values, never in zip((scores, costs), NEVER_OBSERVED, strict=True)
    )
    return score, cost


class Router:
    """Subclass, set `name`, implement `fit` and `predict`; the constructor only stores parameters.

    Constructor parameters are keyword-only, have defaults and are stored under their own names. A parameter that
    `candidates` varies is tunable: unless the sweep file fixes one of them the router is tuned.
    """

    #: Name in sweep files.
    name: ClassVar[str]
    #: Raise it when the same parameters would give other results.
    version: ClassVar[str] = "1"
    #: One line for `roadtest routers list`.
    summary: ClassVar[str] = ""
    #: Authors, year, section or equation.
    source: ClassVar[str] = ""
    formulations: ClassVar[tuple[str, ...]] = ("utility",)
    needs_embedding: ClassVar[bool] = True
    #: Data beyond embeddings, scores and costs: `task`, `text` or names of `workers.benchmarks.base.EXTRAS`. A unit
    #: whose benchmark lacks one is skipped with that reason.
    needs: ClassVar[tuple[str, ...]] = ()
    #: Such data that it reads where a benchmark has them, and does without elsewhere.
    uses: ClassVar[tuple[str, ...]] = ()
    #: Learns from the models that it chose alone, one query after the other.
    online: ClassVar[bool] = False
    #: Reads test outcomes by definition: a reference, kept out of verdicts.
    privileged: ClassVar[bool] = False
    #: Predicts the same for every query.
    query_blind: ClassVar[bool] = False
    #: Names of the parameters that tuning varies; empty: never tuned.
    tunables: ClassVar[tuple[str, ...]] = ()
    #: Whether it is tuned when a sweep file fixes none of the tunables.
    tuned_by_default: ClassVar[bool] = True

    #: Parameter of which one fit can show all smaller values, such as epochs; tuning then stops every configuration
    #: early, at the best of its `stages`.
    staged: ClassVar[str | None] = None

    def params(self) -> dict[str, Any]:
        """Constructor parameters and their values."""
        return {key: getattr(self, key) for key in inspect.signature(type(self)).parameters}

    def check(self, *, n_train: int) -> None:
        """Refuse parameters that cannot work on a training side of this size.

        Raises:
            RouterError: With the reason, such as k above n_train.
        """

    def requirements(self) -> tuple[str, ...]:
        """The data that these parameters need; a family whose variants need different data overrides it."""
        return self.needs

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space as JSON values: part of a tuned unit's key."""
        return {}

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Draw the configurations to try: the paper's setting first, the query-blind limit among them.

        Args:
            n_train: Queries of the training side that the choice will be fitted on.
            budget: Number of configurations, at least 2.
            fixed: Parameters that are not tuned.
            rng: Stream that depends on the router's name and the split.
        """
        raise NotImplementedError(f"{cls.__name__} declares tunables, so it must draw candidates")

    @classmethod
    def stages(cls, config: Mapping[str, Any]) -> list[int]:
        """Values of the `staged` parameter that tuning tries of a drawn configuration, ascending."""
        return [0] if cls.staged is None else [int(config[cls.staged])]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Sort key of a configuration, simplest first: breaks ties of the validation score."""
        return ()

    @classmethod
    def check_twin(cls) -> None:
        """Refuse a blind twin where permuting the training embeddings means nothing.

        Raises:
            RouterError: The router reads no embedding, or test outcomes.
        """
        if cls.privileged or not cls.needs_embedding:
            why = "it reads test outcomes" if cls.privileged else "it reads no embedding"
            raise RouterError(
                f"router {cls.name!r} has no blind twin, because {why}; remove `twin: true` from its entry."
            )

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Learn from a training side (utility formulation)."""
        raise NotImplementedError(f"{self.name} has no utility formulation")

    def predict(self, queries: Side) -> Prediction | Mixture | Calls:
        """Predict scores and costs of every model [n, M], or what is called at each of the router's settings."""
        raise NotImplementedError(f"{self.name} has no utility formulation")

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Learn to name a model at one price of cost (selection formulation)."""
        raise NotImplementedError(f"{self.name} has no selection formulation")

    def select(self, queries: Side) -> Positions | Mixture:
        """Name a model for every query ([n]), or give the probabilities of choosing each."""
        raise NotImplementedError(f"{self.name} has no selection formulation")

    def partial_fit(self, more: Side, rng: np.random.Generator) -> Self:
        """Learn from more labelled queries without fitting anew (utility formulation).

        Args:
            more: Queries that no earlier fit saw, with outcomes of the same models.
            rng: Stream.
        """
        raise NotImplementedError(f"{self.name} cannot take more labelled queries in; fit it anew")

    def add_model(self, labelled: Side, rng: np.random.Generator) -> Self:
        """Take one more candidate model in without fitting anew (utility formulation).

        Args:
            labelled: Queries on which the new model was tried; its models are the old ones and the new one, in
                canonical order. What the old models did there may be unobserved.
            rng: Stream.
        """
        raise NotImplementedError(f"{self.name} cannot take a model in; fit it anew")

    @property
    def n_bytes(self) -> int:
        """Bytes that the fitted router must keep to route: the arrays of its fitted state (names ending in `_`)."""
        return sum(_bytes_of(value) for key, value in vars(self).items() if key.endswith("_"))

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """Fit and predict several jobs of one shard; a family overrides this to share work.

        Results may depend on nothing but the job itself: the same bits alone and in any company.
        """
        for job in jobs:
            begin = perf_counter()
            router = job.fit()
            fitted = perf_counter()
            prediction = router.predict(job.queries) if job.price is None else router.select(job.queries)
            yield Fitted(
                prediction=prediction,
                fit_seconds=fitted - begin,
                route_seconds=perf_counter() - fitted,
                n_bytes=router.n_bytes,
            )


def _bytes_of(value: object) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes_of, value))
    if isinstance(value, Side):
        own = value.n * int(value.embeddings[0].nbytes) if value.matrix is not None else 0
        return own + _bytes_of([value.scores, value.costs, dict(value.extras)])
    return 0


@dataclass(frozen=True, kw_only=True, eq=False)
class FitJob:
    """One fit and the queries to predict."""

    router: Router
    train: Side
    queries: Side
    rng: np.random.Generator
    #: None: predict scores and costs. Else the selection formulation at this price of cost.
    price: float | None = None

    def fit(self) -> Router:
        """Fit the router in this job's formulation."""
        if self.price is None:
            return self.router.fit(self.train, self.rng)
        return self.router.fit_selector(self.train, self.price, self.rng)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What a job gave."""

    #: Of a job with a price: the model named for every query [n], or probabilities.
    prediction: Prediction | Mixture | Calls | Positions
    fit_seconds: float
    route_seconds: float
    n_bytes: int
    #: Deterministic metrics of the fit beyond those of its answers, by name; asked once a unit, never by tuning.
    more_metrics: Callable[[], Mapping[str, float]] | None = None


@cache
def routers() -> dict[str, type[Router]]:
    """All routers by name: ours and those of installed plug-ins."""
    return discover("workers.routers", Router, "roadtest.routers")


def router_class(name: str) -> type[Router]:
    """Look a router up.

    Raises:
        RouterError: Unknown; names the nearest.
    """
    known = routers()
    if name not in known:
        raise RouterError(f"unknown router {name!r}; {nearest(name, list(known))}")
    return known[name]


def resolve_params(cls: type[Router], given: Mapping[str, Any]) -> dict[str, Any]:
    """The router's parameters with defaults filled in.

    Raises:
        RouterError: An unknown parameter or one that the constructor refuses.
    """
    allowed = inspect.signature(cls).parameters
    for key in given:
        if key not in allowed:
            advice = nearest(key, list(allowed)) if allowed else "it has none."
            raise RouterError(f"router {cls.name!r} has no parameter {key!r}; {advice}")
    try:
        return cls(**given).params()
    except (TypeError, ValueError) as error:
        raise RouterError(f"router {cls.name!r}: {error}") from error


def untuned_params(cls: type[Router], given: Mapping[str, Any], *, n_train: int) -> dict[str, Any]:
    """Parameters to fit without tuning: those given, defaults, and of a tunable without one what tuning tries first.

    Raises:
        RouterError: As `resolve_params`.
    """
    resolved = resolve_params(cls, given)
    if any(resolved[name] is None for name in cls.tunables):
        first = cls.candidates(n_train=n_train, budget=2, fixed=given, rng=np.random.default_rng(0))[0]
        resolved |= {name: value for name, value in first.items() if name not in given}
    return resolved
