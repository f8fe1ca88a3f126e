from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from orchestrator.analysis.hulls import COST_GRID, mean_hulls
from orchestrator.analysis.panels import panels
from orchestrator.errors import AnalysisError
from orchestrator.reports.evidence import Frames
from orchestrator.reports.figures import Axis, _path, _without_straight, frontier_figure, nice_step
from orchestrator.reports.html import render
from orchestrator.reports.terminal import print_report
from orchestrator.reports.words import chosen, skipped_lines

HOSTILE = "<script>alert('x')</script> [bold]&"

#: Router: advantage over the reference in points, spread of the difference, sees queries, privileged, twin of.
ROUTERS: Mapping[str, tuple[float, float, bool, bool, str | None]] = {
    "oracle": (13.0, 0.8, False, True, None),
    "random": (-24.0, 1.2, False, False, None),
    "zero-router": (-2.6, 0.5, False, False, None),
    "knn": (0.0, 0.0, True, False, None),
    "knn blind twin": (-2.5, 0.4, True, False, "knn"),
    "mlp": (0.05, 0.35, True, False, None),
    "linear": (1.9, 0.5, True, False, None),
    HOSTILE: (-0.6, 2.1, True, False, None),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    sweep: dict[str, Any]
    results: pd.DataFrame
    frontier: pd.DataFrame
    models: pd.DataFrame


def tuned(seed: int) -> str:
    """What tuning found on a split: scores 71, 72, ... 80, and parameters of which k varies."""
    params = {"k": 10 + seed, "weights": HOSTILE if seed % 4 else "uniform"}
    scores = [float(score) for score in range(71, 81)]
    return json.dumps({"params": params, "criterion": "auc_path", "folds": 5, "score": 80.0, "scores": scores})


def make_study(*benchmarks: str, n_splits: int = 20) -> Study:
    """A sweep of 2 encoders and 8 routers with plausible numbers; baselines have no encoder."""
    rng = np.random.default_rng(3)
    results, points, models = [], [], []
    for b, benchmark in enumerate(benchmarks):
        base = 84 - 3 * b + rng.normal(0, 1.2, n_splits)
        for encoder in ("minilm", "hash-ngrams"):
            shift = 0.0 if encoder == "minilm" else -1.5
            for position, (router, (advantage, sd, embeds, privileged, twin_of)) in enumerate(ROUTERS.items()):
                if not embeds and encoder != "minilm":
                    continue
                auc = base + advantage + (shift if embeds and not twin_of else 0) + rng.normal(0, 1, n_splits) * sd
                for seed in range(n_splits):
                    key = f"u1:{benchmark}:{encoder}:{position}:{seed}"
                    results.append(
                        {
                            "sweep": "demo", "unit_key": key, "benchmark": benchmark, "suite": "toolbox", "task": None,
                            "encoder": encoder if embeds else None, "router": router, "seed": seed, "train_size": 1.0,
                            "n_train": 2100 + b, "n_validation": 300, "n_test": 600 + seed % 3,
                            "formulation": "utility",
                            "auc": auc[seed], "auc_path": auc[seed] - 0.3, "auc_rel": (auc[seed] - 81) / 16,
                            "utility_mean": auc[seed] / 2, "privileged": privileged, "query_blind": not embeds,
                            "twin_of": twin_of, "sweep_position": position, "params": "{}", "n_dropped": 0,
                            "chosen": tuned(seed) if router in ("knn", "knn blind twin", HOSTILE) else None,
                            "tuning_seconds": 0.25 if router in ("knn", "knn blind twin", HOSTILE) else None,
                        }
                    )  # fmt: skip
                    # A hull whose area is auc: rises to its level at x, area = level * (1 - x / 2).
                    x = 0.02 * (1 + position)
                    top = auc[seed] / 100 / (1 - x / 2)
                    for part in (0.3, 0.6, 1.0):
                        points.append(
                            {
                                "sweep": "demo", "unit_key": key, "benchmark": benchmark, "router": router,
                                "seed": seed, "cost": x * part, "score": top * part,
                                "price_of_cost": 1 / part, "on_hull": True,
                            }
                        )  # fmt: skip
        for name, family, cost, score in (
            ("small", "acme", 0.0002, 0.55),
            ("medium-instruct", None, 0.0011, 0.68),
            ("large-2024-05-13", "acme", 0.0052, 0.79),
            (HOSTILE, None, 0.01, 0.84),
        ):
            row = {"benchmark": benchmark, "model": name, "family": family}
            models.append(row | {"mean_cost": cost, "mean_score": score - 0.02 * b})
    spec = {
        "name": "demo", "benchmarks": [{"name": "toolbox", "tasks": "each+all"}], "encoders": ["minilm", "hash-ngrams"],
        "routers": list(ROUTERS), "reference": "knn", "protocol": {"lambda": "exact", "left": "null"},
    }  # fmt: skip
    sweep = {
        "name": "demo", "spec": spec, "reference": "knn", "margin": 1.0, "created_at": "2025-01-02 03:04:05+00:00",
        "environments": [
            {"roadtest": "0.1.0", "git commit": "0123abc", "machine": {"cpu": "2 cores"}, "host": HOSTILE},
        ],
        "url_shown": "sqlite:///roadtest.db",
    }  # fmt: skip
    return Study(sweep=sweep, results=pd.DataFrame(results), frontier=pd.DataFrame(points), models=pd.DataFrame(models))


def page_of(sweep: Any, results: pd.DataFrame, frontier: pd.DataFrame, models: pd.DataFrame) -> str:
    return render(sweep, Frames(results=results, frontier=frontier, models=models))


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study("toolbox", "toolbox/dates", "toolbox/units")


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return page_of(study.sweep, study.results, study.frontier, study.models)


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    parsed = Page(page)
    assert {"script", "iframe", "object", "embed", "img"}.isdisjoint(tag for tag, _ in parsed.tags)
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("href", "src", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,", "data:text/csv;")), (tag, attributes)
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_every_fragment_leads_somewhere(page: str) -> None:
    parsed = Page(page)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in parsed.tags if tag == "a" and a["href"]]
    assert {link[1:] for link in links if not link.startswith("data:text/csv;")} <= set(ids)


def test_hostile_names_are_text(page: str) -> None:
    assert "<script" not in page
    texts = Page(page).texts
    # Router in tables and legend, model in the table of models, host in the environment.
    assert sum(text == HOSTILE for text in texts) >= 10


def test_figures_hold_the_data(page: str, study: Study) -> None:
    svgs = [ET.fromstring(svg.replace("&ndash;", "–")) for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)]
    frontiers = [svg for svg in svgs if "frontier" in svg.get("aria-label", "")]
    forests = [svg for svg in svgs if "Differences" in svg.get("aria-label", "")]
    assert len(frontiers) == len(forests) == 6
    for svg in frontiers:
        drawn = [title.text for path in svg.iter("path") for title in path.iter("title")]
        assert drawn == [router for router in ROUTERS if router != "knn"] + ["knn"]
        assert len(list(svg.iter("circle"))) == 4
    # knn, its twin and the oracle are not compared; of five differences random lies beyond the axis.
    assert [len([c for c in svg.iter("circle")]) for svg in forests] == [8] * 6
    assert [len(list(svg.iter("path"))) for svg in forests] == [1] * 6


