"""Label counts, the rule's answer and the claims in every format, with a router whose name is hostile."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from orchestrator.reports.content import Content, assemble
from orchestrator.reports.evidence import Frames
from orchestrator.reports.html import render
from orchestrator.reports.papers import latex, markdown, tables
from orchestrator.reports.settling import claim_charts
from orchestrator.reports.terminal import print_report

HOSTILE = "<script>alert(1)</script> | \\input{x} $a_b$ & 100%\n# ~^{}"
SWEEP = {"name": "s", "spec": {}, "reference": "knn", "margin": 1.0, "created_at": "2026-11-28", "url_shown": "x"}
SIZES = {0.2: 140, 0.5: 350, 1.0: 700}
#: Area by router and size: the hostile one starts behind kNN and ends ahead.
CURVES = {"zero-router": (60, 60, 60), "knn": (74.0, 79.5, 80.0), HOSTILE: (70.0, 75.0, 85.0)}
CHOSEN = '{"params": {"k": 10}, "criterion": "auc_path", "folds": 5, "score": 80.0, "scores": [79.0, 80.0]}'
WAVE = np.tile([1.0, -1.0], 5)


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    frames = []
    for position, (router, curve) in enumerate(CURVES.items()):
        blind = router == "zero-router"
        for (size, n), area in zip(SIZES.items(), curve, strict=True):
            areas = area + np.zeros(10) if blind else area + 0.1 * WAVE
            columns = {
                "unit_key": [f"{position} {size} {seed}" for seed in range(10)], "benchmark": "b", "suite": "b",
                "task": None, "encoder": None if blind else "e", "router": router, "train_size": size, "n_train": n,
                "n_validation": 100, "n_test": 200, "formulation": "utility", "utility_mean": 40.0,
                "privileged": False, "query_blind": blind, "twin_of": None, "sweep_position": position,
                "chosen": CHOSEN if router == "knn" else None, "tuning_seconds": None, "params": "{}",
                "trained_on": None, "auc": areas, "auc_path": areas, "auc_rel": areas / 100,
            }  # fmt: skip
            frames.append(pd.DataFrame({"seed": range(10)}).assign(**columns))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def findings() -> pd.DataFrame:
    plain = {"measure": "locality", "benchmark": "b", "encoder": "e", "router": None, "label": "", "x": None}
    values = {"dimension": 7.0, "correlation": -0.2}
    return pd.DataFrame(
        [{**plain, "low": None, "high": None, "quantity": name, "value": value} for name, value in values.items()]
    )


@pytest.fixture(scope="module")
def content(results: pd.DataFrame, findings: pd.DataFrame) -> Content:
    return assemble(SWEEP, results, findings)


def test_numbers_go_to_csv(content: Content) -> None:
    found = tables(content)
    labels = found["labels"].set_index(["router", "area"])
    # From 350 on kNN is 0.5 below its full area; the target is 60 + 0.8 * 20.
    assert labels.loc[("knn", "auc"), ["n_within_delta", "n_within_delta_bound"]].tolist() == [350, ""]
    assert labels.loc[("knn", "auc"), "target"] == pytest.approx(76)
    assert labels.loc[(HOSTILE, "auc_path"), "n_target"] == 700
    assert labels.loc[(HOSTILE, "auc"), ["overtaken_after", "overtaken_until"]].tolist() == [350, 700]
    assert found["settled"]["outcome"].tolist() == ["open"]
    assert len(found["claims"]) == 6


def test_markdown_has_both_sections(content: Content) -> None:
    text = markdown(content)
    labels = text[text.index("## How many labels?") : text.index("## What would settle it")]
    assert "| knn | 80.00 | 350 | 350 | 350 | 350 | – |" in labels
    assert "| zero-router | 60.00 | ≤ 140 | ≤ 140 | \\> 700 | \\> 700 | none shown |" in labels
    assert "overtakes between 350 and 700" in labels
    settle = text[text.index("## What would settle it") :]
    assert "is open on b with e: against tuned kNN (knn)" in settle
    assert "To decide: no selection runs in the sweep" in settle
    assert "not measured in this sweep" in settle
    assert "<script" not in re.sub(r"\\<", "", text)


def test_latex_has_a_table_for_each_and_takes_no_command_from_names(content: Content) -> None:
    text = latex(content)
    # Leaderboard, labels, learned routers, claims.
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 4
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"\input" not in bare
    assert r"$\le$ 140" in bare
    for body in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", bare, re.DOTALL):
        cells = {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if line.endswith(r"\\")}
        assert len(cells) == 1


def test_the_page_has_both_sections_in_its_contents(results: pd.DataFrame, findings: pd.DataFrame) -> None:
    models = pd.DataFrame(columns=["benchmark", "model", "family", "mean_cost", "mean_score"])
    frontier = pd.DataFrame(columns=["unit_key", "router", "position", "cost", "score", "price_of_cost", "on_hull"])
    page = render(SWEEP, Frames(results=results, frontier=frontier, models=models, findings=findings))
    for anchor in ("labels", "settle"):
        assert page.count(f'href="#{anchor}"') == 2
        assert page.count(f'id="{anchor}"') == 1
    settle = page[page.index('id="settle"') :]
    assert "To decide: no selection runs in the sweep" in settle
    assert "Low intrinsic dimension predicts where kNN suits?" in settle
    assert "<script" not in page
    whole = render(SWEEP, Frames(results=results[results["train_size"] == 1], frontier=frontier, models=models))
    assert "#labels" not in whole
    assert "#settle" in whole


def test_scatters_are_points_without_lines(content: Content) -> None:
    charts = {chart.title: chart for chart in claim_charts(content.claims)}
    assert list(charts) == [
        "Low intrinsic dimension predicts where kNN suits?",
        "Locality predicts where kNN suits?",
        "Low dimension means fewer labels?",
    ]
    (series,) = charts["Low dimension means fewer labels?"].series
    assert (series.name, series.path) == ("b, e", "")
    assert series.points[0][2] == "b, e: 0.50 at 7"


def test_the_terminal_says_it_before_the_verdict(results: pd.DataFrame, findings: pd.DataFrame) -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=220, color_system=None), SWEEP, results, findings)
    text = out.getvalue()
    labels, settle, verdict = (
        text.index(part) for part in ("How many labels?", "What would settle it", "On b with e,")
    )
    assert labels < settle < verdict
    assert "overtakes between 350 and 700" in text
