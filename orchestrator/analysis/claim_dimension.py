"""Do low dimension and locality go with kNN's advantage, and low dimension with few labels? Scatters, no p-values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from orchestrator.analysis.claim import Claim, Scatter, counted, not_measured, suite_of
from orchestrator.analysis.labels import LabelTable
from orchestrator.analysis.panels import Panel
from orchestrator.analysis.roles import fixed_neighbours, learned_routers, tuned_knn
from orchestrator.analysis.sentences import signed

#: Suites below which points show no pattern at all.
PATTERN = 3
#: Axis titles of what the measure `locality` finds.
MEASURES: Mapping[str, str] = {
    "dimension": "intrinsic dimension (TwoNN)",
    "correlation": "correlation of agreement with distance",
}

#: Benchmark and encoder.
Place = tuple[str, str | None]
#: Name, x, y, suite.
Point = tuple[str, float, float, str]


def locality(findings: pd.DataFrame | None) -> dict[Place, dict[str, float]]:
    """What the measure `locality` found of each benchmark and encoder: `dimension`, `correlation`."""
    found: dict[Place, dict[str, float]] = {}
    if findings is not None and len(findings):
        rows = findings[(findings["measure"] == "locality") & findings["quantity"].isin(MEASURES)]
        rows = rows[rows["x"].isna() & (rows["label"] == "") & rows["value"].notna()]
        for benchmark, encoder, quantity, value in rows[["benchmark", "encoder", "quantity", "value"]].to_numpy():
            found.setdefault((str(benchmark), str(encoder)), {})[str(quantity)] = float(value)
    return found


def predicts(
    claim: str,
    quantity: str,
    measured: Mapping[Place, Mapping[str, float]],
    panels: Sequence[Panel],
    spec: Mapping[str, Any] | None,
    reference: str | None,
) -> Claim:
    """A quantity of `locality` beside kNN's advantage: its mean `auc_rel` minus the median of the learned routers'.

    Both quantities are small where the paper says that kNN suits, so it claims a falling scatter.
    """
    points: list[Point] = []
    for panel in panels:
        x = measured.get((panel.benchmark, panel.encoder), {}).get(quantity)
        y = None if x is None else _advantage(panel, spec, reference)
        if x is not None and y is not None:
            points.append((f"{panel.benchmark}, {panel.encoder}", x, y, suite_of(panel)))
    needs = "the study locality, with kNN and a learned router"
    return _scatter(
        claim, needs, points, MEASURES[quantity], "AUC rel of kNN minus median learned router", rising=False
    )


def fewer_labels(
    claim: str,
    measured: Mapping[Place, Mapping[str, float]],
    panels: Sequence[Panel],
    labels: Sequence[LabelTable],
    knn: str | None,
) -> Claim:
    """Dimension beside the share of the labels from which on kNN is within the margin of its full AUC."""
    suites = {panel.benchmark: suite_of(panel) for panel in panels}
    points: list[Point] = []
    exact: set[str] = set()
    censored = 0
    for table in labels:
        x = measured.get((table.benchmark, table.encoder), {}).get("dimension")
        counts = [row.within["auc"] for row in table.rows if row.router == knn]
        if x is not None and counts and counts[0].n is not None:
            suite = suites[table.benchmark]
            points.append((f"{table.benchmark}, {table.encoder}", x, counts[0].n / table.sizes[-1], suite))
            censored += counts[0].bound != ""
            exact |= set() if counts[0].bound else {suite}
    title = f"share of the labels until {knn} is within {labels[0].delta:g} of its full AUC" if labels else ""
    needs = "the study locality at several train_sizes, with kNN"
    found = _scatter(claim, needs, points, MEASURES["dimension"], title, rising=True)
    if not censored:
        return found
    note = f"{counted(censored, 'count')} censored, at {'its' if censored == 1 else 'their'} bound"
    if len(exact) < PATTERN:
        # A bound is where the sizes ended, so that its rank says nothing about the labels.
        return replace(found, found=f"{counted(len(points), 'point')}, {note}", verdict="open: too few exact counts")
    return replace(found, found=f"{found.found}; {note}")


def _advantage(panel: Panel, spec: Mapping[str, Any] | None, reference: str | None) -> float | None:
    fixed = list(fixed_neighbours(panel.results, spec).values())
    knn = tuned_knn(panel.results, spec, reference) or (
        reference if reference in fixed else next(iter(fixed[::-1]), None)
    )
    learned = learned_routers(panel.results, spec)
    if knn is None or not learned:
        return None
    means = panel.results.groupby("router")["auc_rel"].mean()
    advantage = float(means[knn] - means[learned].median())
    return advantage if math.isfinite(advantage) else None


def _scatter(claim: str, needs: str, points: Sequence[Point], x_title: str, y_title: str, *, rising: bool) -> Claim:
    if not points:
        return not_measured(claim, needs)
    table = pd.DataFrame(points, columns=["name", "x", "y", "suite"])
    n_suites = table["suite"].nunique()
    number = f"{counted(len(table), 'point')} of {counted(n_suites, 'suite')}"
    varied = table["x"].nunique() > 1 and table["y"].nunique() > 1
    scatter = Scatter(points=table[["name", "x", "y"]], x_title=x_title, y_title=y_title)
    if n_suites < PATTERN or not varied:
        listed = "; ".join(f"{name}: {x:.3g} and {signed(y, 3)}" for name, x, y, _ in points)
        found = f"{x_title} and {y_title}: {listed}" if len(points) <= PATTERN else number
        return Claim(claim=claim, found=found, verdict=f"open: {number} show no pattern", scatter=scatter)
    rho = float(table["x"].corr(table["y"], method="spearman"))
    way = "the claimed way" if rho and (rho > 0) == rising else "not the claimed way"
    return Claim(
        claim=claim,
        found=f"Spearman's ρ = {signed(rho)} over {number}",
        verdict=f"runs {way}; a picture, no test",
        scatter=scatter,
    )
