"""Which routers differ from the reference across suites? Random-effects means, Holm, the verdicts of protocol 5.3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from orchestrator.analysis.comparisons import METRICS, check_router, competes, holm
from orchestrator.analysis.panels import needs_no_embedding
from orchestrator.analysis.random_effects import RandomEffects, random_effects
from orchestrator.analysis.signed_rank import SignedRank, refusal, signed_rank_p
from orchestrator.analysis.suites import Incomplete, Slice, SuiteDifference, slices
from orchestrator.analysis.verdicts import ALPHA, VERDICT_SPLITS, Kind, Learned, disagrees, is_vacuous, judge

#: What a difference in AUC rel is called beside one in AUC points.
_CONCLUSIONS = {Kind.BETTER: "better", Kind.WORSE: "worse"}
_OPEN = "nothing shown"


@dataclass(frozen=True, kw_only=True)
class AcrossSuites:
    """Candidate - reference on one metric over suites; numbers in points, of `auc_rel` in its own unit."""

    encoder: str | None
    formulation: str
    #: `auc` (the headline), `auc_path`, `auc_rel`, or `utility_mean` for selection.
    metric: str
    candidate: str
    reference: str
    #: Whether it belongs to the primary family; everything else is exploratory.
    primary: bool
    suites: tuple[SuiteDifference, ...]
    #: Suites that were left out, with the reason.
    incomplete: tuple[Incomplete, ...]
    #: None below 2 suites.
    effect: RandomEffects | None
    #: Mean over suites of the difference in the other area, None where there is none.
    other_difference: float | None = None
    #: Two-sided p, adjusted within the family like the two below.
    p_holm: float | None = None
    #: Two one-sided tests at the margin; None for `auc_rel`, which has no margin.
    p_equivalence: float | None = None
    #: One-sided, against -margin.
    p_not_worse: float | None = None
    #: Comparisons in the Holm family.
    family_size: int = 0
    #: Margin of equivalence in points, None for `auc_rel`.
    margin: float | None
    signed_rank: SignedRank
    #: Whether the candidate beats its own blind twin across suites.
    learned: Learned
    reference_learned: Learned
    kind: Kind = Kind.NONE
    #: Better or worse, yet by less than the margin.
    within_margin: bool = False
    #: Better or worse in this area alone: inconclusive by protocol 2.3.
    hull: bool = False
    #: What `auc_rel` says where that is another conclusion than that of the AUC points, else "".
    flips_to: str = ""

    @property
    def n_suites(self) -> int:
        """Suites that it rests on."""
        return len(self.suites)

    @property
    def difference(self) -> float | None:
        """Random-effects mean."""
        return self.effect.mean if self.effect else None

    @property
    def n_splits(self) -> int:
        """Least number of splits of a suite; 0 without one."""
        return min((own.test.k for own in self.suites), default=0)

    @property
    def vacuous(self) -> bool | None:
        """Whether it is an equivalence that says nothing: neither beats its own blind twin. None: not decided."""
        return self.kind is Kind.EQUIVALENT and is_vacuous(self.learned, self.reference_learned)

    @property
    def cannot_show_equivalence(self) -> bool:
        """Whether the standard error is too wide for the margin, whatever the difference."""
        return bool(self.effect and self.margin is not None and self.effect.equivalence_limit() > self.margin)

    @property
    def verdict(self) -> str:
        """The verdict with its suffix and tags."""
        text = str(self.kind)
        if self.effect is None:
            return "no verdict: N < 2 suites"
        match self.kind:
            case Kind.NONE:
                return f"no verdict: K < {VERDICT_SPLITS} splits"
            case Kind.BETTER | Kind.WORSE:
                text += " within margin" if self.within_margin else ""
            case Kind.EQUIVALENT:
                text += {True: " (vacuous)", False: "", None: f" ({Learned.NOT_TESTED})"}[self.vacuous]
            case _:
                text += " (hull)" if self.hull else ""
        return text + (f" (flips: {self.flips_to} in AUC rel)" if self.flips_to else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON or a data frame: the effect's numbers beside the rest, suites by name."""
        own = (
            "encoder", "formulation", "metric", "candidate", "reference", "primary", "n_suites", "n_splits",
            "difference", "other_difference", "p_holm", "p_equivalence", "p_not_worse", "family_size", "margin",
            "within_margin", "hull", "flips_to", "vacuous", "cannot_show_equivalence", "verdict",
        )  # fmt: skip
        row: dict[str, Any] = {"scope": "across suites"} | {name: getattr(self, name) for name in own}
        effect = self.effect
        for name in ("se", "tau", "q", "t", "p"):
            row[name] = getattr(effect, name) if effect else None
        for name in ("ci95", "ci90", "prediction"):
            row[name] = list(getattr(effect, name)) if effect else None
        row["detectable"] = effect.detectable() if effect else None
        row["equivalence_limit"] = effect.equivalence_limit() if effect else None
        row["signed_rank_p"] = self.signed_rank.p_holm
        row["signed_rank_refused"] = self.signed_rank.refused
        row["suites"] = [one.suite for one in self.suites]
        row["incomplete"] = [f"{one.suite}: {one.reason}" for one in self.incomplete]
        return row | {"kind": str(self.kind), "learned": str(self.learned)}


