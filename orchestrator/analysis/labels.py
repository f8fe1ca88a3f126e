"""How many labels does a router need? Counts from learning curves over nested training sizes, never extrapolated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.corrected_t import CorrectedTest, nadeau_bengio
from orchestrator.analysis.panels import full_size, needs_no_embedding, panels
from orchestrator.analysis.roles import zero_router
from orchestrator.analysis.verdicts import INTERVAL_SPLITS

Floats = npt.NDArray[np.float64]

#: Areas that are counted side by side, the headline first.
AREAS = ("auc", "auc_path")
#: Part of the reference's gain over the zero-router that makes the common target.
PART = 0.8
_ABSENT = "not at the largest size"


@dataclass(frozen=True, kw_only=True)
class Count:
    """A number of labelled queries, perhaps censored by the sizes that were tried, or why there is none."""

    n: int | None = None
    #: `≤`: it holds at the smallest size already; `>`: not at any size tried, the largest of which is n.
    bound: Literal["", "≤", ">"] = ""
    reason: str = ""

    def __str__(self) -> str:
        return self.reason if self.n is None else f"{self.bound} {self.n:,}".strip()


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Labels at which a level is reached for good, by the mean and by both 95 % bounds of the distance to it."""

    #: The mean is at the level from here on.
    estimate: Count
    #: The upper bound is: before, the level is shown to be missed.
    earliest: Count
    #: The lower bound is: from here on, the level is shown to be reached.
    latest: Count

    def __str__(self) -> str:
        if self.estimate.n is None or str(self.earliest) == str(self.latest):
            return str(self.estimate)
        return f"{self.estimate} ({self.earliest} to {self.latest})"


@dataclass(frozen=True, kw_only=True)
class Overtaking:
    """Where one of two curves crosses the other for good."""

    #: Who comes from behind: the router, the reference, or nobody that could be shown.
    by: Literal["router", "reference", ""] = ""
    #: The largest size at which it is shown to be behind.
    after: int | None = None
    #: The smallest size from which on it is shown to be ahead.
    until: int | None = None
    reason: str = "none shown"

    def __str__(self) -> str:
        if not self.by:
            return self.reason
        verb = "overtakes" if self.by == "router" else "is overtaken"
        return f"{verb} between {self.after:,} and {self.until:,}"


