"""Which routers differ from the reference? Paired by split, Holm within the family, one verdict per comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.corrected_t import ROUNDING, CorrectedTest, nadeau_bengio
from orchestrator.analysis.panels import Panel, RouterRows, full_size, panels
from orchestrator.analysis.verdicts import (
    ALPHA,
    INTERVAL_SPLITS,
    VERDICT_SPLITS,
    Kind,
    Learned,
    decide,
    disagrees,
    is_vacuous,
    verdict_text,
)
from orchestrator.errors import AnalysisError

#: Metrics that a panel is compared on, the judged one first, each with the area whose sign must agree.
METRICS: Mapping[str, Mapping[str, str | None]] = {
    "utility": {"auc": "auc_path", "auc_path": "auc"},
    "selection": {"utility_mean": None},
}
#: Columns of the mean utility at each of the protocol's preferences.
PREFERENCES: Mapping[str, str] = {
    "low-cost": "utility_low_cost",
    "balanced": "utility_balanced",
    "high-performance": "utility_high_performance",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidate - reference on one metric of one panel; numbers in points."""

    benchmark: str
    encoder: str | None
    formulation: str
    train_size: float
    #: `auc` (the headline), `auc_path`, or `utility_mean` for selection.
    metric: str
    candidate: str
    reference: str
    #: Splits that both have.
    n_splits: int
    candidate_mean: float
    reference_mean: float
    #: Mean difference.
    difference: float
    #: The same in the other area, None where there is none.
    other_difference: float | None
    #: None below 5 splits.
    test: CorrectedTest | None
    #: Two-sided p, adjusted within the family like the two below; all None below 5 splits.
    p_holm: float | None = None
    #: Two one-sided tests at the margin.
    p_equivalence: float | None = None
    #: One-sided, against -margin.
    p_not_worse: float | None = None
    #: Comparisons in the Holm family.
    family_size: int
    #: Margin of equivalence.
    margin: float
    #: Whether the candidate beats its own blind twin.
    learned: Learned
    reference_learned: Learned
    kind: Kind = Kind.NONE
    #: Better or worse, yet by less than the margin.
    within_margin: bool = False
    #: Better or worse in this area alone: inconclusive by protocol 2.3.
    hull: bool = False

    @property
    def vacuous(self) -> bool | None:
        """Whether it is an equivalence that says nothing: neither beats its own blind twin. None: not decided."""
        return self.kind is Kind.EQUIVALENT and is_vacuous(self.learned, self.reference_learned)

    @property
    def detectable(self) -> float | None:
        """Smallest true difference found with 80 % power, before Holm."""
        return self.test.detectable() if self.test else None

    @property
    def equivalence_limit(self) -> float | None:
        """Smallest margin at which equivalence could have been shown."""
        return self.test.equivalence_limit() if self.test else None

    @property
    def cannot_show_equivalence(self) -> bool:
        """Whether the spread is too wide for the margin, whatever the difference."""
        return (self.equivalence_limit or 0.0) > self.margin

    @property
    def verdict(self) -> str:
        """The verdict with its suffix and tags."""
        return verdict_text(self.kind, within_margin=self.within_margin, hull=self.hull, vacuous=self.vacuous)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON or a data frame: the test's numbers beside the rest, intervals as lists."""
        row = {name: value for name, value in vars(self).items() if name != "test"}
        numbers = ("sd", "ratio", "t", "p", "ci95", "ci90")
        row |= {name: getattr(self.test, name) if self.test else None for name in numbers}
        row |= {name: getattr(self, name) for name in ("detectable", "equivalence_limit", "cannot_show_equivalence")}
        row |= {name: list(row[name]) for name in ("ci95", "ci90") if row[name] is not None}
        return row | {"kind": str(self.kind), "vacuous": self.vacuous, "verdict": self.verdict}


