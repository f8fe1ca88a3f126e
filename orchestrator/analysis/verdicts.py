"""What may be said about a difference? The verdict rule of protocol 5.3, nothing else."""

from __future__ import annotations

from enum import StrEnum

from orchestrator.analysis.corrected_t import CorrectedTest

#: Family-wise level of every verdict.
ALPHA = 0.05
#: Splits needed to print an interval.
INTERVAL_SPLITS = 5
#: Splits needed for a verdict.
VERDICT_SPLITS = 10


class Kind(StrEnum):
    """What a comparison found, in the order in which the rule asks."""

    #: Significantly above the reference.
    BETTER = "better"
    #: Significantly below the reference.
    WORSE = "worse"
    #: Within the margin on both sides.
    EQUIVALENT = "equivalent"
    #: Not below the reference by the margin or more.
    NOT_WORSE = "not worse"
    #: None of these is shown.
    INCONCLUSIVE = "inconclusive"
    #: Too few splits to say.
    NONE = "no verdict"


class Learned(StrEnum):
    """Whether a router has learned something about queries: it beats its own blind twin."""

    #: Significantly above its twin, in auc and in auc_path.
    YES = "yes"
    #: Not shown, or impossible: it sees no query.
    NOT_SHOWN = "not shown"
    #: No twin was run, or on fewer splits than a verdict takes.
    NOT_TESTED = "twin not run"


def decide(
    test: CorrectedTest | None,
    *,
    p_difference: float,
    p_equivalence: float,
    p_not_worse: float,
) -> Kind:
    """Go through the verdicts in the protocol's order; the hull rule comes after (`disagrees`).

    Args:
        test: Candidate - reference, None where there are too few splits for one.
        p_difference: Two-sided p, Holm-adjusted like the others.
        p_equivalence: p of the two one-sided tests at the margin.
        p_not_worse: One-sided p against -margin.
    """
    if test is None or test.k < VERDICT_SPLITS:
        return Kind.NONE
    return judge(test.mean, p_difference=p_difference, p_equivalence=p_equivalence, p_not_worse=p_not_worse)


def judge(mean: float, *, p_difference: float, p_equivalence: float, p_not_worse: float) -> Kind:
    """The same for a mean difference that rests on splits enough."""
    if p_difference < ALPHA and mean != 0:
        return Kind.BETTER if mean > 0 else Kind.WORSE
    if p_equivalence < ALPHA:
        return Kind.EQUIVALENT
    return Kind.NOT_WORSE if p_not_worse < ALPHA else Kind.INCONCLUSIVE


def disagrees(mean: float, twin_mean: float) -> bool:
    """Whether a difference in one area lacks the same sign in the other, hull against path (protocol 2.3)."""
    return not mean * twin_mean > 0


def is_vacuous(candidate: Learned, reference: Learned) -> bool | None:
    """Whether an equivalence says nothing, as neither of the pair beats its own blind twin; None when not decided."""
    if Learned.YES in (candidate, reference):
        return False
    return None if Learned.NOT_TESTED in (candidate, reference) else True
