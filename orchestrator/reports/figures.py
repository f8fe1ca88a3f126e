"""Where does every mark of a figure go? Geometry only; the template draws it as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.hulls import COST_GRID, mean_hulls
from orchestrator.analysis.panels import Panel

#: Colours of the palette in the style sheet; line patterns change after each round.
N_COLOURS = 7

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis: data values low..high on pixels start..end."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Pixel of a value, not clipped."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def clip(self, value: float) -> float:
        """Pixel of a value, at the nearer end when it is outside."""
        return self(min(max(value, self.low), self.high))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A router's mean frontier."""

    router: str
    #: Class of the style sheet: `reference`, `privileged`, `blind`, or `c0`, `c1`, ... with `p0`, `p1`, ...
    style: str
    #: SVG path data.
    path: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A single model."""

    model: str
    x: float
    y: float
    #: Cost in units of c_ref and score.
    cost: float
    score: float
    #: Where its name goes and how it is anchored; None when there is no room.
    label_x: float | None
    anchor: str


@dataclass(frozen=True, kw_only=True)
class FrontierFigure:
    """Mean frontiers of a panel's routers over cost, and the single models."""

    width: float
    height: float
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """An interval around a difference, cut at the axis' ends."""

    y: float
    x: float
    left: float
    right: float
    #: The difference itself lies outside the axis, on this side: -1, 0 or 1.
    beyond: int


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One candidate: the judged metric, and auc_path below it."""

    y: float
    comparison: Comparison
    judged: Whisker
    path: Whisker | None


@dataclass(frozen=True, kw_only=True)
class ForestFigure:
    """Differences to the reference with 95 % intervals and the equivalence band."""

    width: float
    height: float
    x: Axis
    #: Pixels of -margin and +margin.
    band: tuple[float, float]
    rows: tuple[ForestRow, ...]


def line_styles(panel: Panel, reference: str | None) -> dict[str, str]:
    """A style class per router, stable over panels of one sweep: it goes by the position in the sweep file."""
    styles: dict[str, str] = {}
    routers = panel.results.drop_duplicates("router")
    for row in routers.to_dict("records"):
        twin = not pd.isna(row["twin_of"])
        slot = int(row["sweep_position"])
        if row["router"] == reference:
            styles[row["router"]] = "reference"
        elif row["privileged"]:
            styles[row["router"]] = "privileged"
        else:
            styles[row["router"]] = f"c{slot % N_COLOURS} " + ("twin" if twin else f"p{slot // N_COLOURS % 3}")
    return styles


def frontier_figure(
    panel: Panel,
    frontier: pd.DataFrame,
    models: pd.DataFrame,
    *,
    reference: str | None,
) -> FrontierFigure | None:
    """Lay out the mean hulls of a panel; None when it has no frontier.

    Args:
        panel: The panel.
        frontier: The view `frontier`.
        models: `model, mean_cost, mean_score` of the panel's benchmark, costs in USD; `c_ref` where it is not the
            largest mean cost.
        reference: Drawn strongest.
    """
    hulls = mean_hulls(frontier, panel.results["unit_key"])
    if not hulls:
        return None
    cost_unit = (
        float(models["c_ref"].iloc[0] if "c_ref" in models else models["mean_cost"].max()) if len(models) else 0.0
    )
    singles = [
        (str(row["model"]), float(row["mean_cost"]) / cost_unit if cost_unit else 0.0, float(row["mean_score"]))
        for row in models.sort_values("model", kind="stable").to_dict("records")
    ]
    width, height = 480.0, 330.0
    x = Axis(low=0.0, high=1.0, start=46.0, end=width - 14.0, ticks=(0.0, 0.25, 0.5, 0.75, 1.0))
    scores = [score for _, cost, score in singles if cost <= 1] + [float(hull[-1]) for hull in hulls.values()]
    y = _score_axis(min(scores), max(scores), start=height - 42.0, end=12.0)
    styles = line_styles(panel, reference)
    order = [router for router in styles if router in hulls]
    order.sort(key=lambda router: styles[router] == "reference")
    return FrontierFigure(
        width=width,
        height=height,
        x=x,
        y=y,
        lines=tuple(Line(router=r, style=styles[r], path=_path(hulls[r], x, y)) for r in order),
        dots=tuple(_dots([single for single in singles if single[1] <= 1 and single[2] >= y.low], x, y)),
    )


def forest_figure(comparisons: Sequence[Mapping[str, Comparison]], metric: str) -> ForestFigure | None:
    """Lay out a panel's comparisons, best first; None when there are none.

    The axis holds every interval of differences up to ten margins; larger ones become arrows at its end.
    """
    if not comparisons:
        return None
    margin = comparisons[0][metric].margin
    width, top, step = 480.0, 10.0, 34.0
    height = top + step * len(comparisons) + 40.0
    reach = 2 * margin
    for rows in comparisons:
        for row in rows.values():
            if abs(row.difference) <= 10 * margin:
                reach = max(reach, abs(row.difference), *(abs(end) for end in (row.test.ci95 if row.test else ())))
    tick = nice_step(reach / 2.5)
    limit = tick * math.ceil(reach / tick - 1e-9)
    ticks = tuple(round(tick * i, 10) for i in range(-round(limit / tick), round(limit / tick) + 1))
    x = Axis(low=-limit, high=limit, start=138.0, end=width - 62.0, ticks=ticks)
    placed = []
    for i, rows in enumerate(comparisons):
        y = top + step * (i + 0.5)
        other = next((row for name, row in rows.items() if name != metric), None)
        placed.append(
            ForestRow(
                y=y,
                comparison=rows[metric],
                judged=_whisker(rows[metric], x, y - 4 if other else y),
                path=_whisker(other, x, y + 7) if other else None,
            )
        )
    return ForestFigure(width=width, height=height, x=x, band=(x(-margin), x(margin)), rows=tuple(placed))


def _whisker(row: Comparison, x: Axis, y: float) -> Whisker:
    low, high = row.test.ci95 if row.test else (row.difference, row.difference)
    beyond = (row.difference > x.high) - (row.difference < x.low)
    return Whisker(y=y, x=x.clip(row.difference), left=x.clip(low), right=x.clip(high), beyond=beyond)


def _score_axis(low: float, high: float, *, start: float, end: float) -> Axis:
    # The hulls start at (0, 0), which would squeeze all that differs into the top of the figure.
    step = nice_step(max(high - low, 0.02) * 1.1 / 4)
    bottom = max(0.0, step * math.floor((low - 0.25 * step) / step + 1e-9))
    top = step * math.ceil((high + 0.1 * step) / step - 1e-9)
    top = min(top, 1.0) if high <= 1 else top
    ticks = tuple(round(bottom + step * i, 10) for i in range(math.floor((top - bottom) / step + 1e-9) + 1))
    return Axis(low=bottom, high=top, start=start, end=end, ticks=ticks)


def nice_step(raw: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is at least `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= raw * (1 - 1e-9))


def _path(scores: Floats, x: Axis, y: Axis) -> str:
    points = [(x(cost), y(score)) for cost, score in zip(COST_GRID.tolist(), scores.tolist(), strict=True)]
    return "M" + "L".join(f"{px:g},{py:g}" for px, py in _without_straight(points))


def _without_straight(points: Sequence[tuple[float, float]], tolerance: float = 0.2) -> Iterable[tuple[float, float]]:
    """Leave out points closer than `tolerance` pixels to the chord (Ramer 1972, Douglas and Peucker 1973)."""
    first, last = np.array(points[0]), np.array(points[-1])
    if len(points) < 3:
        return points
    chord = last - first
    length = float(np.hypot(*chord)) or 1.0
    inner = np.array(points[1:-1]) - first
    distance = np.abs(inner[:, 0] * chord[1] - inner[:, 1] * chord[0]) / length
    worst = int(distance.argmax()) + 1
    if distance[worst - 1] <= tolerance:
        return [points[0], points[-1]]
    left = list(_without_straight(points[: worst + 1], tolerance))
    return left[:-1] + list(_without_straight(points[worst:], tolerance))


def _dots(singles: Sequence[tuple[str, float, float]], x: Axis, y: Axis) -> Iterable[Dot]:
    """Place names beside points, best score first, where they meet no other name or point."""
    taken = [(x(cost) - 4, y(score) - 4, x(cost) + 4, y(score) + 4) for _, cost, score in singles]
    for name, cost, score in sorted(singles, key=lambda single: (-single[2], single[0])):
        px, py = x(cost), y(score)
        length = 6.2 * min(len(name), 26)
        label_x, anchor = None, "start"
        for left, right, at, side in (
            (px + 7, px + 7 + length, px + 7, "start"),
            (px - 7 - length, px - 7, px - 7, "end"),
        ):
            box = (left, py - 7, right, py + 7)
            fits = box[0] >= x.start and box[2] <= x.end and y.end <= py <= y.start - 6
            if fits and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                label_x, anchor = at, side
                taken.append(box)
                break
        yield Dot(model=name, x=px, y=py, cost=cost, score=score, label_x=label_x, anchor=anchor)