def comparison_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Comparisons as a data frame, one row each."""
    return pd.DataFrame([comparison.as_dict() for comparison in comparisons])


def compare_to_reference(
    results: pd.DataFrame,
    reference: str,
    *,
    margin: float = 1.0,
    spec: Mapping[str, Any] | None = None,
) -> list[Comparison]:
    """Compare every router with the reference, at the full training size.

    A Holm family is one benchmark x encoder x formulation x metric. Privileged routers and blind twins are not
    compared. A panel where the reference has no result has no comparison.

    Args:
        results: The view `results` of one sweep.
        reference: Display name of the router to compare with.
        margin: Margin of equivalence in points.
        spec: The sweep file as a dict, for the order of benchmarks and encoders.

    Raises:
        AnalysisError: When the reference has no results, is privileged or is a blind twin.
    """
    cut = full_size(panels(results, spec))
    check_router(results, reference)
    rows = []
    for panel in cut:
        rows += _compare_panel(panel, _candidates(panel, reference), reference, margin=margin)
    return rows


def compare_at_preferences(
    results: pd.DataFrame,
    reference: str,
    *,
    margin: float = 1.0,
    spec: Mapping[str, Any] | None = None,
) -> dict[str, list[Comparison]]:
    """Compare every selector with the reference on mean utility at each preference, at the full training size.

    A Holm family is one benchmark x encoder x preference. Nothing without selection runs.

    Args:
        results: The view `results` of one sweep.
        reference: Display name of the router to compare with.
        margin: Margin of equivalence in points of utility.
        spec: The sweep file as a dict, for the order of benchmarks and encoders.

    Returns:
        Comparisons by preference, its column as their metric.
    """
    rows = results[results["formulation"] == "selection"]
    if rows.empty or not set(PREFERENCES.values()) <= set(rows):
        return {}
    rows = rows.assign(**{column: pd.to_numeric(rows[column]) for column in PREFERENCES.values()})
    cut = full_size(panels(rows, spec))
    return {
        preference: [
            row
            for panel in cut
            for row in _compare_panel(panel, _candidates(panel, reference), reference, margin=margin, metrics=[column])
        ]
        for preference, column in PREFERENCES.items()
    }


def compare(
    results: pd.DataFrame,
    a: str,
    b: str,
    benchmark: str | None = None,
    encoder: str | None = None,
    *,
    margin: float = 1.0,
    spec: Mapping[str, Any] | None = None,
) -> list[Comparison]:
    """Compare one pair, a - b, wherever both have results, at the full training size.

    The family is the pair alone, so nothing is adjusted: one pair picked among many is exploratory. `b` may be the
    blind twin of `a`, which asks whether `a` has learned something about queries.

    Raises:
        AnalysisError: When a router is unknown or privileged, or the two never met.
    """
    for name in (a, b):
        check_router(results, name, twins=True)
    if a == b:
        raise AnalysisError(f"comparing {a!r} with itself; name two routers.")
    rows = [
        row
        for panel in full_size(panels(results, spec))
        if (benchmark is None or panel.benchmark == benchmark) and (encoder is None or panel.encoder in (encoder, None))
        for row in _compare_panel(panel, [a], b, margin=margin)
    ]
    if not rows:
        where = "".join(f" {kind} {name!r}" for kind, name in (("benchmark", benchmark), ("encoder", encoder)) if name)
        raise AnalysisError(
            f"{a!r} and {b!r} have no split in common{where and ' on' + where}; `roadtest status` shows what ran."
        )
    return rows


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p-values of one family (Holm 1979).

    As statsmodels' `multipletests(p, method="holm")`, which collects garbage at every call: 0.13 s, seconds per report.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.take(np.asarray(p, dtype=np.float64), order) * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(x) for x in adjusted]


def learned(panel: Panel, router: str, *, metric: str | None = None) -> Learned:
    """Say whether a router beats its own blind twin: better by the corrected t, with the same sign in both areas.

    A router that sees no query (query-blind, without an embedding, or a twin) is its own twin. Two-sided at 5 %, so
    that asking both of a pair is wrong at most 5 % of the time when neither has learned anything.
    """
    own = panel.routers.get(router, RouterRows())
    if own.sees_no_query:
        return Learned.NOT_SHOWN
    if own.twin is None:
        return Learned.NOT_TESTED
    pair = Pair.of(panel, router, own.twin, metric or panel.metric)
    if pair.test is None or pair.test.k < VERDICT_SPLITS:
        return Learned.NOT_TESTED
    beats = pair.test.p < ALPHA and pair.test.mean > 0 and not pair.hull
    return Learned.YES if beats else Learned.NOT_SHOWN


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Differences of two routers on the splits that both have, before any family is known."""

    candidate: str
    n_splits: int
    candidate_mean: float
    reference_mean: float
    difference: float
    other_difference: float | None
    #: Whether the two areas disagree about the sign.
    hull: bool
    test: CorrectedTest | None

    @classmethod
    def of(cls, panel: Panel, candidate: str, reference: str, metric: str) -> Pair:
        """Pair two routers of a panel by split."""
        other = METRICS[panel.formulation].get(metric)
        left, right = (panel.routers.get(name, RouterRows()) for name in (candidate, reference))
        _, i, j = np.intersect1d(left.seeds, right.seeds, assume_unique=True, return_indices=True)
        both = ~np.isnan(left.column(metric)[i] - right.column(metric)[j])
        i, j = i[both], j[both]
        d = left.column(metric)[i] - right.column(metric)[j]
        other_mean = None if other is None else _or_zero(_mean(left.column(other)[i] - right.column(other)[j]))
        return cls(
            candidate=candidate,
            n_splits=len(d),
            candidate_mean=_mean(left.column(metric)[i]),
            reference_mean=_mean(right.column(metric)[j]),
            difference=_or_zero(_mean(d)),
            other_difference=None if other_mean is None or math.isnan(other_mean) else other_mean,
            hull=other_mean is not None and disagrees(_mean(d), other_mean),
            test=nadeau_bengio(d, left.column("n_train")[i], left.column("n_test")[i])
            if len(d) >= INTERVAL_SPLITS
            else None,
        )


