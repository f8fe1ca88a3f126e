"""Reports of sweeps that are empty, half-finished, of one split, or measure without evaluating: what they say."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from orchestrator.analysis.limits import limits
from orchestrator.cli.read import show_report
from orchestrator.enlist import enlist
from orchestrator.reports.content import assemble
from orchestrator.reports.evidence import Frames
from orchestrator.reports.html import render
from orchestrator.reports.papers import latex, markdown, tables
from orchestrator.reports.terminal import print_report
from orchestrator.store import Store, claims, open_store, reading, registry
from orchestrator.store.results import Finished, record
from tests.tiny import tiny_plan
from workers.evaluate import run_evaluate

FORMATS = ("html", "md", "latex", "csv")


class Bench:
    """A store with a sweep of five routers without an encoder on two splits, worked off as far as asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store = open_store(f"sqlite:///{folder}/roadtest.db")
        self.plan = tiny_plan("tiny", 10)
        self.sweep_id = enlist(self.store, self.plan)

    def work(self, *names: str, seeds: tuple[int, ...] = (0, 1), recalls: tuple[float, ...] = ()) -> None:
        """Compute and record these routers' results on these splits, with recalls of neighbours by split if given."""
        with self.store.begin() as session:
            claims.register(session, "c", self.sweep_id, "host")
            environment = registry.put_environment(session, {})
            rows = claims.claim(session, self.sweep_id, "c", limit=100, lease=60)
            finished = []
            for row in rows:
                planned = self.plan.units[row["position"]]
                if planned.router in names and planned.spec["split"] in seeds:
                    [result] = run_evaluate([planned.unit], self.plan.benchmarks[0].benchmark)  # type: ignore[list-item]
                    if recalls:
                        recall = {"neighbour_recall": recalls[planned.spec["split"]]}
                        result = replace(result, metrics={**result.metrics, **recall})  # type: ignore[type-var]
                    finished.append(Finished(unit_id=row["id"], epoch=row["epoch"], result=result))
            record(session, "c", finished, environment_id=environment)
            claims.release(session, "c")

    def reports(self, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
        """What every format says, with what the terminal shows of it, white space made single."""
        said = {}
        for form in FORMATS:
            out = self.folder / form
            show_report(self.store, "tiny", out, form)  # type: ignore[arg-type]
            written = "\n".join(path.read_text() for path in sorted(out.iterdir()))
            said[form] = _plain(written)
        said["terminal"] = _plain(capsys.readouterr().out)
        return said


def _plain(text: str) -> str:
    text = re.sub(r"[\\*]|^[%-] ", "", text, flags=re.MULTILINE)  # marks of LaTeX and Markdown
    return " ".join(re.sub(r"&#39;|&quot;", "'", text).split())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "400")
    made = Bench(tmp_path)
    yield made
    made.store.close()