def test_the_page_says_what_the_analysis_says(page: str) -> None:
    texts = " ".join(Page(page).texts)
    assert "Against knn, on 3 benchmarks with minilm (20 splits each)" in texts
    assert "Which routers differ from knn, and by how much?" in texts
    assert "0 to 19" in texts
    assert "600 to 602 to test" in texts
    assert "machine · cpu" in texts
    assert "tasks: each+all" in texts


def test_same_input_same_bytes(page: str, study: Study) -> None:
    shuffled = study.results.sample(frac=1, random_state=0), study.frontier.sample(frac=1, random_state=0)
    assert page_of(study.sweep, *shuffled, study.models.sample(frac=1, random_state=0)) == page


def test_tuning_is_told(page: str) -> None:
    tables = re.findall(r'<table class="keep tuning">.*?</table>', page, flags=re.DOTALL)
    assert len(tables) == 6
    cells = [text for text in Page(tables[0]).texts if text]
    assert [cells.count(name) for name in ("knn", HOSTILE, "knn blind twin", "mlp")] == [1, 1, 0, 0]
    # The largest of b of 71 ... 80 is 70 + 11 b / (b + 1) on average.
    row = cells[cells.index("knn") + 1 :]
    assert row[:8] == ["10", "75.50", "77.33", "79.17", "80.00", "80.00", "0.25", "AUC path, 5-fold"]
    assert row[8:11] == ["k 10 to 29, median 19", ";", f"weights {HOSTILE} (15 of 20)"]
    # Two routers under two encoders of three benchmarks, and the first panel's board.
    texts = Page(page).texts
    assert (texts.count("tuned"), texts.count("reference, tuned")) == (6, 6)


