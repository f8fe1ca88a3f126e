"""What do the comparisons say in plain words, and no more than that?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from scipy.special import ndtri

from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.corrected_t import CorrectedTest
from orchestrator.analysis.verdicts import VERDICT_SPLITS, Kind

UNITS = {"auc": "AUC point", "auc_path": "AUC path point", "utility_mean": "utility point"}

_ORDER = (Kind.BETTER, Kind.WORSE, Kind.EQUIVALENT, Kind.NOT_WORSE, Kind.INCONCLUSIVE, Kind.NONE)


def verdict_sentence(comparisons: Sequence[Comparison], reference: str | None) -> str:
    """Sum a sweep up: the primary encoder of every benchmark, judged by its primary metric.

    One benchmark: the strongest challenger with its numbers, the others grouped by verdict. Several: how often each
    router got each verdict. Counts, never a test across benchmarks.

    Args:
        comparisons: As `compare_to_reference` gives them.
        reference: Display name of the reference, None when the sweep has none.
    """
    if reference is None:
        return "No router of this sweep can serve as a reference, so nothing was compared."
    rows = headline(comparisons)
    if not rows:
        return f"Nothing was compared with {reference}: no other router that may be has a split in common with it."
    if len({row.benchmark for row in rows}) == 1:
        return _one_benchmark(rows)
    return _several_benchmarks(rows)


def comparison_sentence(row: Comparison) -> str:
    """Say what one comparison found, with its interval, its p and, where it is open, what would be needed."""
    return f"{_where(row)}, {_clause(row)}."


def headline(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons that the sweep's sentence rests on: of every benchmark the first panel, on its judged metric.

    The rest is exploratory.
    """
    first: dict[str, Comparison] = {}
    for row in comparisons:
        if row.formulation == comparisons[0].formulation:
            first.setdefault(row.benchmark, row)
    return [row for row in comparisons if row.benchmark in first and _panel(row) == _panel(first[row.benchmark])]


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, a true minus and no negative zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+") + text


def p_value(p: float) -> str:
    """A p-value as papers print it."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.9995 else "= 1"


def points(value: float, metric: str) -> str:
    """A margin with its unit."""
    return f"{value:g} {UNITS[metric]}" + ("" if value == 1 else "s")


def names(items: Sequence[str]) -> str:
    """Names in a row: a, b and c."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _panel(row: Comparison) -> tuple[str, str | None, str, str]:
    return row.benchmark, row.encoder, row.formulation, row.metric


def _one_benchmark(rows: Sequence[Comparison]) -> str:
    challenger = max(rows, key=lambda row: row.difference)
    clauses = [f"{_where(challenger)}, {_clause(challenger)}"]
    for kind in _ORDER:
        alike = [row for row in rows if row.kind is kind and row is not challenger]
        if alike:
            clauses.append(_group_clause(kind, alike))
    return "; ".join(clauses) + "."


def _several_benchmarks(rows: Sequence[Comparison]) -> str:
    benchmarks = list(dict.fromkeys(row.benchmark for row in rows))
    encoders = list(dict.fromkeys(row.encoder for row in rows if row.encoder))
    groups: dict[tuple[tuple[str, int], ...], list[Comparison]] = {}
    for router in dict.fromkeys(row.candidate for row in rows):
        own = sorted((row for row in rows if row.candidate == router), key=_position)
        groups.setdefault(tuple(Counter(_word(row) for row in own).items()), []).extend(own)
    clauses = []
    for tally, own in sorted(groups.items(), key=lambda group: _position(group[1][0])):
        who = names(list(dict.fromkeys(row.candidate for row in own)))
        verb = "is" if len({row.candidate for row in own}) == 1 else "are each"
        said = names([f"{word} on {'all ' if n == len(benchmarks) else ''}{n}" for word, n in tally])
        size = f", {_range(own)}" if {row.kind for row in own} in ({Kind.BETTER}, {Kind.WORSE}) else ""
        clauses.append(f"{who} {verb} {said}{size}")
    with_encoder = f" with {names(encoders)}" if encoders else ""
    return (
        f"Against {rows[0].reference}, on {len(benchmarks)} benchmarks{with_encoder} ({_splits(rows)} each): "
        f"{'; '.join(clauses)}. These count benchmark by benchmark and are no test across them."
    )


def _group_clause(kind: Kind, rows: Sequence[Comparison]) -> str:
    who, verb = names([row.candidate for row in rows]), "is" if len(rows) == 1 else "are"
    margin = points(rows[0].margin, rows[0].metric)
    match kind:
        case Kind.EQUIVALENT:
            vacuous = [row.candidate for row in rows if row.vacuous]
            untested = [row.candidate for row in rows if row.vacuous is None]
            tail = f" (vacuously {names(vacuous)}: no side beats its blind twin)" if vacuous else ""
            tail += f" (no blind twin was run for {names(untested)})" if untested else ""
            return f"{who} {verb} equivalent within ±{margin}{tail}"
        case Kind.NOT_WORSE:
            return f"{who} {verb} not worse by {margin} or more"
        case Kind.INCONCLUSIVE:
            return f"for {who} the data are inconclusive ({_needed(rows)})"
        case Kind.NONE:
            return f"for {who} there is no verdict below {VERDICT_SPLITS} splits"
        case _:
            return f"{who} {verb} {kind} {_range(rows)}"


