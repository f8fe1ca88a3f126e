"""Which configuration of a router does the validation side choose? The same budget for all (protocol 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from workers.errors import RouterError
from workers.metrics import selection
from workers.metrics.summary import path_areas
from workers.routers.base import Calls, FitJob, Fitted, Mixture, Prediction, Router
from workers.seeding import generator
from workers.sides import Trial
from workers.units import PREFERENCES, Formulation, ProtocolOptions

#: Validation scores (x 100) closer than this tie, and the simplest configuration wins.
TIE = 1e-9

#: A space that holds fewer configurations than the budget is given up after so many doublings of the draw.
MOST_DOUBLINGS = 4

#: Predictions that are scored at once.
SCORED_TOGETHER = 8

#: What tuning maximises in each formulation.
CRITERIA: Mapping[Formulation, str] = {"utility": "auc_path", "selection": "utility_mean"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningTask:
    """A router to tune on one split."""

    cls: type[Router]
    #: Parameters that are not tuned.
    fixed: Mapping[str, Any]
    formulation: Formulation
    trials: tuple[Trial, ...]
    #: Queries of the training side that the chosen configuration will be fitted on.
    n_train: int
    root_seed: int
    split: int
    options: ProtocolOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A tuning's outcome."""

    router: Router
    #: Deterministic JSON values: the chosen `params`, the `criterion`, the number of `folds` (1: the validation side),
    #: the chosen `score` and the `scores` (x 100) of all configurations in the order of the draw.
    chosen: Mapping[str, Any]
    #: Seconds of its fits, predictions and scoring.
    seconds: float