def _candidates(panel: Panel, reference: str) -> list[str]:
    routers = panel.results.groupby("router", sort=False)
    return [str(name) for name, own in routers if name != reference and competes(own)]


def _compare_panel(
    panel: Panel, candidates: Sequence[str], reference: str, *, margin: float, metrics: Sequence[str] | None = None
) -> list[Comparison]:
    rows: list[Comparison] = []
    for metric in metrics or METRICS[panel.formulation]:
        pairs = [Pair.of(panel, candidate, reference, metric) for candidate in candidates]
        rows += _judge_family(panel, [pair for pair in pairs if pair.n_splits], reference, metric, margin=margin)
    return rows


def _judge_family(
    panel: Panel, pairs: Sequence[Pair], reference: str, metric: str, *, margin: float
) -> Iterator[Comparison]:
    tests = [pair.test for pair in pairs if pair.test]
    p_holm = iter(holm([test.p for test in tests]))
    p_equivalence = iter(holm([test.p_equivalent(margin) for test in tests]))
    p_not_worse = iter(holm([test.p_above(-margin) for test in tests]))
    reference_learned = learned(panel, reference, metric=metric)
    for pair in pairs:
        row = Comparison(
            benchmark=panel.benchmark,
            encoder=panel.encoder,
            formulation=panel.formulation,
            train_size=panel.train_size,
            metric=metric,
            candidate=pair.candidate,
            reference=reference,
            n_splits=pair.n_splits,
            candidate_mean=pair.candidate_mean,
            reference_mean=pair.reference_mean,
            difference=pair.difference,
            other_difference=pair.other_difference,
            test=pair.test,
            family_size=len(tests),
            margin=margin,
            learned=learned(panel, pair.candidate, metric=metric),
            reference_learned=reference_learned,
        )
        if pair.test:
            p, p_near, p_above = next(p_holm), next(p_equivalence), next(p_not_worse)
            kind = decide(pair.test, p_difference=p, p_equivalence=p_near, p_not_worse=p_above)
            differs = kind in (Kind.BETTER, Kind.WORSE)
            row = replace(
                row,
                p_holm=p,
                p_equivalence=p_near,
                p_not_worse=p_above,
                kind=Kind.INCONCLUSIVE if differs and pair.hull else kind,
                hull=differs and pair.hull,
                within_margin=differs and not pair.hull and p_near < ALPHA,
            )
        yield row


def competes(own: pd.DataFrame) -> bool:
    """Whether rows belong to a router that is ranked and compared: not privileged, no blind twin."""
    return not own["privileged"].astype(bool).any() and bool(own["twin_of"].isna().all())


def check_router(results: pd.DataFrame, name: str, *, twins: bool = False) -> None:
    """Raise AnalysisError unless a router has results and may be compared with others."""
    own = results[results["router"] == name]
    if own.empty:
        known = ", ".join(sorted(results["router"].unique()))
        raise AnalysisError(
            f"router {name!r} has no result in this sweep, so nothing can be compared with it; there are: {known}."
        )
    if own["privileged"].astype(bool).any():
        raise AnalysisError(f"router {name!r} looks at test outcomes, so it is shown, never compared; name another.")
    if not twins and own["twin_of"].notna().any():
        raise AnalysisError(f"router {name!r} is a blind twin, so it is no reference for others; name another one.")


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of what is defined, NaN of nothing."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _or_zero(difference: float) -> float:
    return 0.0 if abs(difference) < ROUNDING else float(difference)