def test_an_empty_sweep_says_so_in_every_format(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    words = "Nothing can be concluded yet: of 10 evaluations none is done, 10 still to come"
    for form, text in bench.reports(capsys).items():
        assert words in text, form
        assert "nan" not in text.casefold().split(), form
    # On the first screen: before every heading of the page.
    page = (bench.folder / "html" / "tiny.html").read_text()
    assert page.index(words) < page.index("<h2")
    assert pd.read_csv(bench.folder / "csv" / "tiny-leaderboard.csv").empty


def test_a_half_finished_sweep_names_what_is_missing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.work("best-single", "random", "oracle")
    for form, text in bench.reports(capsys).items():
        assert "Unfinished: 6 of 10 evaluations are done, 4 still to come" in text, form
        assert "Nothing can be said about zero-router and task-zero: they have no result." in text, form
        # The reference, zero-router, is one of them.
        assert "Nothing was compared: zero-router has no result." in text, form
        assert "With 2 splits there are means and a first idea of their spread" in text, form
        assert "best-single" in text, form


def test_what_an_index_missed_is_said_in_every_format(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.work("best-single", recalls=(0.9, 0.96))
    bench.work("random", "zero-router")
    wanted = "best-single finds neighbours by an approximate index: recall 0.930 on average, 0.900 at worst (2 results)"
    for form, text in bench.reports(capsys).items():
        assert wanted in text, form
        assert "random finds" not in text, form


def test_one_split_says_that_differences_may_be_chance(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.work("best-single", "random", "oracle", "zero-router", "task-zero", seeds=(0,))
    for form, text in bench.reports(capsys).items():
        assert "With one split the numbers tell how the routers did on one test side" in text, form
        assert "Unfinished: 5 of 10" in text, form
        assert "no verdict" in text, form


def test_hulls_and_shares_are_those_of_the_views(bench: Bench) -> None:
    bench.work("best-single", "random", "oracle", "zero-router")
    with bench.store.read() as session:
        frontier, hulls = reading.frontier_frame(session, "tiny"), reading.hulls_frame(session, "tiny")
        shares = reading.shares_frame(session, "tiny")
        facts = reading.sweep_facts(session, "tiny", "shown")
        metrics = session.rows(
            """SELECT su.router, m.name, m.value FROM metric m JOIN sweep_unit su ON su.unit_id = m.unit_id
               WHERE m.name LIKE 'share:balanced:%'"""
        )
    wanted = frontier[frontier["on_hull"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(hulls, wanted[list(hulls)])
    assert facts["states"] == {"done": 8, "ready": 2}
    for row in shares.to_dict("records"):
        own = [m["value"] for m in metrics if m["router"] == row["router"] and m["name"].endswith(f":{row['model']}")]
        assert row["share"] == pytest.approx(sum(own) / 2)
    assert shares.groupby("router")["share"].sum().to_dict() == pytest.approx(
        dict.fromkeys(["best-single", "random", "oracle", "zero-router"], 1.0)
    )


def frame(**counts: int) -> pd.DataFrame:
    """Rows of one router on so many splits of each benchmark."""
    rows = [{"benchmark": name, "router": "knn", "seed": seed} for name, n in counts.items() for seed in range(n)]
    return pd.DataFrame(rows, columns=["benchmark", "router", "seed"])


SPEC = {"routers": [{"name": "knn"}, "mlp"]}


@pytest.mark.parametrize(
    ("results", "spec", "states", "words"),
    [
        (frame(), SPEC, {"ready": 3, "running": 1, "failed": 1, "skipped": 2},
         ["of 5 evaluations none is done, 4 still to come (`roadtest run` goes on), 1 failed"]),
        (frame(), SPEC, {"skipped": 1}, ["1 evaluation wanted, all skipped"]),
        (frame(), {"study": {"kind": "scaling"}}, {}, ["evaluates no router (`study: scaling`"]),
        (frame(), SPEC, {}, ["has no finished result yet"]),
        (frame(a=10), {"routers": ["knn"]}, {"done": 10}, []),
        (frame(a=10), {"routers": ["knn"]}, {"done": 10, "skipped": 5}, []),
        (frame(a=10), SPEC, {"done": 10}, ["Nothing can be said about mlp: it has no result."]),
        (frame(a=10, b=7), {"routers": ["knn"]}, {}, ["On b, with 7 splits there are means, spreads and intervals"]),
        (frame(a=1, b=1), {"routers": ["knn"]}, {"done": 2}, ["With one split the numbers"]),
        (frame(a=10), {"routers": ["knn"]}, {"done": 9, "quarantined": 1}, ["9 of 10 evaluations are done, 1 failed"]),
    ],
)  # fmt: skip
def test_limits(results: pd.DataFrame, spec: Any, states: Any, words: list[str]) -> None:
    found = limits(results, reference="knn", spec=spec, states=states)
    assert len(found) == len(words)
    for sentence, part in zip(found, words, strict=True):
        assert part in sentence


def test_what_a_study_measures_is_shown_without_any_evaluation() -> None:
    sweep = {"name": "s", "spec": {"study": {"kind": "scaling"}}, "reference": "knn", "margin": 1.0}
    measured = {"measure": "scaling", "benchmark": "b", "encoder": "e", "router": "knn", "label": "", "low": None}
    rows = [{**measured, "quantity": "fit_seconds", "x": x, "value": x / 10, "high": None} for x in (10.0, 100.0)]
    nothing = pd.DataFrame(columns=["benchmark", "router", "seed", "train_size", "formulation", "encoder", "twin_of"])
    models = pd.DataFrame(columns=["benchmark", "model", "family", "mean_cost", "mean_score"])
    frames = Frames(results=nothing, frontier=pd.DataFrame(), models=models, findings=pd.DataFrame(rows))
    page = render({**sweep, "created_at": "2026-11-28", "url_shown": "x"}, frames)
    assert "evaluates no router" in page
    assert "What does fitting cost?" in page
    out = io.StringIO()
    print_report(Console(file=out, width=300), sweep, nothing)
    content = assemble(sweep, nothing)
    for text in (out.getvalue(), markdown(content), latex(content), tables(content)["summary"]["text"][0]):
        assert "evaluates no router" in text