def fit_jobs(router: Router, trial: Trial, formulation: Formulation, root_seed: int, split: int) -> list[FitJob]:
    """The fits that one router needs: one for utility prediction, one per preference for selection.

    The stream depends on the router's name, split and preference, not on its parameters or how it was chosen.
    """
    wanted: Mapping[str, float | None] = PREFERENCES if formulation == "selection" else {"utility": None}
    return [
        FitJob(
            router=type(router)(**router.params()),
            train=trial.train,
            queries=trial.queries,
            rng=generator(root_seed, "fit", router.name, split, name),
            price=price,
        )
        for name, price in wanted.items()
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Option:
    """One configuration at one of its stages, and what it scored on every trial and price."""

    #: Position among the drawn configurations.
    config: int
    params: Mapping[str, Any]
    scores: list[list[float]]

    @property
    def score(self) -> float:
        """Mean over the trials."""
        return float(np.mean([float(np.mean(prices)) for prices in self.scores]))


def tune(tasks: Sequence[TuningTask]) -> list[Tuned]:
    """Tune several splits of one router class together, so that its family shares what can be shared.

    A drawn configuration of a router with a `staged` parameter is stopped early: it counts with the stage that the
    trials judge best, the same stage for all of them.

    Raises:
        RouterError: The router declares nothing to tune, or no query is left to judge by.
    """
    options = [_options(task) for task in tasks]
    jobs: list[FitJob] = []
    places: list[tuple[int, Trial, list[float]]] = []
    for number, task in enumerate(tasks):
        for option in options[number]:
            router = task.cls(**{**task.fixed, **option.params})
            for trial, scores in zip(task.trials, option.scores, strict=True):
                fits = fit_jobs(router, trial, task.formulation, task.root_seed, task.split)
                jobs += fits
                places += [(number, trial, scores)] * len(fits)
    seconds = [0.0] * len(tasks)
    # Scored as they come: all predictions of a large benchmark's grid together would not fit into memory.
    answers = tasks[0].cls.predict_many(jobs) if jobs else iter(())
    waiting: list[_Answer] = []
    for job, (number, trial, scores), fitted in zip(jobs, places, answers, strict=True):
        seconds[number] += fitted.fit_seconds + fitted.route_seconds
        waiting.append(_Answer(task=tasks[number], number=number, trial=trial, job=job, fitted=fitted, scores=scores))
        if len(waiting) == SCORED_TOGETHER:
            _score(waiting, seconds)
            waiting = []
    _score(waiting, seconds)
    return [_choose(*each) for each in zip(tasks, options, seconds, strict=True)]


def _options(task: TuningTask) -> list[_Option]:
    staged = task.cls.staged
    found = []
    for number, config in enumerate(_draw(task)):
        stages = [config]
        if staged is not None and staged not in task.fixed:
            stages = [{**config, staged: stage} for stage in task.cls.stages(config)]
        found += [_Option(config=number, params=params, scores=[[] for _ in task.trials]) for params in stages]
    return found


def _draw(task: TuningTask) -> list[dict[str, Any]]:
    cls = task.cls
    if not cls.tunables:
        raise RouterError(f"router {cls.name!r} has nothing to tune; remove `tune: true` from its entry.")
    if not task.trials:
        raise RouterError(
            f"router {cls.name!r} cannot be tuned: training and validation hold no complete row to judge by."
        )
    budget = task.options.tuning_budget

    def candidates(number: int) -> list[dict[str, Any]]:
        rng = generator(task.root_seed, "tuning", cls.name, task.split)
        return cls.candidates(n_train=task.n_train, budget=number, fixed=task.fixed, rng=rng)

    fixed = {name: value for name, value in task.fixed.items() if name in cls.tunables}
    if not fixed:
        return candidates(budget)
    # Configurations that differ in fixed parameters alone are one: draw on until there are enough.
    distinct: list[dict[str, Any]] = []
    for doubling in range(MOST_DOUBLINGS):
        drawn = [{**config, **fixed} for config in candidates(budget << doubling)]
        distinct = [config for i, config in enumerate(drawn) if config not in drawn[:i]]
        if len(distinct) >= budget:
            break
    return distinct[:budget]


def _choose(task: TuningTask, options: Sequence[_Option], seconds: float) -> Tuned:
    scores = [option.score for option in options]
    tied = [i for i, score in enumerate(scores) if score >= max(scores) - TIE]
    best = min(tied, key=lambda i: (task.cls.simplicity(options[i].params), i))
    of_config: dict[int, float] = {}
    for option, score in zip(options, scores, strict=True):
        of_config[option.config] = max(score, of_config.get(option.config, score))
    return Tuned(
        router=task.cls(**{**task.fixed, **options[best].params}),
        chosen={
            "params": dict(options[best].params),
            "criterion": CRITERIA[task.formulation],
            "folds": len(task.trials),
            "score": scores[best],
            "scores": list(of_config.values()),
        },
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answer:
    """What a job gave, and where its score goes."""

    task: TuningTask
    #: Of the task.
    number: int
    trial: Trial
    job: FitJob
    fitted: Fitted
    scores: list[float]


def _score(answers: Sequence[_Answer], seconds: list[float]) -> None:
    """Score answers, those for one trial together, and count the seconds that it takes to their tasks'."""
    groups: dict[tuple[int, int, bool], list[_Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.number, id(answer.trial), answer.job.price is None), []).append(answer)
    for (number, _, lines), group in groups.items():
        begin = perf_counter()
        found = _areas(group) if lines else [_utility(answer) for answer in group]
        for answer, score in zip(group, found, strict=True):
            answer.scores.append(score)
        seconds[number] += perf_counter() - begin


def _areas(group: Sequence[_Answer]) -> list[float]:
    predictions = []
    for answer in group:
        assert isinstance(answer.fitted.prediction, Prediction | Mixture | Calls)
        predictions.append(answer.fitted.prediction)
    return path_areas(predictions, *group[0].trial.held.outcomes, group[0].task.options)


def _utility(answer: _Answer) -> float:
    scores, costs = answer.trial.held.outcomes
    prediction, price = answer.fitted.prediction, answer.job.price
    assert not isinstance(prediction, Prediction | Calls) and price is not None
    return selection.utility(selection.probabilities(prediction, scores.shape[1]), scores, costs, price)