def across_reference(
    results: pd.DataFrame,
    reference: str,
    *,
    margin: float = 1.0,
    spec: Mapping[str, Any] | None = None,
) -> list[AcrossSuites]:
    """Compare every router with the reference across suites; the primary family first, none below two suites.

    A Holm family is one encoder x formulation x metric. Privileged routers and blind twins are not compared.

    Args:
        results: The view `results` of one sweep.
        reference: Display name of the router to compare with.
        margin: Margin of equivalence in points.
        spec: The sweep file as a dict, for the order of benchmarks and encoders.

    Raises:
        AnalysisError: When the reference has no results, is privileged or is a blind twin.
    """
    check_router(results, reference)
    return [row for part in slices(results, spec) for row in across_slice(part, reference, margin=margin)]


def across_slice(part: Slice, reference: str, *, margin: float = 1.0) -> list[AcrossSuites]:
    """The same for one encoder and formulation; candidates in the order of the sweep file."""
    routers = part.results.sort_values(["sweep_position", "router"], kind="stable").groupby("router", sort=False)
    candidates = [str(name) for name, own in routers if name != reference and competes(own)]
    return _compare(part, candidates, reference, margin=margin)


def across_pair(
    results: pd.DataFrame,
    a: str,
    b: str,
    encoder: str | None = None,
    *,
    margin: float = 1.0,
    spec: Mapping[str, Any] | None = None,
) -> list[AcrossSuites]:
    """Compare one pair, a - b, across suites; a family of its own, so exploratory when picked among many.

    Raises:
        AnalysisError: When a router is unknown or privileged.
    """
    for name in (a, b):
        check_router(results, name, twins=True)
    parts = [part for part in slices(results, spec) if encoder is None or part.encoder in (encoder, None)]
    rows = [row for part in parts for row in _compare(part, [a], b, margin=margin)]
    return [replace(row, primary=False) for row in rows if row.suites]


def across_frame(rows: Sequence[AcrossSuites]) -> pd.DataFrame:
    """Comparisons across suites as a data frame, one row each; lists of names are joined by "; "."""
    frame = pd.DataFrame([row.as_dict() for row in rows])
    if frame.empty:
        return frame
    for column in ("suites", "incomplete"):
        frame[column] = frame[column].map("; ".join)
    return frame


def suite_frame(rows: Sequence[AcrossSuites]) -> pd.DataFrame:
    """What the means are made of: a row for each suite of each comparison, with its members and Nadeau-Bengio error."""
    return pd.DataFrame(
        [
            {
                "encoder": row.encoder, "formulation": row.formulation, "metric": row.metric,
                "candidate": row.candidate, "reference": row.reference, "suite": one.suite,
                "members": "; ".join(one.members), "n_splits": one.test.k, "difference": one.test.mean,
                "se": one.test.se, "low": one.test.ci95[0], "high": one.test.ci95[1],
            }
            for row in rows
            for one in row.suites
        ]
    )  # fmt: skip


def _compare(part: Slice, candidates: Sequence[str], reference: str, *, margin: float) -> list[AcrossSuites]:
    known = {name: _learned(part, name) for name in [*candidates, reference]}
    families = {}
    for metric in part.metrics:
        own_margin = None if metric == "auc_rel" else margin
        raw = [_row(part, candidate, reference, metric, known, own_margin) for candidate in candidates]
        families[metric] = list(_judge_family(_with_signed_ranks(raw)))
    if "auc_rel" in families:
        relative = {row.candidate: row for row in families["auc_rel"]}
        judged = part.metrics[0]
        families[judged] = [replace(row, flips_to=_flip(row, relative[row.candidate])) for row in families[judged]]
    return [row for rows in families.values() for row in rows]


