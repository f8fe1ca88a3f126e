"""What do the comparisons across suites say in plain words?"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.analysis.across import AcrossSuites
from orchestrator.analysis.sentences import UNITS, names, p_value, points, signed
from orchestrator.analysis.verdicts import VERDICT_SPLITS, Kind

_ORDER = (Kind.BETTER, Kind.WORSE, Kind.EQUIVALENT, Kind.NOT_WORSE, Kind.INCONCLUSIVE, Kind.NONE)


def across_sentence(rows: Sequence[AcrossSuites]) -> str:
    """Sum the primary family up: the strongest challenger with its numbers, the others by verdict; "" without one.

    Args:
        rows: As `across_reference` gives them.
    """
    primary = [row for row in rows if row.primary and row.effect]
    if not primary:
        return ""
    challenger = max(primary, key=lambda row: row.difference or 0.0)
    clauses = [clause(challenger)]
    for kind in _ORDER:
        alike = [row for row in primary if row.kind is kind and row is not challenger]
        if alike:
            clauses.append(_group(kind, alike))
    most = max(row.n_suites for row in primary)
    upto = "" if all(row.n_suites == most for row in primary) else "up to "
    with_encoder = f" with {challenger.encoder}" if challenger.encoder else ""
    return f"Across {upto}{most} suites{with_encoder}, the primary family: {'; '.join(clauses)}."


def clause(row: AcrossSuites) -> str:
    """What one comparison across suites found, with its interval and p."""
    assert row.effect is not None
    d, digits = row.effect.mean, 1 if abs(row.effect.mean) >= 1 else 2
    unit = f"{UNITS[row.metric]}s"
    low, high = (signed(x, digits) for x in row.effect.ci95)
    numbers = f"95 % interval {low} to {high}, Holm p {p_value(row.p_holm if row.p_holm is not None else row.effect.p)}"
    flips = f", yet {row.flips_to} in AUC rel" if row.flips_to else ""
    match row.kind:
        case Kind.NONE:
            return (
                f"{row.candidate} differs from {row.reference} by {signed(d, digits)} {unit} ({numbers}): no verdict, "
                f"as that takes {VERDICT_SPLITS} splits"
            )
        case Kind.BETTER | Kind.WORSE:
            within = ", though within the margin" if row.within_margin else ""
            size = f"{abs(d):.{digits}f} {unit}"
            return f"{row.candidate} is {row.kind} than {row.reference} by {size}{within} ({numbers}){flips}"
        case Kind.EQUIVALENT | Kind.NOT_WORSE:
            said = _shown(row.kind, row.margin or 0.0, row.metric, to=f" to {row.reference}")
            tag = _tag(row)
            return f"{row.candidate} is {said}{tag} ({signed(d, digits)} {unit}, {numbers}){flips}"
        case _:
            why = ", as AUC and AUC path disagree about the sign" if row.hull else ""
            who = f"{row.candidate} and {row.reference}"
            return f"the difference of {who} is inconclusive{why} ({signed(d, digits)} {unit}, {numbers}){flips}"


def _group(kind: Kind, rows: Sequence[AcrossSuites]) -> str:
    who, verb = names([row.candidate for row in rows]), "is" if len(rows) == 1 else "are"
    flipping = [row.candidate for row in rows if row.flips_to]
    flips = f" (another conclusion in AUC rel: {names(flipping)})" if flipping else ""
    match kind:
        case Kind.NONE:
            return f"for {who} there is no verdict"
        case Kind.INCONCLUSIVE:
            return f"for {who} it is inconclusive{flips}"
        case Kind.EQUIVALENT | Kind.NOT_WORSE:
            tagged = [f"{row.candidate}{_tag(row)}" for row in rows]
            return f"{names(tagged)} {verb} {_shown(kind, rows[0].margin or 0.0, rows[0].metric)}{flips}"
        case _:
            sizes = sorted(abs(row.difference or 0.0) for row in rows)
            digits = 1 if sizes[0] >= 1 else 2
            low, high = f"{sizes[0]:.{digits}f}", f"{sizes[-1]:.{digits}f}"
            return f"{who} {verb} {kind} by {low}{'' if low == high else f' to {high}'}{flips}"


def _shown(kind: Kind, margin: float, metric: str, *, to: str = "") -> str:
    size = points(margin, metric)
    return f"equivalent{to} within ±{size}" if kind is Kind.EQUIVALENT else f"not worse by {size} or more"


def _tag(row: AcrossSuites) -> str:
    if row.kind is not Kind.EQUIVALENT:
        return ""
    return {True: " (vacuously)", False: "", None: " (blind twins not run)"}[row.vacuous]