def test_fixed_routers_have_no_tuning_table(study: Study) -> None:
    fixed = study.results.assign(chosen=None, tuning_seconds=None)
    page = page_of(study.sweep, fixed, study.frontier, study.models)
    assert "<summary>Tuning" not in page
    assert "tuned" not in Page(page).texts


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([3, 1, 12], "1 to 12, median 3"),
        ([0.012345, 2, 1500], "0.0123 to 1500, median 2"),
        ([7, 7], "7 (2 of 2)"),
        (["cosine", "whitened", "whitened"], "whitened (2 of 3)"),
        ([True, False, True], "yes (2 of 3)"),
        ([[100, 100], [50]], "[100, 100] (1 of 2)"),
    ],
)
def test_chosen_values_in_words(values: list[Any], text: str) -> None:
    assert chosen(values) == text


def test_incomplete_routers_are_named_not_ranked(study: Study) -> None:
    lacking = (study.results["router"] == "linear") & (study.results["seed"] > 16)
    out = io.StringIO()
    print_report(Console(file=out, width=160, color_system=None), study.sweep, study.results[~lacking])
    lines = [line.split() for line in out.getvalue().splitlines() if "17 of 20 splits" in line]
    assert [line[:2] for line in lines] == [["–", "linear"]] * 6
    page = page_of(study.sweep, study.results[~lacking], study.frontier, study.models)
    assert Page(page).texts.count("17 of 20 splits") == 6


def test_dropped_queries_are_told(study: Study, page: str) -> None:
    assert "were dropped" not in page
    dropped = study.results.assign(n_dropped=np.where(study.results["benchmark"] == "toolbox/dates", 12, 0))
    dropped.loc[dropped["seed"] == 3, "n_dropped"] *= 2
    text = page_of(study.sweep, dropped, study.frontier, study.models)
    assert text.count("were dropped") == text.count("602 to test; 12 to 24 more to validate or test were dropped") == 1
    assert page_of(study.sweep, study.results.drop(columns="n_dropped"), study.frontier, study.models) == page


def test_many_benchmarks_stay_small() -> None:
    study = make_study(*(f"mmlu-pro/subject {i}" for i in range(15)))
    page = page_of(study.sweep, study.results, study.frontier, study.models)
    assert len(page.encode()) < 5_000_000
    assert page.count("<section") == 18


@pytest.mark.parametrize("formulation", ["utility", "selection"])
def test_sparse_sweeps_render(formulation: str, study: Study) -> None:
    one = study.results[(study.results["benchmark"] == "toolbox") & (study.results["seed"] == 0)]
    if formulation == "selection":
        one = one.assign(formulation=formulation, auc=None, auc_path=None, auc_rel=None)
    frontier = study.frontier if formulation == "utility" else study.frontier.iloc[:0]
    page = page_of({**study.sweep, "environments": [], "spec": {}}, one, frontier, study.models)
    assert "no verdict" in page
    assert not re.search(r"\bnan\b", page.lower())
    assert "None" not in " ".join(Page(page).texts)


def test_without_a_reference(study: Study) -> None:
    page = page_of({**study.sweep, "reference": None}, study.results, study.frontier, study.models)
    assert "No router of this sweep can serve as a reference" in page


def test_a_benchmark_where_the_reference_failed(study: Study) -> None:
    left = study.results[~((study.results["router"] == "knn") & (study.results["benchmark"] == "toolbox/dates"))]
    page = page_of(study.sweep, left, study.frontier, study.models)
    assert "knn has no result here" in page


def test_smaller_training_sizes_carry_no_verdict(study: Study) -> None:
    half = study.results.assign(train_size=0.5, unit_key="half:" + study.results["unit_key"])
    page = page_of(study.sweep, pd.concat([study.results, half]), study.frontier, study.models)
    assert "Leaderboards at 2 smaller training sizes" in page
    assert page.count("which carry no verdict") == 3  # once for each benchmark that has some
    assert "50% of the training side" in page


def test_unknown_reference_is_an_error(study: Study) -> None:
    with pytest.raises(AnalysisError, match="nobody"):
        page_of({**study.sweep, "reference": "nobody"}, study.results, study.frontier, study.models)