def _row(
    part: Slice,
    candidate: str,
    reference: str,
    metric: str,
    known: Mapping[str, Learned],
    margin: float | None,
) -> AcrossSuites:
    found, missing = part.differences(candidate, reference, metric)
    other = METRICS[part.formulation].get(metric)
    n, rank_sum, p = signed_rank_p([own.test.mean for own in found])
    return AcrossSuites(
        encoder=part.encoder,
        formulation=part.formulation,
        metric=metric,
        candidate=candidate,
        reference=reference,
        primary=part.primary and metric == part.metrics[0],
        suites=found,
        incomplete=missing,
        effect=_effect(found),
        other_difference=_mean(part.differences(candidate, reference, other)[0]) if other else None,
        margin=margin,
        signed_rank=SignedRank(n=n, rank_sum=rank_sum, p_holm=p),
        learned=known[candidate],
        reference_learned=known[reference],
    )


def _with_signed_ranks(rows: Sequence[AcrossSuites]) -> list[AcrossSuites]:
    """Adjust the signed-rank p-values by Holm; a refused one counts as 1, so that the family keeps its size."""
    refused = [refusal(row.signed_rank.n, len(rows), ALPHA) for row in rows]
    raw = [1.0 if why else row.signed_rank.p_holm or 0.0 for row, why in zip(rows, refused, strict=True)]
    return [
        replace(row, signed_rank=replace(row.signed_rank, p_holm=None if why else p, refused=why))
        for row, why, p in zip(rows, refused, holm(raw), strict=True)
    ]


def _judge_family(rows: Sequence[AcrossSuites]) -> Iterator[AcrossSuites]:
    tested = [row for row in rows if row.effect]
    p_difference = iter(holm([row.effect.p for row in tested if row.effect]))
    margins = [(row.effect, row.margin) for row in tested]
    p_equivalence = iter(holm([e.p_equivalent(m) if m is not None else 1.0 for e, m in margins if e]))
    p_not_worse = iter(holm([e.p_above(-m) if m is not None else 1.0 for e, m in margins if e]))
    for row in rows:
        if row.effect is None:
            yield replace(row, family_size=len(tested))
            continue
        p, p_near, p_above = next(p_difference), next(p_equivalence), next(p_not_worse)
        kind = judge(row.effect.mean, p_difference=p, p_equivalence=p_near, p_not_worse=p_above)
        differs = kind in (Kind.BETTER, Kind.WORSE)
        hull = differs and row.other_difference is not None and disagrees(row.effect.mean, row.other_difference)
        few = row.n_splits < VERDICT_SPLITS
        yield replace(
            row,
            family_size=len(tested),
            p_holm=p,
            p_equivalence=None if row.margin is None else p_near,
            p_not_worse=None if row.margin is None else p_above,
            kind=Kind.NONE if few else Kind.INCONCLUSIVE if hull else kind,
            hull=hull and not few,
            within_margin=differs and not hull and not few and p_near < ALPHA,
        )


def _flip(row: AcrossSuites, relative: AcrossSuites) -> str:
    if Kind.NONE in (row.kind, relative.kind):
        return ""
    conclusions = [_CONCLUSIONS.get(one.kind, _OPEN) for one in (row, relative)]
    return "" if conclusions[0] == conclusions[1] else conclusions[1]


def _learned(part: Slice, router: str) -> Learned:
    """Whether a router beats its own blind twin across suites, two-sided at 5 % and ahead in both areas."""
    own = part.results[part.results["router"] == router]
    if own.empty:
        return Learned.NOT_TESTED
    if (own["query_blind"].astype(bool) | own["twin_of"].notna() | needs_no_embedding(own)).any():
        return Learned.NOT_SHOWN
    twins = part.results.loc[part.results["twin_of"] == router, "router"].unique().tolist()
    if not twins:
        return Learned.NOT_TESTED
    difference = partial(part.differences, router, twins[0])
    found, _ = difference(part.metrics[0])
    effect = _effect(found)
    if effect is None or min(one.test.k for one in found) < VERDICT_SPLITS:
        return Learned.NOT_TESTED
    other = METRICS[part.formulation][part.metrics[0]]
    behind = other is not None and disagrees(effect.mean, _mean(difference(other)[0]) or 0.0)
    return Learned.YES if effect.p < ALPHA and effect.mean > 0 and not behind else Learned.NOT_SHOWN


def _effect(found: Sequence[SuiteDifference]) -> RandomEffects | None:
    if len(found) < 2:
        return None
    return random_effects([one.test.mean for one in found], [one.test.se**2 for one in found])


def _mean(found: Sequence[SuiteDifference]) -> float | None:
    effect = _effect(found)
    return effect.mean if effect else None
