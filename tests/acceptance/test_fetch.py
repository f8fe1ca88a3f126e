"""`roadtest benchmarks fetch`: from a loopback server with upstream's paths to an imported benchmark."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity

from orchestrator.fetching import find_suite, suites
from tests.evaluation_logs import SKILLS, write_runs
from tests.upstream import Upstream, serve
from workers.benchmarks.load import LAYOUTS
from workers.benchmarks.logs import log_formats

HEADER = "sample_id,prompt,eval_name,m/a,m/b,m/a|model_response,m/b|model_response,m/a|total_cost,m/b|total_cost\n"
ROUTERDC = "shuhao02/RouterDC/0e63989c5bf4363330b8a4616386e3f7f116d9f8"


@pytest.fixture
def upstream(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    for variable in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("orchestrator.fetching.web.WAIT", tenacity.wait_none())
    with serve(Upstream()) as found:
        for variable in ("HF_ENDPOINT", "ROADTEST_GITHUB_ENDPOINT", "ROADTEST_GCS_ENDPOINT"):
            monkeypatch.setenv(variable, found.url)
        yield found


def routerbench(n: int = 40) -> dict[str, bytes]:
    rows = [f"t.{i},\"['sum {i}']\",t,{i % 2},{i % 3 // 2},x,y,0.001,0.002\n" for i in range(n)]
    half = n // 2
    return {
        "datasets/routerbench_zs/t_train.csv": (HEADER + "".join(rows[:half])).encode(),
        "datasets/routerbench_zs/t_test.csv": (HEADER + "".join(rows[half:])).encode(),
        "datasets/other/x.csv": b"not this",
    }


def serve_routerbench(upstream: Upstream) -> None:
    owner, name, commit = ROUTERDC.split("/")
    upstream.github(f"{owner}/{name}", commit, routerbench())


def test_fetch_and_import(cli: Any, folder: Path, upstream: Upstream) -> None:
    serve_routerbench(upstream)
    ended = cli("benchmarks", "fetch", "routerbench-csv", "--to", folder / "my suites")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[1].startswith("licence: ")
    assert "files downloaded: 2 (" in ended.out and "here already: 0" in ended.out
    command = lines[-1].strip()
    assert command.startswith(f"roadtest benchmarks import '{folder}/my suites/datasets/routerbench_zs' --name ")
    assert ended.err.count("routerbench-csv: 2/2 files, ") == 1

    imported = cli(*shlex.split(command)[1:])
    assert imported.code == 0, imported.err
    assert "routerbench-csv: 40 queries x 2 models" in imported.out
    again = cli("benchmarks", "fetch", "routerbench-csv", "--to", folder / "my suites", "--json")
    assert json.loads(again.out)["here"] == 2
    assert len(upstream.bodies()) == 2
    assert "licence: " in again.err


def test_details_of_three_models_become_a_benchmark(cli: Any, folder: Path, upstream: Upstream) -> None:
    write_runs(folder / "written")
    board = find_suite("open-llm-leaderboard")
    assert board.hub is not None
    for model in SKILLS:
        name = model.replace("/", "__")
        files = {f"{name}/{path.name}": path.read_bytes() for path in (folder / "written" / "runs" / name).iterdir()}
        upstream.hub(board.hub.repo.format(model=name), "c" * 40, {**files, "README.md": b"card"}, branch="main")
    models = [argument for model in SKILLS for argument in ("--model", model)]
    ended = cli("benchmarks", "fetch", "open-llm-leaderboard", *models)
    assert ended.code == 0, ended.err
    assert "files downloaded: 9 (" in ended.out
    prices = folder / "written" / "prices.csv"
    imported = cli(*shlex.split(ended.out.splitlines()[-1])[1:], "--prices", prices, "--embed", "question")
    assert imported.code == 0, imported.err
    assert "open-llm-leaderboard: 300 queries x 3 models" in imported.out


def test_every_suite_has_a_reader() -> None:
    readers = {*LAYOUTS, *log_formats()}
    assert sorted({suite.format for suite in suites().values()} - readers) == [], "formats that no reader knows"


def test_the_licence_comes_before_the_first_byte(cli: Any, upstream: Upstream) -> None:
    owner, name, commit = ROUTERDC.split("/")
    upstream.faults[f"/repos/{owner}/{name}/git/trees/{commit}"] = [404]
    ended = cli("benchmarks", "fetch", "routerbench-csv")
    assert ended.code == 4
    assert "licence: none stated" in ended.out
    assert ended.err.startswith("error: ") and "404 Not Found" in ended.err


def test_list(cli: Any, upstream: Upstream) -> None:
    serve_routerbench(upstream)
    assert cli("benchmarks", "fetch", "routerbench-csv").code == 0
    rows = {row["suite"]: row for row in json.loads(cli("benchmarks", "fetch", "--list", "--json").out)}
    assert list(rows) == list(suites())
    assert rows["routerbench-csv"]["here"] == "yes" and rows["embedllm"]["here"] == "no"
    assert rows["embedllm"]["licence"] == "Apache-2.0"
    assert "alpaca-eval" in cli("benchmarks", "fetch", "--list").out


def test_usage(cli: Any, folder: Path, upstream: Upstream) -> None:
    assert cli("benchmarks", "fetch").code == 2
    unknown = cli("benchmarks", "fetch", "routerbensh")
    assert unknown.code == 2 and "did you mean 'routerbench'" in unknown.err
    assert cli("benchmarks", "fetch", "open-llm-leaderboard").code == 2
    assert cli("benchmarks", "fetch", "routerdc", "--model", "a/b").code == 2
    assert not upstream.asked


def test_offline(cli: Any, folder: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = cli("benchmarks", "fetch", "routerbench")
    assert ended.code == 4
    assert ended.err.count("\n") == 1
    for part in ("HF_HUB_OFFLINE", "By hand: put routerbench_0shot.pkl of https://huggingface.co/datasets/withmartian"):
        assert part in ended.err
    monkeypatch.setenv("ROADTEST_GITHUB_ENDPOINT", "http://127.0.0.1:1")
    ended = cli("benchmarks", "fetch", "routerdc")
    assert ended.code == 4
    assert "http://127.0.0.1:1/repos/shuhao02/RouterDC/git/trees/" in ended.err and "connection refused" in ended.err


def test_ctrl_c_keeps_the_part(cli: Any, folder: Path, upstream: Upstream) -> None:
    """A server that says nothing more; the command ends at once all the same, and the next one goes on."""
    files = routerbench(8000)
    owner, name, commit = ROUTERDC.split("/")
    upstream.github(f"{owner}/{name}", commit, files)
    slow = f"/{ROUTERDC}/datasets/routerbench_zs/t_test.csv"
    upstream.faults[slow] = [("hang", 150_000)]
    arguments = [sys.executable, "-c", "from orchestrator.cli import main; main()", "benchmarks", "fetch"]
    running = subprocess.Popen(
        [*arguments, "routerbench-csv", "--to", "here"], cwd=folder, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    part = folder / "here" / "datasets" / "routerbench_zs" / "t_test.csv.part"
    for _ in range(300):
        if (part.exists() and part.stat().st_size) or running.poll() is not None:
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=20)  # well before the server lets go, after 30 s
    assert running.returncode == 3, told
    assert b"interrupted; nothing is lost" in told
    assert json.loads((folder / "here" / "fetch.json").read_text())["complete"] is False
    size = part.stat().st_size
    assert size > 0
    ended = cli("benchmarks", "fetch", "routerbench-csv", "--to", "here")
    assert ended.code == 0, ended.err
    assert upstream.bodies()[-1].headers["Range"] == f"bytes={size}-"
    assert part.with_suffix("").read_bytes() == files["datasets/routerbench_zs/t_test.csv"]
