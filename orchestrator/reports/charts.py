"""Which pictures does the page know besides frontiers and forests? Curves, matrices, bars, maps; geometry only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

import pandas as pd

from orchestrator.analysis.ranking import Ranking
from orchestrator.reports.figures import N_COLOURS, Axis, nice_step

WIDTH, HEIGHT = 480.0, 300.0
#: Shades of a matrix on either side of its middle.
N_TONES = 4


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One picture with its words and its data."""

    #: Macro of `charts.html.j2` that draws it.
    kind: ClassVar[str]
    title: str
    caption: str
    #: The data as a `data:` URL of CSV, for a link that downloads it.
    data: str
    #: File name of the download.
    file: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart of curves."""

    name: str
    style: str
    #: Nothing where points are not joined.
    path: str
    #: Outline of the interval about it, None where there is none.
    band: str | None
    #: Pixel and text of each point.
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, kw_only=True)
class Curves(Chart):
    """Lines over a linear or logarithmic axis."""

    kind: ClassVar[str] = "curves"
    x: Axis
    y: Axis
    #: Pixel and text of each tick.
    x_ticks: tuple[tuple[float, str], ...]
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a matrix; tone -4 .. 4 is its colour, the text says it too."""

    text: str
    tone: int
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Matrix(Chart):
    """Numbers by rows and columns, coloured."""

    kind: ClassVar[str] = "matrix"
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Bars(Chart):
    """Shares that sum to 1, one bar for each row."""

    kind: ClassVar[str] = "bars"
    #: Row name and its parts: name, percent, colour.
    rows: tuple[tuple[str, tuple[tuple[str, float, int], ...]], ...]
    #: Name and colour.
    legend: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Map(Chart):
    """Points in a plane, coloured by a label."""

    kind: ClassVar[str] = "map"
    #: Pixel, colour and label of each.
    points: tuple[tuple[float, float, int, str], ...]
    legend: tuple[tuple[str, int], ...]
    width: float = 420.0
    height: float = 420.0


@dataclass(frozen=True, kw_only=True)
class Ladder(Chart):
    """Average ranks on a line, and bars that join those which do not differ (Demsar 2006)."""

    kind: ClassVar[str] = "ladder"
    x: Axis
    #: Name, average rank, pixel of its rank, row of its label, side of the label: -1 left, 1 right.
    marks: tuple[tuple[str, float, float, int, int], ...]
    #: Pixels of both ends, and row.
    cliques: tuple[tuple[float, float, int], ...]
    #: Length of the critical difference in pixels, and its number.
    difference: tuple[float, float]
    width: float = 620.0
    height: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Listing(Chart):
    """A small table."""

    kind: ClassVar[str] = "listing"
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def csv_url(frame: pd.DataFrame) -> str:
    """A data frame as a `data:` URL; numbers with six digits."""
    return "data:text/csv;charset=utf-8," + quote(frame.to_csv(index=False, float_format="%.6g"))