def _clause(row: Comparison) -> str:
    d, digits = row.difference, 1 if abs(row.difference) >= 1 else 2
    unit, margin = UNITS[row.metric] + "s", points(row.margin, row.metric)
    if row.kind is Kind.NONE or row.test is None or row.p_holm is None:
        return (
            f"{row.candidate} differs from {row.reference} by {signed(d, digits)} {unit} over {_count(row.n_splits)}: "
            f"no verdict, as that takes {VERDICT_SPLITS} splits"
        )
    low, high = (signed(x, digits) for x in row.test.ci95)
    interval = f"95 % interval {low} to {high}"
    match row.kind:
        case Kind.BETTER | Kind.WORSE:
            within = f", though within the margin of ±{margin}" if row.within_margin else ""
            return (
                f"{row.candidate} is {row.kind} than {row.reference} by {abs(d):.{digits}f} {unit}{within} "
                f"({interval}, Holm p {p_value(row.p_holm)}, {_count(row.n_splits)})"
            )
        case Kind.EQUIVALENT:
            assert row.p_equivalence is not None
            low, high = (signed(x) for x in row.test.ci90)
            tail = {
                False: "",
                True: "; vacuously so, as neither is shown to beat its own blind twin",
                None: "; whether either has learned anything about queries is open, as no blind twin was run",
            }[row.vacuous]
            return (
                f"{row.candidate} is equivalent to {row.reference} within ±{margin} "
                f"(90 % interval {low} to {high}, Holm p {p_value(row.p_equivalence)}, {_count(row.n_splits)}){tail}"
            )
        case Kind.NOT_WORSE:
            assert row.p_not_worse is not None
            return (
                f"{row.candidate} is not worse than {row.reference} by {margin} or more, nor shown to be better "
                f"({signed(d, digits)}, {interval}, "
                f"one-sided Holm p {p_value(row.p_not_worse)}, {_count(row.n_splits)})"
            )
        case _:
            return (
                f"the difference between {row.candidate} and {row.reference} is inconclusive "
                f"({signed(d, digits)} {unit}, {interval}, {_count(row.n_splits)}): {_needed([row])}"
            )


def _needed(rows: Sequence[Comparison]) -> str:
    """What it would take to settle inconclusive comparisons."""
    if all(row.hull for row in rows):
        return "auc and auc_path disagree about the sign, so the difference may come from a hull chosen on test data"
    spread = [row for row in rows if row.test and not row.hull]
    detectable = max(row.detectable or 0.0 for row in spread)
    settle = "more splits of these queries could settle it"
    if not all(row.test and abs(row.difference) > _floor(row.test) for row in spread):
        settle = "more splits of these queries would not settle it, more queries could"
    hull = ", and for some auc and auc_path disagree about the sign" if len(spread) < len(rows) else ""
    size = f"{'up to ' if len(spread) > 1 else ''}{detectable:.1f} {UNITS[rows[0].metric]}s"
    return f"a true difference has to reach {size} to be found four times in five; {settle}{hull}"


def _floor(test: CorrectedTest) -> float:
    """Detectable difference of endlessly many splits: the variance then is s^2 * ratio, and no less."""
    return float(ndtri(0.975) + ndtri(0.8)) * test.sd * math.sqrt(test.ratio)


def _range(rows: Sequence[Comparison]) -> str:
    sizes = sorted(abs(row.difference) for row in rows)
    digits = 1 if sizes[0] >= 1 else 2
    low, high = f"{sizes[0]:.{digits}f}", f"{sizes[-1]:.{digits}f}"
    within = sum(row.within_margin for row in rows)
    note = ", within the margin" if within == len(rows) else f", {within} of them within the margin" if within else ""
    return f"by {low}{'' if low == high else f' to {high}'} {UNITS[rows[0].metric]}s{note}"


def _where(row: Comparison) -> str:
    return f"On {row.benchmark}" + (f" with {row.encoder}" if row.encoder else "")


def _word(row: Comparison) -> str:
    return "without a verdict" if row.kind is Kind.NONE else row.verdict


def _position(row: Comparison) -> int:
    return _ORDER.index(row.kind)


def _splits(rows: Sequence[Comparison]) -> str:
    low, high = min(row.n_splits for row in rows), max(row.n_splits for row in rows)
    return _count(high) if low == high else f"{low} to {high} splits"


def _count(n: int) -> str:
    return f"{n} split" + ("" if n == 1 else "s")
