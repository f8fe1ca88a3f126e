"""Does a larger k always help kNN? Step by step over the values of k, to all training queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.claim import Claim, first_panels, not_measured
from orchestrator.analysis.comparisons import Pair, holm
from orchestrator.analysis.corrected_t import CorrectedTest
from orchestrator.analysis.panels import Panel
from orchestrator.analysis.roles import fixed_neighbours, zero_router
from orchestrator.analysis.sentences import names, signed
from orchestrator.analysis.verdicts import ALPHA, VERDICT_SPLITS

#: Steps that a verdict names.
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class _Step:
    """From one k to the next on one benchmark."""

    title: str
    benchmark: str
    pair: Pair
    test: CorrectedTest
    #: 1: the larger k is shown better, -1 worse, 0 neither.
    sign: int = 0


def larger_k(panels: Sequence[Panel], results: pd.DataFrame, spec: Mapping[str, Any] | None) -> Claim:
    """The kNN routers of the sweep that differ in k alone, each against the next, on AUC.

    The last step is to k = n_train: with all training queries for neighbours kNN predicts their means, so it is the
    zero-router. *Shown* is by the corrected t after Holm over all steps and benchmarks, with one sign in both areas.
    """
    claim = "a larger k always helps"
    by_k = [(f"{k}", name) for k, name in fixed_neighbours(results, spec).items()]
    zero = zero_router(results, spec)
    if zero and by_k:
        by_k.append((f"n_train ({zero})", zero))
    if len(by_k) < 2:
        return not_measured(claim, "kNN with two values of k, or with one beside the zero-router (k = n_train)")
    steps = _steps(panels, by_k)
    if not steps:
        return not_measured(claim, f"{VERDICT_SPLITS} splits")
    titles = dict.fromkeys(step.title for step in steps)
    found = "; ".join(f"{title}: {_words([step for step in steps if step.title == title])}" for title in titles)
    return Claim(claim=claim, found=found, verdict=_verdict(steps))


def _steps(panels: Sequence[Panel], by_k: Sequence[tuple[str, str]]) -> list[_Step]:
    found = []
    for (k, smaller), (next_k, larger) in pairwise(by_k):
        for panel in first_panels(panels):
            pair = Pair.of(panel, larger, smaller, "auc")
            if pair.test and pair.test.k >= VERDICT_SPLITS:
                title = f"k = {k} → {next_k}"
                found.append(_Step(title=title, benchmark=panel.benchmark, pair=pair, test=pair.test))
    adjusted = holm([step.test.p for step in found])
    return [_judged(step, p) for step, p in zip(found, adjusted, strict=True)]


def _judged(step: _Step, p: float) -> _Step:
    sign = int(np.sign(step.pair.difference)) if p < ALPHA and not step.pair.hull else 0
    return _Step(title=step.title, benchmark=step.benchmark, pair=step.pair, test=step.test, sign=sign)


def _words(steps: Sequence[_Step]) -> str:
    if len(steps) == 1:
        low, high = steps[0].test.ci95
        return f"{signed(steps[0].pair.difference)} AUC [{signed(low)}, {signed(high)}]"
    sizes = sorted(step.pair.difference for step in steps)
    better, worse = sum(step.sign > 0 for step in steps), sum(step.sign < 0 for step in steps)
    return (
        f"{signed(sizes[0])} to {signed(sizes[-1])} AUC, "
        f"shown better on {better} and worse on {worse} of {len(steps)} benchmarks"
    )


def _verdict(steps: Sequence[_Step]) -> str:
    refuting = [f"{step.title} on {step.benchmark}" for step in steps if step.sign < 0]
    if refuting:
        more = [f"{len(refuting) - NAMED} more"] if len(refuting) > NAMED else []
        return f"refuted: shown worse at {names([*refuting[:NAMED], *more])}"
    return "holds here" if all(step.sign > 0 for step in steps) else "open: not shown at every step"