def test_mean_hull_by_hand() -> None:
    frontier = pd.DataFrame(
        {
            "unit_key": ["a", "a", "b", "a", "other"],
            "router": ["r"] * 5,
            "cost": [0.5, 1.0, 0.25, 0.7, 0.1],
            "score": [0.8, 0.9, 0.6, 0.1, 1.0],
            "on_hull": [True, True, True, False, True],
        }
    )
    hull = mean_hulls(frontier, pd.Series(["a", "b"]))["r"]
    # Split a: 0.4 at 0.25, 0.8 at 0.5, 0.9 at 1; split b: 0.6 from 0.25 on.
    found = dict(zip(COST_GRID.round(4).tolist(), hull.tolist(), strict=True))
    assert [found[x] for x in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([0, 0.5, 0.7, 0.725, 0.75])


def test_mean_hulls_have_the_mean_auc(study: Study) -> None:
    panel = panels(study.results, study.sweep["spec"])[0]
    hulls = mean_hulls(study.frontier, panel.results["unit_key"])
    for router, rows in panel.results.groupby("router"):
        assert 100 * np.trapezoid(hulls[str(router)], COST_GRID) == pytest.approx(rows["auc"].mean(), abs=0.02)


def test_dots_stand_where_models_do(study: Study) -> None:
    panel = panels(study.results, study.sweep["spec"])[0]
    models = study.models[study.models["benchmark"] == "toolbox"]
    figure = frontier_figure(panel, study.frontier, models, reference="knn")
    assert figure is not None
    large = next(dot for dot in figure.dots if dot.model.startswith("large"))
    assert (large.cost, large.score) == pytest.approx((0.52, 0.79))
    assert (large.x, large.y) == (figure.x(0.52), figure.y(0.79))
    free = frontier_figure(panel, study.frontier, models.assign(mean_cost=0.0), reference="knn")
    assert free is not None
    assert {dot.x for dot in free.dots} == {free.x(0.0)}
    doubled = frontier_figure(panel, study.frontier, models.assign(c_ref=0.02), reference="knn")
    assert doubled is not None
    assert next(dot for dot in doubled.dots if dot.model.startswith("large")).cost == pytest.approx(0.26)


@pytest.mark.parametrize(("raw", "step"), [(0.9, 1), (1.0, 1), (1.1, 2), (0.021, 0.025), (0.03, 0.05), (6, 10)])
def testnice_steps(raw: float, step: float) -> None:
    assert nice_step(raw) == pytest.approx(step)


def test_paths_keep_corners_only() -> None:
    corner = [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 2.0), (4.0, 2.0)]
    assert list(_without_straight(corner)) == [(0.0, 0.0), (2.0, 2.0), (4.0, 2.0)]
    x = Axis(low=0, high=1, start=0, end=400, ticks=())
    assert _path(np.minimum(COST_GRID * 2, 1.0), x, x) == "M0,0L200,400L400,400"


def test_terminal(study: Study) -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=160, color_system=None), study.sweep, study.results)
    text = out.getvalue()
    assert text.count("difference to knn, margin ±1 AUC point") == 6
    assert HOSTILE in text
    assert "▲ better" in text
    last = text.split("\n\n")[-1]
    assert " ".join(last.split()).startswith("Against knn, on 3 benchmarks with minilm (20 splits each)")


def test_terminal_of_one_split(study: Study) -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=80, color_system=None), study.sweep, study.results[study.results["seed"] == 0])
    assert "without a verdict on all 3" in " ".join(out.getvalue().split())
    assert not re.search(r"\bnan\b", out.getvalue())


def test_what_was_skipped_is_said_once_for_each_router_and_reason():
    rows = [
        {"router": "fusion", "benchmark": "a", "encoder": None, "reason": "needs response", "n": 2},
        {"router": "fusion", "benchmark": "b", "encoder": None, "reason": "needs response", "n": 2},
        {"router": "<x>", "benchmark": "a", "encoder": None, "reason": "needs task", "n": 1},
    ]
    assert skipped_lines(rows) == [
        "fusion on a, b: skipped, needs response (4 units)",
        "<x> on a: skipped, needs task (1 unit)",
    ]


def test_reasons_that_differ_in_numbers_alone_are_one_line():
    above = "k = {} is above the {} queries of the training side; lower k."
    rows = [
        {"router": "knn@100", "benchmark": benchmark, "encoder": None, "reason": above.format(100, n), "n": 4}
        for benchmark, n in (("a", 98), ("a", 9), ("b", 57))
    ]
    rows.append({"router": "knn@200", "benchmark": "a", "encoder": None, "reason": above.format(200, 150), "n": 1})
    # A number in a name is a name: routers that lack different data lack them on two lines.
    rows += [{"router": "x", "benchmark": "a", "encoder": None, "reason": f"needs top-{k}", "n": 1} for k in (1, 5)]
    assert skipped_lines(rows) == [
        "knn@100 on a, b: skipped, k = 100 is above the 9 to 98 queries of the training side; lower k. (12 units)",
        "knn@200 on a: skipped, k = 200 is above the 150 queries of the training side; lower k. (1 unit)",
        "x on a: skipped, needs top-1 (1 unit)",
        "x on a: skipped, needs top-5 (1 unit)",
    ]