def curves(
    lines: Mapping[str, Sequence[tuple[float, float, float | None, float | None]]],
    *,
    title: str,
    caption: str,
    file: str,
    x_title: str,
    y_title: str,
    styles: Mapping[str, str],
    logarithmic: bool = False,
    joined: bool = True,
    data: pd.DataFrame,
) -> Curves:
    """Lay curves out.

    Args:
        lines: By name points of x, y and the ends of their interval, in the order of x.
        title: Head.
        caption: What is drawn, in words.
        file: Name of the download, without extension.
        x_title: Title of the horizontal axis.
        y_title: Of the vertical one.
        styles: Classes of the style sheet by name; others are drawn in turn.
        logarithmic: Whether x is drawn by its logarithm; then every x is above 0.
        joined: Whether the points of a name are joined by a line.
        data: What the link downloads.
    """
    scale = math.log10 if logarithmic else float
    points = [point for line in lines.values() for point in line]
    xs = [scale(x) for x, *_ in points]
    ys = [value for _, y, low, high in points for value in (y, low, high) if value is not None]
    x = Axis(low=min(xs), high=max(xs) if max(xs) > min(xs) else min(xs) + 1, start=52, end=WIDTH - 14, ticks=())
    y = _value_axis(min(ys), max(ys))
    values = sorted({x for x, *_ in points})
    shown = values if len(values) <= 8 else values[:: math.ceil(len(values) / 8)]
    ticks: list[tuple[float, str]] = []
    for value in shown:
        pixel = x(scale(value))
        if not ticks or pixel - ticks[-1][0] > 34:
            ticks.append((pixel, f"{value:,.0f}" if value >= 100 else f"{value:.3g}"))
    series = []
    for i, (name, line) in enumerate(lines.items()):
        placed = [(x(scale(px)), y(py), f"{name}: {py:.2f} at {px:,.6g}") for px, py, _, _ in line]
        edges = [(x(scale(px)), low, high) for px, _, low, high in line if low is not None and high is not None]
        band = None
        if len(edges) > 1:
            there = [f"{px:g},{y.clip(high):g}" for px, _, high in edges]
            back = [f"{px:g},{y.clip(low):g}" for px, low, _ in reversed(edges)]
            band = "M" + "L".join(there + back) + "Z"
        series.append(
            Series(
                name=name,
                style=styles.get(name, f"c{i % N_COLOURS} p{i // N_COLOURS % 3}"),
                path="M" + "L".join(f"{px:g},{py:g}" for px, py, _ in placed) if joined else "",
                band=band,
                points=tuple(placed),
            )
        )
    return Curves(
        title=title, caption=caption, data=csv_url(data), file=f"{file}.csv", x=x, y=y, x_ticks=tuple(ticks),
        x_title=x_title, y_title=y_title, series=tuple(series),
    )  # fmt: skip


def matrix(
    values: pd.DataFrame,
    *,
    title: str,
    caption: str,
    file: str,
    corner: str,
    middle: float = 0.0,
    digits: int = 1,
    signed: bool = True,
) -> Matrix:
    """Lay a matrix out; colours run from the farthest value below the middle to the farthest above it.

    Args:
        values: Rows and columns with their names; NaN where there is nothing.
        title: Head.
        caption: What the numbers are.
        file: Name of the download, without extension.
        corner: What rows and columns are.
        middle: The value without colour.
        digits: After the point.
        signed: Whether numbers carry a sign.
    """
    reach = float((values - middle).abs().max().max()) or 1.0

    def cell(row: str, column: str, value: float) -> Cell:
        if math.isnan(value):
            return Cell(text="–", tone=0)
        text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
        tone = round((value - middle) / reach * N_TONES) if math.isfinite(reach) else 0
        return Cell(text=text.replace("-", "−"), tone=tone, hint=f"{row}, {column}: {value:.4g}")

    columns = [str(name) for name in values.columns]
    return Matrix(
        title=title,
        caption=caption,
        data=csv_url(values.reset_index()),
        file=f"{file}.csv",
        corner=corner,
        columns=tuple(columns),
        rows=tuple(
            (str(name), tuple(cell(str(name), column, float(v)) for column, v in zip(columns, row, strict=True)))
            for name, row in zip(values.index, values.to_numpy(dtype=float), strict=True)
        ),
    )


def bars(shares: pd.DataFrame, *, title: str, caption: str, file: str, most: int = N_COLOURS) -> Bars:
    """Lay shares out: the columns with the largest means have colours, the others are one part.

    Args:
        shares: A row for each bar, a column for each part; rows sum to 1.
        title: Head.
        caption: What the shares are.
        file: Name of the download, without extension.
        most: Parts with a colour of their own.
    """
    order = shares.mean().sort_values(ascending=False, kind="stable").index.tolist()
    named = order[: most if len(order) <= most else most - 1]
    rest = order[len(named) :]
    colour = {name: i for i, name in enumerate(named)}
    legend = [(str(name), i) for name, i in colour.items()] + ([(f"{len(rest)} others", N_COLOURS)] if rest else [])
    rows = []
    for name, row in shares.iterrows():
        parts = [(str(part), 100 * float(row[part]), colour[part]) for part in named if row[part] > 0]
        others = float(row[rest].sum()) if rest else 0.0
        rows.append((str(name), tuple([*parts, ("others", 100 * others, N_COLOURS)] if others > 0 else parts)))
    return Bars(
        title=title, caption=caption, data=csv_url(shares.reset_index()), file=f"{file}.csv", rows=tuple(rows),
        legend=tuple(legend),
    )  # fmt: skip


