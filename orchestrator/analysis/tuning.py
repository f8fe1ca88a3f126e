"""What did tuning try, what would fewer tries have found, and what did it choose?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from orchestrator.analysis.panels import Panel


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How one router of a panel was tuned; means over its splits."""

    router: str
    n_splits: int
    #: Fewest and most configurations tried on a split.
    n_configurations: tuple[int, int]
    #: What was maximised: `auc_path`, or `utility_mean` for selection.
    criterion: str
    #: Numbers of folds that occur, ascending; 1 is the validation side itself.
    folds: tuple[int, ...]
    #: Expected best validation score (x 100) of b configurations, for b = 1, 2, ... as far as every split goes.
    best_of: tuple[float, ...]
    #: Best validation score (x 100) of all configurations.
    best: float
    #: Seconds per split.
    seconds: float
    #: The chosen value on every split, by parameter.
    chosen: Mapping[str, tuple[Any, ...]]


def tunings(panel: Panel) -> list[Tuning]:
    """The tuned routers of a panel, in the order of the sweep file; blind twins share their router's tuning."""
    rows = panel.results[panel.results["chosen"].notna() & panel.results["twin_of"].isna()]
    return [
        _tuning(str(router), [json.loads(text) for text in own["chosen"]], float(own["tuning_seconds"].mean()))
        for router, own in rows.groupby("router", sort=False)
    ]


def expected_best(scores: Sequence[float], b: int) -> float:
    """Expected largest of b scores drawn without replacement: sum over i of s_(i) C(i - 1, b - 1) / C(n, b).

    That is the exact mean over all subsets of size b, s_(i) being the i-th smallest score; after Dodge et al. 2019,
    "Show Your Work", who draw with replacement.

    Args:
        scores: Scores of all n configurations, in any order.
        b: 1 ... n.

    Raises:
        ValueError: b is out of its range.
    """
    n = len(scores)
    if not 1 <= b <= n:
        raise ValueError(f"cannot draw {b} of {n} configurations without replacement")
    subsets = comb(n, b)
    return sum(score * (comb(i, b - 1) / subsets) for i, score in enumerate(sorted(scores)))


def _tuning(router: str, outcomes: Sequence[Mapping[str, Any]], seconds: float) -> Tuning:
    scores = [outcome["scores"] for outcome in outcomes]
    sizes = [len(own) for own in scores]
    return Tuning(
        router=router,
        n_splits=len(outcomes),
        n_configurations=(min(sizes), max(sizes)),
        criterion=outcomes[0]["criterion"],
        folds=tuple(sorted({outcome["folds"] for outcome in outcomes})),
        best_of=tuple(float(np.mean([expected_best(own, b) for own in scores])) for b in range(1, min(sizes) + 1)),
        best=float(np.mean([max(own) for own in scores])),
        seconds=seconds,
        chosen={name: tuple(outcome["params"][name] for outcome in outcomes) for name in outcomes[0]["params"]},
    )
