"""docs/evaluation-logs.md: three models' runs become a benchmark, a leaderboard and a report in three commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.evaluation_logs import SKILLS, STAMP, write_runs

PAGE = Path(__file__).parents[2] / "docs" / "evaluation-logs.md"


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of the page, in the working directory."""
    monkeypatch.delenv("ROADTEST_SHARED", raising=False)
    write_runs(folder)
    return folder


def shown_in_page(command: str) -> str:
    """What the page shows below a command."""
    [block] = [block for block in re.findall(r"```\n\$ (.*?)```", PAGE.read_text(), re.S) if block.startswith(command)]
    return str(block.partition("\n")[2])


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "logs", ["runs --name mine --prices prices.csv --embed question", "logs --name ours --prices prices.csv"]
)
def test_the_import_of_the_page(cli: Any, runs: Path, logs: str) -> None:
    ended = cli("benchmarks", "import", *logs.split())
    assert ended.code == 0, ended.err
    out = ended.out.replace(str(runs), "/home/you")
    assert squeezed(out) == squeezed(shown_in_page(f"roadtest benchmarks import {logs}"))


def test_three_commands_give_a_leaderboard_and_a_report(cli: Any, runs: Path) -> None:
    arguments = ("--prices", "prices.csv", "--embed", "question")
    assert cli("benchmarks", "import", "runs", "--name", "mine", *arguments).code == 0
    assert cli("init", "--benchmark", "mine").code == 0
    sweep = yaml.safe_load((runs / "sweep.yaml").read_text())
    assert sweep["benchmarks"] == ["mine"]
    (runs / "sweep.yaml").write_text(yaml.safe_dump({**sweep, "seeds": 2, "protocol": {"tuning_budget": 2}}))
    ended = cli("run", "sweep.yaml", "--executor", "local", "--workers", 2)
    assert ended.code == 0, ended.err
    # The page has ten splits; with two, the same routers come in some order.
    routers = [{line[4:28].strip() for line in board.splitlines() if " ± " in line and line[1] in "–123456789"}
               for board in (shown_in_page("roadtest run"), ended.out)]  # fmt: skip
    assert routers[0] == routers[1]
    assert len(routers[0]) == 9
    assert "Report: " in ended.out
    page = (runs / "roadtest-report" / "my-sweep.html").read_text()
    assert all(model in page for model in SKILLS)


def test_a_sweep_reads_logs_itself(cli: Any, runs: Path, write_sweep: Any) -> None:
    entry = {"name": "mine", "path": "runs", "format": "lm-eval", "prices": "prices.csv", "embed": "question"}
    path = write_sweep(benchmarks=[{**entry, "tasks": "each"}], routers=["zero-router"])
    planned = cli("plan", path, "--explain", "--json").out
    assert "mine/kinds" in planned and "mine/sums" in planned
    schema = json.loads(cli("schema").out)
    properties = schema["$defs"]["BenchmarkEntry"]["properties"]
    assert all(properties[key]["description"] for key in ("format", "variant", "prices", "scale", "pool", "score"))
    Draft202012Validator(schema).validate(yaml.safe_load(path.read_text()))


def test_formats_and_pools_are_listed(cli: Any, folder: Path) -> None:
    formats = {row["format"]: row for row in json.loads(cli("benchmarks", "formats", "--json").out)}
    assert {"tables", "routerbench-csv", "lm-eval", "inspect"} <= set(formats)
    assert all(row["verified on"] for row in formats.values())
    pools = {row["pool"]: row["models"] for row in json.loads(cli("benchmarks", "pools", "--json").out)}
    assert pools["alpacaeval/openai"] == 9


def test_describe_tells_what_was_joined(cli: Any, runs: Path) -> None:
    arguments = ("logs", "--prices", "prices.csv")
    told = json.loads(cli("benchmarks", "describe", *arguments, "--json").out)
    assert told["join"]["answered_by_all"] == told["n_queries"] == 160
    assert "score of sums: match" in cli("benchmarks", "describe", *arguments).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs", "--prices", "none.csv"], "benchmark prices 'none.csv' is neither"),
        (["runs"], "no price for acme/large-70b, acme/medium-8b, acme/small-1b"),
        (["runs", "--prices", "prices.csv", "--format", "lmeval"], "did you mean 'lm-eval'?"),
        (["runs", "--prices", "prices.csv", "--variant", "strict", "--score", "f1"], "no metric 'f1'"),
        (["runs", "--prices", "prices.csv", "--scale", "0"], "scale 0"),
        (["runs", "--prices", "prices.csv", "--pool", "alpacaeval/openia"], "did you mean 'alpacaeval/openai'?"),
        (["runs", "--prices", "prices.csv", "--embed", "doc.questio"], "did you mean 'doc.question'?"),
        (["logs", "--prices", "prices.csv", "--score", "exact"], "no scorer 'exact'; give one of match"),
    ],
)
def test_what_cannot_be_read_is_one_paragraph(cli: Any, runs: Path, arguments: list[str], words: str) -> None:
    ended = cli("benchmarks", "import", *arguments, "--name", "x")
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err and ended.err.count("\n") == 1
    assert not (runs / ".roadtest" / "benchmarks" / "x").exists()


def test_names_that_would_move_the_cursor_are_escaped(cli: Any, runs: Path) -> None:
    for path in runs.glob(f"runs/*/results_{STAMP}.json"):
        path.write_text(path.read_text().replace('"model_name": "acme/', '"model_name": "\\u001b[2J<b>/'))
    out = cli("benchmarks", "import", "runs", "--name", "x", "--prices", "prices.csv").out
    assert "\x1b" not in out
    assert "\\x1b[2J<b>/large-70b" in out
    refused = cli("benchmarks", "import", "runs", "--name", "y").err
    assert "no price for" in refused and "\x1b" not in refused