def plane(points: pd.DataFrame, *, title: str, caption: str, file: str) -> Map:
    """Lay points out, the most frequent labels with colours of their own.

    Args:
        points: Columns x, y, label.
        title: Head.
        caption: What the points are.
        file: Name of the download, without extension.
    """
    order = points["label"].value_counts(sort=True).sort_values(ascending=False, kind="stable").index.tolist()
    colour = {name: min(i, N_COLOURS) for i, name in enumerate(order)}
    reach = float(points[["x", "y"]].abs().max().max()) or 1.0
    size, edge = 420.0, 10.0
    axis = Axis(low=-reach, high=reach, start=edge, end=size - edge, ticks=())
    legend = [(str(name), i) for i, name in enumerate(order[:N_COLOURS])]
    if len(order) > N_COLOURS:
        legend.append((f"{len(order) - N_COLOURS} others", N_COLOURS))
    return Map(
        title=title,
        caption=caption,
        data=csv_url(points),
        file=f"{file}.csv",
        points=tuple(
            (axis(float(px)), size - axis(float(py)), colour[label], str(label))
            for px, py, label in points[["x", "y", "label"]].itertuples(index=False)
        ),
        legend=tuple(legend),
    )


def ladder(ranking: Ranking, *, title: str, caption: str, file: str) -> Ladder:
    """Lay a critical-difference diagram out (Demsar 2006): the better half is labelled on the left, best on top.

    Args:
        ranking: Average ranks, 1 = best.
        title: Head.
        caption: What is drawn, in words.
        file: Name of the download, without extension.
    """
    order = sorted(zip(ranking.ranks, ranking.routers, strict=True))
    k, difference = len(order), ranking.critical_difference
    step = math.ceil(k / 12)
    # The bar of the critical difference begins at rank 1 and has to fit.
    x = Axis(low=1.0, high=max(float(k), 1 + difference), start=165.0, end=455.0, ticks=tuple(range(1, k + 1, step)))
    left = math.ceil(k / 2)
    marks = [(name, rank, x(rank), row, -1) for row, (rank, name) in enumerate(order[:left])]
    marks += [(name, rank, x(rank), row, 1) for row, (rank, name) in enumerate(reversed(order[left:]))]
    ranks = dict(zip(ranking.routers, ranking.ranks, strict=True))
    groups = [sorted(ranks[name] for name in group) for group in ranking.cliques]
    data = pd.DataFrame({"router": [name for _, name in order], "average_rank": [rank for rank, _ in order]})
    return Ladder(
        title=title,
        caption=caption,
        data=csv_url(data.assign(suites=len(ranking.suites), critical_difference=difference)),
        file=f"{file}.csv",
        x=x,
        marks=tuple(marks),
        cliques=tuple((x(group[0]), x(group[-1]), row) for row, group in enumerate(groups)),
        difference=(round(x(1 + difference) - x.start, 1), difference),
        height=74.0 + 7 * len(groups) + 20 * left,
    )


def listing(frame: pd.DataFrame, *, title: str, caption: str, file: str, digits: int = 2) -> Listing:
    """A data frame as a small table; numbers rounded, nothing as a dash."""

    def shown(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        if isinstance(value, float):
            return f"{value:,.{digits}f}".replace("-", "−")
        return str(value)

    return Listing(
        title=title,
        caption=caption,
        data=csv_url(frame),
        file=f"{file}.csv",
        columns=tuple(map(str, frame.columns)),
        rows=tuple(tuple(shown(value) for value in row) for row in frame.astype(object).itertuples(index=False)),
    )


def _value_axis(low: float, high: float) -> Axis:
    spread = high - low or max(abs(high), 1.0) * 0.1
    step = nice_step(spread * 1.05 / 4)
    bottom, top = step * math.floor(low / step), step * math.ceil(high / step)
    if top == bottom:
        top += step
    ticks = tuple(round(bottom + step * i, 10) for i in range(round((top - bottom) / step) + 1))
    return Axis(low=bottom, high=top, start=HEIGHT - 44, end=12, ticks=ticks)
