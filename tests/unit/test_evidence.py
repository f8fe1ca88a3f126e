"""Pictures of the report, by hand-made results and findings."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
from rich.console import Console

from orchestrator.reports.charts import bars, curves, matrix, plane
from orchestrator.reports.content import assemble
from orchestrator.reports.evidence import Frames, benchmark_charts, shift_charts
from orchestrator.reports.html import render
from orchestrator.reports.papers import latex, markdown, tables
from orchestrator.reports.published import published
from orchestrator.reports.terminal import print_report

POSITIONS = {"oracle": 0, "zero-router": 1, "knn": 2, "knn blind twin": 3, "linear": 4}


def row(router: str, seed: int, area: float, **changes: Any) -> dict[str, Any]:
    blind = router in ("oracle", "zero-router")
    return {
        "sweep": "s", "unit_key": f"{router} {seed} {changes}", "benchmark": "b", "suite": "b", "task": None,
        "encoder": None if blind else "e", "router": router, "seed": seed, "train_size": 1.0, "n_train": 100,
        "n_validation": 10, "n_test": 30, "formulation": "utility", "auc": area + 1, "auc_path": area, "auc_rel": 0.5,
        "utility_mean": area, "privileged": router == "oracle", "query_blind": blind,
        "twin_of": "knn" if router == "knn blind twin" else None, "sweep_position": POSITIONS[router], "chosen": None,
        "tuning_seconds": None, "trained_on": None, **changes,
    }  # fmt: skip


def results(*more: dict[str, Any]) -> pd.DataFrame:
    plain = [row(router, seed, 50 + 5 * p + seed) for router, p in POSITIONS.items() for seed in range(3)]
    return pd.DataFrame([*plain, *more])


def charts(frame: pd.DataFrame, **frames: pd.DataFrame) -> dict[str, Any]:
    content = assemble({"name": "s", "spec": {}, "reference": "knn", "margin": 1.0}, frame)
    everything = Frames(results=frame, frontier=pd.DataFrame(), models=pd.DataFrame(), **frames)
    return {chart.title: chart for chart in benchmark_charts(content, everything, "b")}


def test_twins_are_compared_with_their_routers() -> None:
    (cells,) = charts(results())["Against their blind twins"].rows
    # knn is at 60 + seed, its twin at 65 + seed: paired differences of -5 on each split, so without spread.
    assert cells[:5] == ("knn", "e", "61.00", "66.00", "−5.00")
    assert cells[7] == "0.00"


def test_learning_curves_have_every_size_by_queries() -> None:
    smaller = [
        row("knn", seed, 40 + seed, train_size=size, n_train=int(100 * size))
        for size in (0.1, 0.5)
        for seed in range(3)
    ]
    chart = charts(results(*smaller))["How many labels? e"]
    knn = next(series for series in chart.series if series.name == "knn")
    assert [text for _, _, text in knn.points] == ["knn: 42.00 at 10", "knn: 42.00 at 50", "knn: 62.00 at 100"]
    assert "oracle" not in {series.name for series in chart.series}
    # A decade is as long as another: 10, 50, 100 queries.
    left, middle, right = (x for x, _, _ in knn.points)
    assert (middle - left) / (right - left) == pytest.approx(0.69897, abs=0.01)
    assert "How many labels? e" not in charts(results())


def test_encoders_show_the_gain_over_the_zero_router() -> None:
    other = [row("knn", seed, 58 + seed, encoder="f") for seed in range(3)]
    chart = charts(results(*other))["Is it the encoder?"]
    assert chart.columns == ("e", "f")
    cells = dict(chart.rows)
    assert [cell.text for cell in cells["knn"]] == ["+5.0", "+3.0"]
    assert [cell.text for cell in cells["linear"]] == ["+15.0", "–"]


def test_shifts_show_drops_by_column() -> None:
    areas = {("u", "u"): 70, ("v", "u"): 60, ("u", "v"): 40, ("v", "v"): 45}
    cells = [
        row("knn", seed, area + seed, benchmark=f"b/{a}→{b}", task=b, trained_on=a)
        for (a, b), area in areas.items()
        for seed in range(2)
    ]
    (chart,) = shift_charts(pd.DataFrame(cells))
    table = {name: [cell.text for cell in row] for name, row in chart.rows}
    assert chart.columns == ("u", "v")
    assert table == {"u": ["+0.0", "+5.0"], "v": ["+10.0", "+0.0"]}
    assert shift_charts(results()) == []


def test_doses_are_one_curve_over_the_permuted_share() -> None:
    dosed = [row("knn", seed, 56 + seed, encoder="e, 50% permuted") for seed in range(3)]
    found = charts(results(*dosed))
    chart = found["What is left without locality? e"]
    knn = next(series for series in chart.series if series.name == "knn")
    assert [text for _, _, text in knn.points] == ["knn: 5.00 at 0", "knn: 1.00 at 50"]
    assert "Is it the encoder?" not in found  # a dose is no other encoder


def test_doses_are_of_utility_prediction_at_the_full_size() -> None:
    dosed = [row("knn", seed, 56 + seed, encoder="e, 50% permuted") for seed in range(3)]
    others = [
        row(router, seed, 20 + seed, encoder=encoder, **changes)
        for router, encoder in (("zero-router", None), ("knn", "e"), ("knn", "e, 50% permuted"))
        for changes in ({"train_size": 0.2, "n_train": 20}, {"formulation": "selection"})
        for seed in range(3)
    ]
    knn = charts(results(*dosed, *others))["What is left without locality? e"].series[0]
    assert (knn.name, [text for _, _, text in knn.points]) == ("knn", ["knn: 5.00 at 0", "knn: 1.00 at 50"])


def finding(quantity: str, value: float, **keys: Any) -> dict[str, Any]:
    plain = {"measure": "locality", "benchmark": "b", "encoder": "e", "router": None, "label": "", "x": None}
    return {**plain, "low": None, "high": None, "quantity": quantity, "value": value, **keys}


def test_locality_stands_beside_its_null() -> None:
    findings = pd.DataFrame(
        [
            finding("agreement", 0.3, x=0.2, low=-0.1, high=0.1),
            finding("agreement", 0.1, x=0.8, low=-0.2, high=0.2),
            finding("agreement", 0.2, x=0.2, low=-0.1, high=0.1, label="model-centred"),
            finding("correlation", -0.25, low=-0.03, high=0.02),
            finding("p", 0.01),
            finding("p_within_task", 0.34),
            finding("correlation", -0.05, low=-0.04, high=0.04, label="same task"),
            finding("p", 0.02, label="same task"),
            finding("dosed_correlation", -0.125, x=50.0),
            finding("binned_correlation", -0.8, low=-0.9, high=0.85),
            finding("binned_p", 0.4),
            finding("undefined_share", 0.57),
            finding("dimension", 12.34),
            finding("map", 0.5, x=-0.5, label="m1"),
            finding("map", -0.5, x=0.5, label="m2"),
        ]
    )
    found = charts(results(), findings=findings)
    chart = found["Is performance local? e"]
    observed, null, centred = chart.series
    assert (observed.name, null.name, centred.name) == ("observed", "null", "observed, queries' means kept")
    assert [text for *_, text in centred.points] == ["observed, queries' means kept: 0.20 at 0.2"]
    assert observed.band is None
    assert null.band is not None
    table = found["Locality in numbers, e"]
    assert [row[1:] for row in table.rows] == [
        ("−0.250", "−0.0300 to 0.0200", "0.0100"),
        ("−0.250", "–", "0.340"),
        ("−0.0500", "−0.0400 to 0.0400", "0.0200"),
        ("−0.800", "−0.900 to 0.850", "0.400"),
    ]
    assert (
        "95 % of permutations lie between −0.90 and 0.85, and −0.80 lies within: it shows no locality." in table.caption
    )
    assert "57 % of the pairs have no such correlation" in table.caption
    assert "Intrinsic dimension (TwoNN): 12.3." in table.caption
    assert [label for *_, label in found["The embedding by best model, e"].points] == ["m1", "m2"]


def test_a_binned_correlation_beyond_its_null_is_said_to_be() -> None:
    findings = pd.DataFrame([finding("binned_correlation", -0.95, low=-0.9, high=0.85), finding("binned_p", 0.01)])
    table = charts(results(), findings=findings)["Locality in numbers, e"]
    assert "and −0.95 lies outside." in table.caption
    # Findings of the measure's first version have neither bins nor nulls of correlations.
    old = pd.DataFrame([finding("correlation", -0.25), finding("p", 0.01)])
    assert charts(results(), findings=old)["Locality in numbers, e"].rows[0][1:] == ("−0.250", "–", "0.0100")


def test_dosed_panels_are_folded_into_one_picture() -> None:
    dosed = [row("knn", seed, 56 + seed, encoder="e, 50% permuted") for seed in range(3)]
    frame = results(*dosed)
    findings = pd.DataFrame([finding("correlation", -0.25), finding("dosed_correlation", -0.125, x=50.0)])
    sweep = {"name": "s", "spec": {"encoders": ["e"]}, "reference": "knn", "margin": 1.0}
    content = assemble(sweep, frame)
    assert [(panel.panel.encoder, panel.is_dosed) for panel in content.panels] == [
        ("e", False),
        ("e, 50% permuted", True),
    ]
    models = pd.DataFrame(columns=["benchmark", "model", "family", "mean_cost", "mean_score"])
    frontier = pd.DataFrame(columns=["unit_key", "router", "cost", "score", "on_hull"])
    given = Frames(results=frame, frontier=frontier, models=models, findings=findings)
    page = render({**sweep, "created_at": "2026-11-25", "url_shown": "x"}, given)
    open_part, _, folded = page.partition('<details class="dosed">')
    assert "Leaderboards of 1 permuted embeddings" in folded
    assert "50% permuted: means" not in open_part
    assert "left: −0.2500 at 0 %, −0.1250 at 50 %." in open_part
    out = io.StringIO()
    print_report(Console(file=out, width=200, color_system=None), sweep, frame)
    assert "b · e" in out.getvalue()
    assert "permuted ·" not in out.getvalue()
    assert "1 panels of permuted embeddings" in out.getvalue()
    for text in (markdown(content), latex(content)):
        assert "permuted" not in text
    assert "e, 50% permuted" in set(tables(content)["leaderboard"]["encoder"])


def test_scaling_and_maintenance() -> None:
    findings = pd.DataFrame(
        [
            finding("route_us_per_query", 10.0, measure="scaling", router="knn", x=1000.0),
            finding("route_us_per_query", 100.0, measure="scaling", router="knn", x=10000.0),
            finding("auc_path", 60.0, measure="maintenance", router="knn", label="queries: updated", x=10.0),
            finding("seconds", 0.5, measure="maintenance", router="knn", label="queries: updated", x=10.0),
        ]
    )
    found = charts(results(), findings=findings)
    (series,) = found["What does routing cost?"].series
    assert [text for _, _, text in series.points] == ["knn: 10.00 at 1,000", "knn: 100.00 at 10,000"]
    assert found["Keeping up"].rows == (("knn", "queries: updated", "60.000", "0.500"),)


def test_matrices_are_coloured_by_distance_from_the_middle() -> None:
    values = pd.DataFrame({"c": [4.0, -2.0], "d": [float("nan"), 0.0]}, index=["a", "b"])
    chart = matrix(values, title="t", caption="", file="f", corner="")
    assert [[cell.tone for cell in cells] for _, cells in chart.rows] == [[4, 0], [-2, 0]]
    assert unquote(chart.data).endswith("a,4,\nb,-2,0\n")


def test_bars_sum_to_all_and_gather_the_rest() -> None:
    shares = pd.DataFrame([[0.5, 0.2, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]], columns=list("wxyz"), index=["r", "s"])
    chart = bars(shares, title="t", caption="", file="f", most=3)
    assert [name for name, _ in chart.legend] == ["w", "y", "2 others"]
    for _, parts in chart.rows:
        assert sum(percent for _, percent, _ in parts) == pytest.approx(100)
    assert dict((name, percent) for name, percent, _ in chart.rows[0][1])["others"] == pytest.approx(30)


def test_points_stand_where_they_are() -> None:
    chart = plane(
        pd.DataFrame({"x": [1.0, -1.0], "y": [1.0, 0.0], "label": ["a", "b"]}), title="", caption="", file="f"
    )
    (right, top, _, _), (left, middle, _, _) = chart.points
    assert (right, top) == (410.0, 10.0)
    assert (left, middle) == (10.0, 210.0)


def test_one_point_is_a_curve_too() -> None:
    line = {"a": [(5.0, 1.0, None, None)]}
    chart = curves(
        line, title="", caption="", file="f", x_title="", y_title="", styles={}, data=pd.DataFrame({"x": [5.0]})
    )
    assert chart.y.low <= 1.0 < chart.y.high


def test_published_figures_go_by_name() -> None:
    assert set(published("routerbench-part/arc_challenge")["table"]) == {"E.1"}
    assert published("AlpacaEval/OpenAI").set_index("router").loc["oracle", "auc"] == 63.17
    assert published("routerbench-part").empty
    assert published("nothing").empty


def test_hostile_names_stay_text_in_every_picture() -> None:
    evil = "<script>x</script>\"'&"
    frame = results().replace({"router": {"linear": evil}, "encoder": {"e": evil}, "benchmark": {"b": evil}})
    findings = pd.DataFrame(
        [finding("map", 0.5, x=-0.5, label=evil), finding("agreement", 0.1, x=0.2, low=0.0, high=0.1)]
    ).replace({"benchmark": {"b": evil}, "encoder": {"e": evil}})
    lost = {"benchmark": evil, "query": evil, "task": evil, "score": 0.0, "best": 1.0, "lost": 1.0, "splits": 1}
    hardest = pd.DataFrame([lost])
    shares = pd.DataFrame(
        [{"benchmark": evil, "encoder": evil, "router": evil, "model": m, "share": 0.5} for m in (evil, "m")]
    )
    models = pd.DataFrame(columns=["benchmark", "model", "family", "mean_cost", "mean_score"])
    frontier = pd.DataFrame(columns=["unit_key", "router", "position", "cost", "score", "price_of_cost", "on_hull"])
    page = render(
        {"name": "s", "spec": {}, "reference": "knn", "margin": 1.0, "created_at": "2026-11-25", "url_shown": "x"},
        Frames(results=frame, frontier=frontier, models=models, findings=findings, shares=shares, hardest=hardest),
    )
    assert "Where is most lost?" in page
    assert "Who gets the queries?" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
