"""Which configuration of a router does the validation side choose? The same budget for all (protocol 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from workers.errors import RouterError
from workers.metrics import selection
from workers.metrics.summary import both_areas
from workers.routers.base import FitJob, Fitted, Mixture, Prediction, Router
from workers.seeding import generator
from workers.sides import Trial
from workers.units import PREFERENCES, Formulation, ProtocolOptions

#: Validation scores (x 100) closer than this tie, and the simplest configuration wins.
TIE = 1e-9

#: A space that holds fewer configurations than the budget is given up after so many doublings of the draw.
MOST_DOUBLINGS = 4

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


def tune(tasks: Sequence[TuningTask]) -> list[Tuned]:
    """Tune several splits of one router class together, so that its family shares what can be shared.

    Raises:
        RouterError: The router declares nothing to tune, or no query is left to judge by.
    """
    jobs: list[FitJob] = []
    plans: list[tuple[list[dict[str, Any]], list[slice]]] = []
    for task in tasks:
        configs = _draw(task)
        slices = []
        for config in configs:
            router = task.cls(**{**task.fixed, **config})
            start = len(jobs)
            for trial in task.trials:
                jobs += fit_jobs(router, trial, task.formulation, task.root_seed, task.split)
            slices.append(slice(start, len(jobs)))
        plans.append((configs, slices))
    fitted = list(tasks[0].cls.predict_many(jobs)) if jobs else []
    return [
        _choose(task, configs, [fitted[s] for s in slices])
        for task, (configs, slices) in zip(tasks, plans, strict=True)
    ]


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


def _choose(task: TuningTask, configs: list[dict[str, Any]], answers: list[list[Fitted]]) -> Tuned:
    begin = perf_counter()
    each = len(answers[0]) // len(task.trials)
    scores = [
        float(np.mean([_score(task, trial, fitted[i * each : (i + 1) * each]) for i, trial in enumerate(task.trials)]))
        for fitted in answers
    ]
    tied = [i for i, score in enumerate(scores) if score >= max(scores) - TIE]
    best = min(tied, key=lambda i: (task.cls.simplicity(configs[i]), i))
    return Tuned(
        router=task.cls(**{**task.fixed, **configs[best]}),
        chosen={
            "params": configs[best],
            "criterion": CRITERIA[task.formulation],
            "folds": len(task.trials),
            "score": scores[best],
            "scores": scores,
        },
        seconds=sum(f.fit_seconds + f.route_seconds for fitted in answers for f in fitted) + perf_counter() - begin,
    )


def _score(task: TuningTask, trial: Trial, fitted: Sequence[Fitted]) -> float:
    scores, costs = trial.held.outcomes
    if task.formulation == "utility":
        prediction = fitted[0].prediction
        assert isinstance(prediction, Prediction | Mixture)
        return both_areas(prediction, scores, costs, task.options).auc_path
    utilities = []
    for answer, price in zip(fitted, PREFERENCES.values(), strict=True):
        assert not isinstance(answer.prediction, Prediction)
        chances = selection.probabilities(answer.prediction, scores.shape[1])
        utilities.append(selection.utility(chances, scores, costs, price))
    return float(np.mean(utilities))