@dataclass(frozen=True, kw_only=True)
class RouterLabels:
    """What one router's curve says; counts by area."""

    router: str
    #: Area at the largest size, mean over splits, None where it has no result there.
    full: Mapping[str, float | None]
    #: n_delta: from here on the area is shown to lie less than delta below that of the largest size.
    within: Mapping[str, Count]
    #: Labels at the common target.
    target: Mapping[str, Reached]
    #: Against the reference; the judged area with the other's sign. None for the reference itself.
    overtaking: Overtaking | None


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Label counts of one benchmark under one encoder."""

    benchmark: str
    encoder: str | None
    #: Labelled queries at each size, mean over splits, ascending.
    sizes: tuple[int, ...]
    #: Points of area.
    delta: float
    reference: str | None
    #: Area of the common target, mean over splits, or why there is none.
    level: Mapping[str, float | str]
    rows: tuple[RouterLabels, ...]


def label_tables(
    results: pd.DataFrame,
    reference: str | None,
    *,
    delta: float = 1.0,
    spec: Mapping[str, Any] | None = None,
) -> list[LabelTable]:
    """Count the labels that each router needs, wherever utility prediction was run at two training sizes or more.

    All differences are paired by split, and bounds are Nadeau and Bengio's with `n_test/n_train` of the largest size:
    splits overlap as whole splits do, whatever part of their training side is used.

    Args:
        results: The view `results` of one sweep.
        reference: Router whose gain makes the common target and that others may overtake, None for neither.
        delta: Points of area.
        spec: The sweep file as a dict, for the order of benchmarks and encoders and the zero-router's name.

    Returns:
        One table for each benchmark and encoder, in the order of the sweep file.
    """
    zero = zero_router(results, spec)
    found = []
    for panel in full_size(panels(results, spec)):
        rows = results[(results["benchmark"] == panel.benchmark) & (results["formulation"] == panel.formulation)]
        rows = rows[needs_no_embedding(rows) | (rows["encoder"] == panel.encoder)]
        if panel.formulation == "utility" and rows["train_size"].nunique() > 1:
            curves = _curves(rows)
            level = _levels(curves, zero, reference)
            found.append(
                LabelTable(
                    benchmark=panel.benchmark,
                    encoder=panel.encoder,
                    sizes=_sizes(curves),
                    delta=delta,
                    reference=reference,
                    level={area: of if isinstance(of, str) else float(np.nanmean(of)) for area, of in level.items()},
                    rows=tuple(_row(curve, curves.get(reference or ""), level, delta) for curve in curves.values()),
                )
            )
    return found


def label_frame(tables: Sequence[LabelTable]) -> pd.DataFrame:
    """A row for each benchmark, encoder, router and area; a count is its number and its bound (`≤`, `>` or nothing)."""

    def rows() -> Iterator[dict[str, Any]]:
        for table in tables:
            for row in table.rows:
                crossing = row.overtaking or Overtaking()
                for area in AREAS:
                    target = row.target[area]
                    yield {
                        "benchmark": table.benchmark,
                        "encoder": table.encoder,
                        "router": row.router,
                        "area": area,
                        "n_full": table.sizes[-1],
                        "full": row.full[area],
                        "delta": table.delta,
                        **_cells("n_within_delta", row.within[area]),
                        "target": None if isinstance(table.level[area], str) else table.level[area],
                        **_cells("n_target", target.estimate),
                        **_cells("n_target_earliest", target.earliest),
                        **_cells("n_target_latest", target.latest),
                        "overtaken_by": {"router": row.router, "reference": table.reference}.get(crossing.by),
                        "overtaken_after": crossing.after,
                        "overtaken_until": crossing.until,
                    }

    frame = pd.DataFrame(rows())
    counts = frame.columns[frame.columns.str.fullmatch("n_[a-z_]+(?<!_bound)|overtaken_after|overtaken_until")]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def _cells(name: str, count: Count) -> dict[str, Any]:
    return {name: count.n, f"{name}_bound": count.bound}


def from_which_on(holds: Sequence[bool]) -> int | None:
    """Position of the first value from which on all hold, None when the last one does not."""
    position = len(holds)
    while position and holds[position - 1]:
        position -= 1
    return position if position < len(holds) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Curve:
    """One router over nested sizes; axes are the splits and the ascending sizes of all routers of its table."""

    router: str
    #: By area, NaN where there is no result. [n_splits, n_sizes]
    values: Mapping[str, Floats]
    #: Labelled queries, mean over splits. [n_sizes]
    n: Floats
    #: Queries of each split at its largest size. [n_splits]
    n_train: Floats
    n_test: Floats

    def labels(self, size: int) -> int:
        """Labelled queries at a position of the sizes."""
        return round(float(self.n[size]))

    def test(self, d: Floats) -> CorrectedTest | None:
        """The corrected test of differences by split, None where an interval takes more splits."""
        at = np.isfinite(d) & np.isfinite(self.n_train)
        return nadeau_bengio(d[at], self.n_train[at], self.n_test[at]) if at.sum() >= INTERVAL_SPLITS else None


def _curves(rows: pd.DataFrame) -> dict[str, _Curve]:
    """Curves of those who compete, in the order of the sweep file."""
    rows = rows[~rows["privileged"].astype(bool) & rows["twin_of"].isna()]
    rows = rows.sort_values(["sweep_position", "router"], kind="stable")
    seeds, sizes = np.unique(rows["seed"]), np.unique(rows["train_size"])
    curves = {}
    for name, own in rows.groupby("router", sort=False):
        at = np.searchsorted(seeds, own["seed"]), np.searchsorted(sizes, own["train_size"])

        def laid(column: str, own: pd.DataFrame = own, at: Any = at) -> Floats:
            table = np.full((len(seeds), len(sizes)), np.nan)
            table[at] = pd.to_numeric(own[column])
            return table

        labels = laid("n_train")
        tried = np.isfinite(labels).any(axis=0)
        n = np.full(len(sizes), np.nan)
        n[tried] = np.nanmean(labels[:, tried], axis=0)
        curves[str(name)] = _Curve(
            router=str(name),
            values={area: laid(area) for area in AREAS},
            n=n,
            n_train=labels[:, -1],
            n_test=laid("n_test")[:, -1],
        )
    return curves


def _sizes(curves: Mapping[str, _Curve]) -> tuple[int, ...]:
    most = max(curves.values(), key=lambda curve: np.isfinite(curve.n).sum())
    return tuple(round(float(n)) for n in most.n if np.isfinite(n))


def _levels(curves: Mapping[str, _Curve], zero: str | None, reference: str | None) -> dict[str, Floats | str]:
    """The common target of each split by area, or why there is none."""
    start, end = curves.get(zero or ""), curves.get(reference or "")
    if start is None or end is None:
        return dict.fromkeys(AREAS, "no zero-router" if end else "no reference")
    levels: dict[str, Floats | str] = {}
    for area in AREAS:
        gain = end.values[area][:, -1] - start.values[area][:, -1]
        test = end.test(gain)
        if test is None:
            levels[area] = f"takes {INTERVAL_SPLITS} splits"
        else:
            shown = test.ci90[0] > 0
            levels[area] = (
                start.values[area][:, -1] + PART * gain if shown else f"no gain of {reference} over {zero} shown"
            )
    return levels


def _row(curve: _Curve, reference: _Curve | None, level: Mapping[str, Floats | str], delta: float) -> RouterLabels:
    return RouterLabels(
        router=curve.router,
        full={area: float(np.nanmean(curve.values[area][:, -1])) if curve.n[-1] > 0 else None for area in AREAS},
        within={area: _within(curve, area, delta) for area in AREAS},
        target={area: _reached(curve, area, level[area]) for area in AREAS},
        overtaking=_overtaking(curve, reference) if reference and reference is not curve else None,
    )


def _within(curve: _Curve, area: str, delta: float) -> Count:
    values = curve.values[area]
    if not np.isfinite(curve.n[:-1]).any() or np.isnan(curve.n[-1]):
        return Count(reason="one size only" if np.isfinite(curve.n[-1]) else _ABSENT)
    # The largest size says nothing about itself, so that it is no answer.
    tests = [curve.test(values[:, -1] - values[:, size]) for size in range(len(curve.n) - 1)]
    return _count(curve, tests, [test is not None and test.ci90[1] < delta for test in tests])


def _reached(curve: _Curve, area: str, level: Floats | str) -> Reached:
    if isinstance(level, str):
        none = Count(reason=level)
        return Reached(estimate=none, earliest=none, latest=none)
    tests = [curve.test(values - level) for values in curve.values[area].T]

    def count(holds: Sequence[bool]) -> Count:
        return _count(curve, tests, holds)

    return Reached(
        estimate=count([test is not None and test.mean >= 0 for test in tests]),
        earliest=count([test is not None and test.ci90[1] >= 0 for test in tests]),
        latest=count([test is not None and test.ci90[0] >= 0 for test in tests]),
    )


def _count(curve: _Curve, tests: Sequence[CorrectedTest | None], holds: Sequence[bool]) -> Count:
    """The first size from which on it holds; what is not known at a size is not taken to hold there."""
    if tests[-1] is None:
        return Count(reason=f"takes {INTERVAL_SPLITS} splits")
    first = from_which_on(holds)
    if first is None:
        return Count(n=curve.labels(len(tests) - 1), bound=">")
    known_before = first > 0 and tests[first - 1] is not None
    return Count(n=curve.labels(first), bound="" if known_before else "≤")


def _overtaking(curve: _Curve, reference: _Curve) -> Overtaking:
    if np.isnan(curve.n[-1]):
        return Overtaking(reason=_ABSENT)
    signs = [_shown(curve, reference, size) for size in range(len(curve.n))]
    if signs[-1] is None:
        return Overtaking(reason=f"takes {INTERVAL_SPLITS} splits")
    by: Literal["router", "reference"]
    for by, ahead in (("router", 1), ("reference", -1)):
        first = from_which_on([sign == ahead for sign in signs])
        behind = [i for i, sign in enumerate(signs[:first]) if sign == -ahead]
        if first is not None and behind:
            return Overtaking(by=by, after=curve.labels(behind[-1]), until=curve.labels(first))
    return Overtaking()


def _shown(curve: _Curve, reference: _Curve, size: int) -> int | None:
    """1 where the curve is shown to be ahead of the reference's, -1 behind, 0 neither, None with too few splits.

    By the 95 % interval in the judged area, with the same sign in the other (protocol 2.3).
    """
    judged, other = (curve.values[area][:, size] - reference.values[area][:, size] for area in AREAS)
    test = curve.test(judged)
    if test is None:
        return None
    if test.ci95[0] > 0 and np.nanmean(other) > 0:
        return 1
    return -1 if test.ci95[1] < 0 and np.nanmean(other) < 0 else 0
