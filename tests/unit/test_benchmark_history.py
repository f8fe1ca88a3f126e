"""What counts as slower than before? Made-up histories, nothing is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import history, run
from tests.benchmarks.measuring import Measurement, figure

HERE = {"cpu": "EPYC", "cores": 2}
ELSEWHERE = {"cpu": "M4", "cores": 10}


def made(
    ratio: float, machine: dict[str, Any] = HERE, name: str = "knn", wanted: float | None = None
) -> dict[str, Any]:
    return {"machine": machine, "figures": [{"name": name, "ratio": ratio, "wanted": wanted}], "failed": []}


@pytest.mark.parametrize(("ratio", "slower"), [(14.1, False), (13.9, True), (20.0, False), (90.0, False)])
def test_a_figure_is_slower_once_it_lost_more_than_is_tolerated(ratio: float, slower: bool) -> None:
    [change] = history.changes(made(ratio), [made(20), made(21), made(19)])
    assert (change.before, change.slower) == (20, slower)


def test_only_the_last_runs_count() -> None:
    [change] = history.changes(made(10), [made(100)] * 3 + [made(10)] * history.RECENT)
    assert change.before == 10


def test_runs_of_another_machine_count_only_where_none_of_this_one_are() -> None:
    [alike] = history.changes(made(10), [made(50, ELSEWHERE), made(11), made(60, ELSEWHERE)])
    [other] = history.changes(made(10), [made(50, ELSEWHERE), made(60, ELSEWHERE)])
    assert (alike.before, alike.slower, other.before, other.slower) == (11, False, 55, True)


def test_a_new_figure_is_not_slower() -> None:
    [change] = history.changes(made(10, wanted=20), [made(50, name="other")])
    assert not change.slower
    assert str(change) == "knn: 10 x, no history, aimed at 20 x"


def test_what_slowed_down_is_said_with_by_how_much() -> None:
    [change] = history.changes(made(10), [made(40)])
    assert str(change) == "knn: 10 x, before 40 x (-75%), SLOWER"


def test_a_figure_takes_the_median_of_the_rounds_ratios() -> None:
    ours = [Measurement(value=value, peak=peak) for value, peak in ((1, 10), (2, 30), (4, 20))]
    paired = [Measurement(value=value, peak=5) for value in (10, 60, 40)]  # ratios 10, 30, 10
    found = figure("f", ours=("a", ours), against=("b", paired))
    assert (found.ratio, found.lowest, found.highest, found.ours_peak) == (10, 10, 30, 30)
    once = figure("f", ours=("a", ours), against=("b", paired[:1]))  # ratios 10, 5, 2.5
    assert (once.ratio, once.lowest, once.highest, once.runs) == (5, 2.5, 10, (3, 1))


@pytest.mark.parametrize(
    ("ratio", "arguments", "code"), [(30, [], 0), (10, [], 0), (30, ["--check"], 0), (10, ["--check"], 1)]
)
def test_the_exit_code_says_whether_something_slowed_down(
    ratio: float,
    arguments: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    past = tmp_path / "history.jsonl"
    history.append(made(40), past)
    monkeypatch.setattr(history, "HISTORY", past)
    monkeypatch.setattr(run, "measure", lambda names: made(ratio))
    assert run.main([*arguments, "--json", str(tmp_path / "out.json")]) == code
    assert ("SLOWER" in capsys.readouterr().out) == bool(code)
    assert json.loads((tmp_path / "out.json").read_text()) == made(ratio)
    assert history.load(past) == [made(40)]
    run.main(["--record", "--json", str(tmp_path / "out.json")])
    assert history.load(past) == [made(40), made(ratio)]


def test_a_benchmark_that_failed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure", lambda names: {**made(1), "failed": ["knn"]})
    assert run.main(["--json", str(tmp_path / "out.json")]) == 1
