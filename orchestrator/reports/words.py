"""How are numbers and verdicts written? The same in the terminal and on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any

from orchestrator.analysis.sentences import signed
from orchestrator.analysis.verdicts import Kind

#: A number by itself, not part of a name.
_NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w-])")

#: What stands where there is no number.
NOTHING = "–"

#: Column heads of the metrics.
METRIC_TITLES: Mapping[str, str] = {
    "auc": "AUC",
    "auc_path": "AUC path",
    "auc_rel": "AUC rel",
    "utility_mean": "Utility",
}

#: A sign for each verdict, so that colour is never the only difference.
GLYPHS: Mapping[Kind, str] = {
    Kind.BETTER: "▲",
    Kind.WORSE: "▼",
    Kind.EQUIVALENT: "≈",
    Kind.NOT_WORSE: "≥",
    Kind.INCONCLUSIVE: "?",
    Kind.NONE: "·",
}


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus, a dash for None."""
    if value is None:
        return NOTHING
    text = f"{abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and float(text) else text


def difference(value: float | None) -> str:
    """A difference with its sign."""
    return NOTHING if value is None else signed(value)


def spread(mean: float | None, sd: float | None) -> str:
    """Mean ± sd."""
    return number(mean) if sd is None else f"{number(mean)} ± {number(sd)}"


def interval(bounds: tuple[float, float] | None, digits: int = 2) -> str:
    """Both ends with their signs."""
    return NOTHING if bounds is None else f"{signed(bounds[0], digits)}, {signed(bounds[1], digits)}"


def p(value: float | None) -> str:
    """A p-value in a table."""
    if value is None:
        return NOTHING
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def chosen(values: Sequence[Any]) -> str:
    """The values that tuning chose for one parameter: numbers that vary by range and median, else the most frequent."""
    if len(set(map(str, values))) > 1 and all(isinstance(x, int | float) and not isinstance(x, bool) for x in values):
        return f"{_value(min(values))} to {_value(max(values))}, median {_value(median_low(values))}"
    value, count = Counter(map(_value, values)).most_common(1)[0]
    return f"{value} ({count} of {len(values)})"


def folds(counts: Sequence[int]) -> str:
    """On what tuning judged."""
    return " or ".join("validation side" if count == 1 else f"{count}-fold" for count in counts)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def skipped_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was not computed by definition, a line per router and kind of reason.

    Reasons of a kind differ in numbers alone, as "k = 100 is above the 29 queries" does at every training size and
    split: their range is said once.

    Args:
        rows: `benchmark, encoder, router, reason, n` of the skipped units.
    """
    kinds: dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault((row["router"], tuple(_NUMBER.split(row["reason"]))), []).append(row)
    lines = []
    for (router, words), own in kinds.items():
        benchmarks = dict.fromkeys(row["benchmark"] for row in own)
        numbers = zip(*(_NUMBER.findall(row["reason"]) for row in own), strict=True)
        reason = words[0] + "".join(_span(found) + word for found, word in zip(numbers, words[1:], strict=True))
        n = sum(row["n"] for row in own)
        lines.append(f"{router} on {', '.join(benchmarks)}: skipped, {reason} ({n} unit{'' if n == 1 else 's'})")
    return lines


def approximate_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What an index of neighbours missed, a line per router.

    Args:
        rows: `router, mean, lowest, n` of the recalls of its results.
    """
    return [
        f"{row['router']} finds neighbours by an approximate index: recall {row['mean']:.3f} on average, "
        f"{row['lowest']:.3f} at worst ({row['n']} result{'' if row['n'] == 1 else 's'})."
        for row in rows
    ]


def _span(numbers: Sequence[str]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low} to {high}"
