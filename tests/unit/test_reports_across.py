"""What reports say across suites: table, notes, picture of ranks, the same in every format."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from orchestrator.analysis import compare
from orchestrator.analysis.across import across_pair
from orchestrator.analysis.ranking import critical_difference, rank_routers
from orchestrator.analysis.readings import read_pair
from orchestrator.reports import across
from orchestrator.reports.charts import ladder
from orchestrator.reports.content import Content, assemble
from orchestrator.reports.evidence import Frames
from orchestrator.reports.html import render
from orchestrator.reports.papers import latex, markdown, tables
from orchestrator.reports.terminal import print_across, print_pair_across, print_readings
from tests.suites import FIVE, WAVE, rows, study

HOSTILE = "<b>&|_$ router"


def sweep(**changes: Any) -> dict[str, Any]:
    spec = {"encoders": ["minilm", "hash"], "benchmarks": list(FIVE)}
    return {
        "name": "demo",
        "spec": spec,
        "reference": "reference",
        "margin": 1.0,
        "created_at": None,
        "url_shown": None,
    } | changes


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    frames = [
        study(
            {
                suite: {"good": 5 + WAVE + i, "same": 0.1 * WAVE, HOSTILE: -4 + 0.2 * i * WAVE}
                for i, suite in enumerate(FIVE)
            },
            encoder=encoder,
        )
        for encoder in ("minilm", "hash")
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame["unit_key"] = [f"u1:{i}" for i in frame.index]
    frame["n_validation"] = 100
    return frame[~((frame["router"] == "same") & (frame["suite"] == "w"))].reset_index(drop=True)


@pytest.fixture(scope="module")
def content(results: pd.DataFrame) -> Content:
    return assemble(sweep(), results)


def page_of(facts: dict[str, Any], results: pd.DataFrame) -> str:
    columns = ["unit_key", "router", "seed", "cost", "score", "price_of_cost", "on_hull"]
    frontier = pd.DataFrame(columns=columns)
    models = pd.DataFrame(columns=["benchmark", "model", "family", "mean_cost", "mean_score"])
    return render(facts, Frames(results=results, frontier=frontier, models=models))


def test_the_sentence_rests_on_the_primary_family(content: Content) -> None:
    said = content.sentence
    assert content.counts.endswith("These count benchmark by benchmark and are no test across them.")
    assert said.startswith(
        "Across up to 5 suites with minilm, the primary family: good is better than reference by 7.0"
    )
    assert f"{HOSTILE} is worse by 4.0" in said
    assert "same (blind twins not run) is equivalent within ±1 AUC point" in said


def test_table_and_notes(content: Content) -> None:
    primary, exploratory = content.across
    assert (primary.title, exploratory.title) == ("minilm: primary family", "hash: exploratory")
    head, body = across.table(primary)
    good, same, worse = (dict(zip(head, row, strict=True)) for row in body)
    assert (good["Router"], good["Δ AUC"], good["Suites"]) == ("good", "+7.00", "5")
    assert (good["Δ path"], good["Δ rel"], good["Verdict"]) == ("+7.00", "+0.070", "▲ better")
    assert (same["Suites"], worse["Verdict"]) == ("4 of 5", "▼ worse")
    assert across.notes(primary.rows)[0] == "Left out, not filled in: suite w, no result of same on w."
    assert all(row["Signed-rank p"] == "refused" for row in (good, same, worse))
    assert any(
        "Signed-rank test refused: with 5 suites that differ the smallest p is 0.0625" in note
        for note in across.notes(primary.rows)
    )
    ranks = across.rank_notes(primary.ranks)
    assert ranks[0].startswith("Friedman over 4 suites and 4 routers")
    assert "no verdict by ranks below 10 suites" in ranks[0]
    assert ranks[1] == "Left out of the ranks: suite w, not every split of same."


def test_one_suite_says_nothing_across(results: pd.DataFrame) -> None:
    two = results[results["benchmark"].isin(["v", "w"]) & (results["encoder"] == "minilm")].assign(suite="v")
    page = page_of(sweep(), two)
    assert "Across" not in page
    assert 'id="across"' not in page
    assert "Fewer than two suites are compared here" in page


def test_the_page(results: pd.DataFrame) -> None:
    page = page_of(sweep(), results)
    section = page[page.index('<section aria-labelledby="across">') :]
    section = section[: section.index("</section>")]
    assert HOSTILE not in section
    assert "primary family" in section
    assert "Left out, not filled in: suite w" in section
    assert '<a href="#across">' in page
    assert "exploratory, as the primary family is across suites" in page[: page.index('id="across"')]
    svg = ET.fromstring(re.search(r"<svg.*?</svg>", section, flags=re.DOTALL)[0])  # type: ignore[index]
    labels = [" ".join("".join(text.itertext()).split()) for text in svg.iter("text")]
    assert f"critical difference {critical_difference(4, 4):.2f}" in labels
    assert {"good 1.00", f"{HOSTILE} 4.00"} <= set(labels)


def test_without_a_reference_the_ranks_remain(results: pd.DataFrame) -> None:
    [part] = across.across_parts(results.query("encoder == 'minilm'"), None, margin=1.0, spec={})
    assert across.table(part) == ([], [])
    assert across.ladder_chart(part) is not None


def test_papers(content: Content) -> None:
    text = markdown(content)
    assert "## Across suites, minilm: primary family" in text
    assert "| good | 5 | +7.00 |" in text
    assert "| good | 1.00 |" in text
    assert r"\caption{Across suites, minilm: primary family" in latex(content)
    assert r"$\tau$" in latex(content)
    found = tables(content)
    assert set(found) == {
        "summary",
        "leaderboard",
        "comparisons",
        "across-suites",
        "suites",
        "ranks",
        "settled",
        "claims",
    }
    own = found["across-suites"].query("candidate == 'good' and metric == 'auc' and primary")
    assert own["difference"].item() == pytest.approx(7)
    assert len(found["suites"].query("candidate == 'same' and metric == 'auc' and encoder == 'minilm'")) == 4


def test_the_terminal(content: Content) -> None:
    out = io.StringIO()
    print_across(Console(file=out, width=130, color_system=None), content.across, "reference")
    said = out.getvalue()
    assert "across suites, minilm: primary family: difference to reference" in said
    assert "Left out, not filled in: suite w, no result of same on w." in said
    assert "Exploratory, on the page and in the CSV: hash." in said


def test_a_ladder_places_what_it_is_given() -> None:
    ranking = rank_routers([[3.0, 2.0, 1.0]] * 3 + [[3.0, 1.0, 2.0]], ["a", "b", "c"], list("wxyz"))
    figure = ladder(ranking, title="t", caption="c", file="f")
    assert [(name, rank, side) for name, rank, _, _, side in figure.marks] == [
        ("a", 1, -1),
        ("b", 2.25, -1),
        ("c", 2.75, 1),
    ]
    unit = figure.x(2) - figure.x(1)
    assert figure.difference[0] == pytest.approx(unit * ranking.critical_difference, abs=0.3)
    # 1.66 joins b with both others, not a with c: 1.75 apart.
    assert [(left, right) for left, right, _ in figure.cliques] == [
        (figure.x(1), figure.x(2.25)), (figure.x(2.25), figure.x(2.75)),
    ]  # fmt: skip
    # A critical difference wider than all ranks still fits.
    two = ladder(rank_routers([[2.0, 1.0]] * 2, ["a", "b"], list("xy")), title="t", caption="c", file="f")
    assert two.x.start + two.difference[0] <= two.x.end


def test_many_routers_have_a_row_each() -> None:
    table = np.random.default_rng(0).normal(size=(5, 41))
    figure = ladder(rank_routers(table, [f"r{i}" for i in range(41)], list("vwxyz")), title="t", caption="c", file="f")
    assert len({(side, row) for *_, row, side in figure.marks}) == 41
    assert figure.height >= 74 + 20 * 20
    assert len(figure.x.ticks) <= 12


def test_a_reference_that_lacks_an_encoder(results: pd.DataFrame) -> None:
    frame = results[~((results["encoder"] == "hash") & (results["router"] == "reference"))]
    [_, part] = across.across_parts(frame, "reference", margin=1.0, spec=sweep()["spec"])
    assert across.notes(part.rows)[0] == "Left out, not filled in: suite v, no result of reference on v."
    assert across.table(part)[1][0][2] == "–"


def test_baselines_stand_under_every_encoder(results: pd.DataFrame) -> None:
    zero = [rows("zero-router", 70 + WAVE, suite, encoder=None, query_blind=True) for suite in FIVE]
    frame = pd.concat([results, *zero], ignore_index=True)
    for part in across.across_parts(frame, "reference", margin=1.0, spec={}):
        assert "zero-router" in {row.candidate for row in part.judged}


def printed(show: Any, *what: Any, width: int = 150) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width, color_system=None), *what)
    return out.getvalue()


def test_a_pair_across_suites(results: pd.DataFrame) -> None:
    said = printed(print_pair_across, across_pair(results, "same", "reference", "minilm"))
    assert "same − reference across suites: one pair, exploratory" in said
    assert "suite w, no result of same on w" in said
    assert "Signed-rank test refused: with 0 suites that differ the smallest p is 1" in said
    assert "Across 4 suites with minilm, same is equivalent to reference within ±1 AUC point" in said
    assert printed(print_pair_across, []) == ""


def test_a_verdict_is_whole_in_a_terminal_of_120_characters(results: pd.DataFrame) -> None:
    pair = across_pair(results, "good", "reference", "minilm")
    said = printed(print_pair_across, pair, width=120)
    assert "▲ better" in said
    assert "new suite" not in said
    assert "new suite" in printed(print_pair_across, pair)


def test_readings_of_a_pair(results: pd.DataFrame) -> None:
    own = results[(results["suite"] == "v") & (results["encoder"] == "minilm")]
    rng = np.random.default_rng(0)
    areas = {key: 80 + rng.normal(size=50) for key in own["unit_key"]}
    compared = compare(own, "good", "reference")
    readings = read_pair(compared, own, areas)
    by_metric = {one.row.metric: one for one in readings}
    assert by_metric["auc"].bootstrap is None
    drawn = by_metric["auc_path"].bootstrap
    assert drawn is not None
    keys = own.sort_values("seed").groupby("router")["unit_key"].apply(list)
    pairs = zip(keys["good"], keys["reference"], strict=True)
    by_hand = np.mean([areas[a] - areas[b] for a, b in pairs], axis=0).std(ddof=1)
    assert (drawn.sd, drawn.estimate, drawn.n_splits) == (pytest.approx(by_hand), pytest.approx(5), 20)
    said = printed(print_readings, readings)
    assert "conditional on the fitted routers" in said
    assert "no second piece of evidence" in said
    assert re.search(r"AUC +1\.000 +0\.000 +0\.000", said)
    assert "stored no resamples" in printed(print_readings, read_pair(compared, own, {}))
    # Only splits of which both sides have resamples pair.
    few = read_pair(compared, own, {key: areas[key] for key in own.loc[own["seed"] < 3, "unit_key"]})
    assert [one.bootstrap.n_splits for one in few if one.bootstrap] == [3]
    assert few[0].as_dict()["scope"] == "benchmark"
