"""How good is each router on its split? The evaluate job: a shard of units of one benchmark and one embedding."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from time import perf_counter

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from workers.benchmarks.base import ENOUGH_COMPLETE, Benchmark
from workers.encoders.fitted import SplitEncoder
from workers.errors import InputError, RouterError
from workers.metrics.areas import Areas
from workers.metrics.bootstrap import bootstrap_areas, multiplicities
from workers.metrics.summary import Measured, both_areas, measure, measure_choices
from workers.routers.base import Calls, Fitted, Mixture, Positions, Prediction, Router, Side, router_class
from workers.routers.baselines import BestSingle, ZeroRouter
from workers.seeding import generator
from workers.sides import Trial, blinded, cost_ratios, hidden, subset, tuning_trials, whole
from workers.splits import split_benchmark
from workers.tuning import Tuned, TuningTask, fit_jobs, tune
from workers.units import PREFERENCES, TOGETHER, EvaluateResult, EvaluateUnit, ProtocolOptions, UnitFailure


def run_evaluate(
    units: Sequence[EvaluateUnit],
    benchmark: Benchmark,
    embedding: npt.NDArray[np.float32] | None = None,
    encoder: SplitEncoder | None = None,
) -> list[EvaluateResult | UnitFailure]:
    """Evaluate a shard. What a unit gives does not depend on the others, bit for bit.

    Args:
        units: Any routers, splits and options; those of one router family share work.
        benchmark: What all units evaluate on.
        embedding: Unit rows, one for each query of the benchmark; read only. None where no router needs it. [n, d]
        encoder: What makes of these rows, or of texts, those that routers see; fitted on each training side anew.

    Returns:
        A result or a failure for each unit, in their order.
    """
    import scipy.linalg  # noqa: F401 -- it brings a BLAS of its own, which can be limited once it is loaded

    if embedding is not None:
        # Nobody can write to this view, so what is found of it holds for the whole shard.
        embedding = embedding.view()
        embedding.flags.writeable = False
    shard = _Shard(benchmark, embedding, encoder)
    families: dict[str, list[EvaluateUnit]] = {}
    for unit in units:
        families.setdefault(unit.router, []).append(unit)
    outcomes: dict[str, EvaluateResult | UnitFailure] = {}
    with threadpool_limits(limits=1):
        for members in families.values():
            for start in range(0, len(members), TOGETHER):
                for outcome in _isolated(shard, members[start : start + TOGETHER]):
                    outcomes[outcome.key] = outcome
    return [outcomes[unit.key] for unit in units]


def _isolated(shard: _Shard, units: Sequence[EvaluateUnit]) -> Iterator[EvaluateResult | UnitFailure]:
    """Evaluate together; if that fails, each unit alone, so that only the culprit fails."""
    begin = perf_counter()
    try:
        results = shard.evaluate(units)
    except (Exception, SystemExit) as error:  # a router that calls sys.exit must not end the worker
        if len(units) == 1:
            yield _failure(units[0].key, error, perf_counter() - begin)
        else:
            for unit in units:
                yield from _isolated(shard, [unit])
    else:
        yield from results


def _failure(key: str, error: BaseException, seconds: float) -> UnitFailure:
    kinds = ((InputError, "user_error"), (MemoryError, "out_of_memory"), (BaseException, "exception"))
    kind = next(kind for cls, kind in kinds if isinstance(error, cls))
    return UnitFailure(
        key=key,
        kind=kind,
        message=str(error) or type(error).__name__,
        traceback="" if kind == "user_error" else "".join(traceback.format_exception(error)),
        seconds=seconds,
    )


class _Ground:
    """One split at one training size, as all its units share it."""

    def __init__(
        self, everything: Side, benchmark: Benchmark, unit: EvaluateUnit, encoder: SplitEncoder | None
    ) -> None:
        split = split_benchmark(benchmark, unit.split, root_seed=unit.root_seed, train_size=unit.train_size)
        self.root_seed, self.index = unit.root_seed, unit.split
        self.options = unit.protocol
        self.encoded = partial(encoder.encoded, everything, unit) if encoder else None
        if self.encoded is not None and len(split.train):
            everything = self.encoded(split.train)
        self.everything = everything
        self.train = subset(everything, split.train)
        self.validation = subset(everything, split.validation)
        self.test = subset(everything, split.test)
        if not self.train.n or not self.test.n:
            raise InputError(
                f"benchmark {benchmark.name!r}, split {unit.split}: {self.train.n} training queries and {self.test.n} "
                "complete test queries; use more queries, more tasks or a smaller pool."
            )

    @cached_property
    def final(self) -> Trial:
        """The fit that is reported."""
        return Trial(train=self.train, held=self.test, queries=hidden(self.test))

    @cached_property
    def twin(self) -> Trial:
        """The same for blind twins."""
        stream = generator(self.root_seed, "twin", self.index)
        return Trial(train=blinded(self.train, stream), held=self.test, queries=self.final.queries)

    @cached_property
    def privileged(self) -> Trial:
        """The same for references, which read the outcomes of the queries that they route."""
        return Trial(train=self.train, held=self.test, queries=self.test)

    @cached_property
    def tuning(self) -> tuple[Trial, ...]:
        """What tuning trains on and judges by."""
        stream = generator(self.root_seed, "folds", self.index)
        return tuning_trials(self.everything, self.train, self.validation, stream, self.encoded)

    @cached_property
    def zero(self) -> Areas:
        """Areas of the zero-router."""
        router = ZeroRouter().fit(self.train, np.random.default_rng(0))
        return both_areas(router.predict(self.test), *self.test.outcomes, self.options)

    @cached_property
    def oracle(self) -> Areas:
        """Areas of the oracle."""
        scores, costs = self.test.outcomes
        return both_areas(Prediction(scores=scores, costs=costs), scores, costs, self.options)

    @cached_property
    def best_single(self) -> int:
        """The best single model by training means."""
        return BestSingle().fit(self.train, np.random.default_rng(0)).model_


class _Shard:
    """A benchmark under one embedding, with what its units share."""

    def __init__(
        self, benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, encoder: SplitEncoder | None
    ) -> None:
        self.benchmark, self.embedding, self.encoder = benchmark, embedding, encoder
        self.models = [model.name for model in benchmark.models]
        self._everything: dict[str, Side] = {}
        self._grounds: dict[tuple[int, int, float, ProtocolOptions], _Ground] = {}
        self._draws: dict[tuple[int, int], npt.NDArray[np.int32]] = {}

    def evaluate(self, units: Sequence[EvaluateUnit]) -> list[EvaluateResult]:
        """Tune, fit, predict and measure units of one router.

        Raises:
            InputError: A unit asks for what its router or the benchmark cannot give.
        """
        begin = perf_counter()
        cls = router_class(units[0].router)
        for unit in units:
            self._check(cls, unit)
        grounds = [self._ground(unit) for unit in units]
        choices = _tune(cls, units, grounds)
        jobs = []
        for unit, ground, choice in zip(units, grounds, choices, strict=True):
            trial = ground.privileged if cls.privileged else ground.twin if unit.twin else ground.final
            router = choice.router if choice else cls(**unit.params)
            router.check(n_train=trial.train.n)
            jobs.append(fit_jobs(router, trial, unit.formulation, unit.root_seed, unit.split))
        fitted = cls.predict_many([job for fits in jobs for job in fits])
        results = [
            self._result(unit, ground, choice, [next(fitted) for _ in fits])
            for unit, ground, choice, fits in zip(units, grounds, choices, jobs, strict=True)
        ]
        seconds = (perf_counter() - begin) / len(units)
        return [replace(result, seconds=seconds) for result in results]

    def _check(self, cls: type[Router], unit: EvaluateUnit) -> None:
        where = f"benchmark {self.benchmark.name!r}, router {unit.router!r}: "
        complete = float(self.benchmark.complete.mean())
        if unit.formulation == "utility" and complete < ENOUGH_COMPLETE:
            raise InputError(
                f"{where}only {complete:.0%} of the queries have every model observed; an area that means something "
                f"needs at least {ENOUGH_COMPLETE:.0%}: choose a smaller pool with `models:` or `family:`."
            )
        if unit.formulation not in cls.formulations:
            raise RouterError(f"{where}it has no {unit.formulation} formulation, only {', '.join(cls.formulations)}.")
        if cls.needs_embedding and self.embedding is None and self.encoder is None:
            raise RouterError(f"{where}it needs an embedding; name an encoder.")
        missing = [need for need in cls(**unit.params).requirements() if not self.benchmark.offers(need)]
        if missing:
            raise RouterError(f"{where}it needs {', '.join(missing)}, which this benchmark lacks.")
        if unit.twin:
            cls.check_twin()

    def _ground(self, unit: EvaluateUnit) -> _Ground:
        key = (unit.root_seed, unit.split, unit.train_size, unit.protocol)
        if key not in self._grounds:
            normalizer = unit.protocol.cost_normalizer
            if normalizer not in self._everything:
                costs = cost_ratios(self.benchmark, unit.protocol)
                self._everything[normalizer] = whole(self.benchmark, costs, self.embedding)
            self._grounds[key] = _Ground(self._everything[normalizer], self.benchmark, unit, self.encoder)
        return self._grounds[key]

    def _result(
        self, unit: EvaluateUnit, ground: _Ground, choice: Tuned | None, fitted: Sequence[Fitted]
    ) -> EvaluateResult:
        measured = self._measured(unit, ground, fitted)
        observed = {
            "fit_seconds": sum(f.fit_seconds for f in fitted),
            "route_us_per_query": 1e6 * sum(f.route_seconds for f in fitted) / len(fitted) / ground.test.n,
            "router_bytes": float(max(f.n_bytes for f in fitted)),
        }
        more = [f.more_metrics() for f in fitted if f.more_metrics is not None]
        observed |= {name: float(np.mean([each[name] for each in more])) for name in (more[0] if more else ())}
        areas = None
        if measured.walk is not None and unit.protocol.bootstrap:
            areas = bootstrap_areas(measured.walk, self._multiplicities(unit)[:, ground.test.groups])
        return EvaluateResult(
            key=unit.key,
            n_train=ground.train.n,
            n_validation=ground.validation.n,
            n_test=ground.test.n,
            metrics={**measured.metrics, **observed},
            chosen=choice.chosen if choice else None,
            frontier=measured.frontier,
            decisions=measured.decisions,
            bootstrap=areas,
            tuning_seconds=choice.seconds if choice else None,
        )

    def _measured(self, unit: EvaluateUnit, ground: _Ground, fitted: Sequence[Fitted]) -> Measured:
        scores, costs = ground.test.outcomes
        if unit.formulation == "utility":
            prediction = fitted[0].prediction
            assert isinstance(prediction, Prediction | Mixture | Calls)
            return measure(
                prediction=prediction,
                scores=scores,
                costs=costs,
                models=self.models,
                best_single=ground.best_single,
                zero=ground.zero,
                oracle=ground.oracle,
                options=unit.protocol,
            )
        choices: dict[str, Positions | Mixture] = {}
        for name, answer in zip(PREFERENCES, fitted, strict=True):
            assert not isinstance(answer.prediction, Prediction | Calls)
            choices[name] = answer.prediction
        return measure_choices(choices, scores=scores, costs=costs, models=self.models)

    def _multiplicities(self, unit: EvaluateUnit) -> npt.NDArray[np.int32]:
        """How often each resample holds each group of the source. [bootstrap, n_groups]."""
        key = (unit.root_seed, unit.protocol.bootstrap)
        if key not in self._draws:
            benchmark = self.benchmark
            self._draws[key] = multiplicities(
                benchmark.source_groups, unit.root_seed, benchmark.suite, benchmark.embedded, unit.protocol.bootstrap
            )
        return self._draws[key]


def _tune(cls: type[Router], units: Sequence[EvaluateUnit], grounds: Sequence[_Ground]) -> list[Tuned | None]:
    """Tune what is to be tuned; a blind twin gets the parameters that its router's own tuning chooses."""
    tasks: dict[str, TuningTask] = {}
    names = []
    for unit, ground in zip(units, grounds, strict=True):
        name = repr((sorted(unit.params.items()), unit.formulation, id(ground))) if unit.tuned else ""
        names.append(name)
        if unit.tuned and name not in tasks:
            tasks[name] = TuningTask(
                cls=cls,
                fixed=unit.params,
                formulation=unit.formulation,
                trials=ground.tuning,
                n_train=ground.train.n,
                root_seed=unit.root_seed,
                split=unit.split,
                options=unit.protocol,
            )
    tuned = dict(zip(tasks, tune(list(tasks.values())), strict=True)) if tasks else {}
    return [tuned.get(name) for name in names]
