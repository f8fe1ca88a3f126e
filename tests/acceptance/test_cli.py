"""The commands, as people and programs use them."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from orchestrator.store import claims, open_store
from tests.runs import command

KNN = {"name": "knn@5", "use": "knn", "k": 5}


@pytest.fixture
def ran(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> Path:
    """The small sweep, run; returns its file."""
    path = write_sweep()
    ended = cli("run", path, "--executor", "local", "--workers", 2, "--no-report")
    assert ended.code == 0, ended.err
    return path


def rows(cli: Any, *arguments: object) -> Any:
    """What a command prints with --json."""
    ended = cli(*arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def explained(cli: Any, sweep: Path) -> Counter[tuple[str, str]]:
    """(router or kind, state) of every unit, as `plan --explain` says."""
    return Counter((row["router"] or row["kind"], row["state"]) for row in rows(cli, "plan", sweep, "--explain"))


def test_run_ends_with_leaderboard_verdict_and_the_reports_path(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path]
) -> None:
    ended = cli("run", write_sweep(), "--executor", "local", "--out", "shown")
    assert ended.code == 0
    page = tiny.parent / "shown" / "small.html"
    assert ended.out.rstrip().endswith(f"Report: {page}")
    for word in ("oracle", "zero-router", "knn@5", "verdict"):
        assert word in ended.out
    HTMLParser().feed(page.read_text(encoding="utf-8"))
    assert re.search(r"(src|href)=[\"']https?:", page.read_text(encoding="utf-8")) is None
    assert "evaluate: 6/6" in ended.err
    [log] = (tiny.parent / ".roadtest" / "logs").iterdir()
    assert log.name.startswith("small-")


def test_run_again_computes_nothing(cli: Any, ran: Path) -> None:
    before = rows(cli, "sql", "SELECT count(*) AS n, max(id) AS last FROM attempt")
    ended = cli("run", ran, "--executor", "local", "--no-report")
    assert ended.code == 0
    assert rows(cli, "sql", "SELECT count(*) AS n, max(id) AS last FROM attempt") == before == [{"n": 7, "last": 7}]


def test_an_overlapping_sweep_computes_only_what_is_new(cli: Any, ran: Path, write_sweep: Callable[..., Path]) -> None:
    other = write_sweep("other.yaml", name="other", routers=["zero-router", {**KNN, "name": "near"}], seeds=3)
    assert explained(cli, other) == {
        ("embed", "done"): 1, ("zero-router", "done"): 2, ("zero-router", "new"): 1,
        ("near", "done"): 2, ("near", "new"): 1,
    }  # fmt: skip
    assert cli("run", other, "--executor", "local", "--no-report").code == 0
    assert rows(cli, "sql", "SELECT count(*) AS n FROM attempt") == [{"n": 7 + 2}]
    shown = rows(cli, "sql", "SELECT sweep, router, count(*) AS n FROM results GROUP BY sweep, router ORDER BY 1, 2")
    assert [(row["sweep"], row["router"], row["n"]) for row in shown] == [
        ("other", "near", 3), ("other", "zero-router", 3),
        ("small", "knn@5", 2), ("small", "oracle", 2), ("small", "zero-router", 2),
    ]  # fmt: skip


def test_plan_writes_nothing_and_explains_what_is_new(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> None:
    sweep = write_sweep(train_sizes=[0.05, 1.0])
    assert explained(cli, sweep) == {
        ("embed", "new"): 1, ("oracle", "new"): 4, ("zero-router", "new"): 4, ("knn@5", "new"): 2,
        ("knn@5", "skipped"): 2,
    }  # fmt: skip
    [why] = {row["why"] for row in rows(cli, "plan", sweep, "--explain") if row["state"] == "skipped"}
    assert "5" in why
    numbers = rows(cli, "plan", sweep)
    assert {(row["kind"], row["state"]): row["units"] for row in numbers} == {
        ("embed", "new"): 1, ("evaluate", "new"): 10, ("evaluate", "skipped"): 2,
    }  # fmt: skip
    assert "13 units" in cli("plan", sweep).out
    assert {path.name for path in tiny.parent.iterdir()} == {"tiny", "sweep.yaml"}


def test_plan_of_an_empty_postgresql_database(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path], postgres_url: str
) -> None:
    ended = cli("plan", write_sweep(), "--db", postgres_url, "--json")
    assert ended.code == 0, ended.err
    assert {row["state"] for row in json.loads(ended.out)} == {"new"}


def test_plan_explains_every_state(cli: Any, ran: Path) -> None:
    assert explained(cli, ran) == {
        ("embed", "done"): 1, ("oracle", "done"): 2, ("zero-router", "done"): 2, ("knn@5", "done"): 2,
    }  # fmt: skip
    assert cli("invalidate", "--router", "oracle", "--reason", "wrong prices").code == 0
    found = {row["why"] for row in rows(cli, "plan", ran, "--explain") if row["router"] == "oracle"}
    assert found == {"wrong prices"}
    store = open_store()
    with store.begin() as session:
        sweep_id = session.one("SELECT id FROM sweep")
        claims.register(session, "me", sweep_id, "elsewhere")
        assert len(claims.claim(session, sweep_id, "me", limit=2, lease=600.0)) == 2
        session.run("UPDATE unit SET lease_expires = 1 WHERE state = 'running' AND seed = 1")
        for router, state in (("zero-router", "failed"), ("knn", "quarantined")):
            session.run("UPDATE unit SET state = :s, reason = NULL WHERE router = :r AND seed = 0", s=state, r=router)
        session.run("UPDATE unit SET state = 'ready' WHERE router = 'zero-router' AND seed = 1")
    store.close()
    assert explained(cli, ran) == {
        ("embed", "done"): 1, ("oracle", "running"): 1, ("oracle", "stale lease"): 1,
        ("zero-router", "failed"): 1, ("zero-router", "ready"): 1, ("knn@5", "quarantined"): 1, ("knn@5", "done"): 1,
    }  # fmt: skip
    table = cli("plan", ran, "--explain").out
    for word in ("stale lease", "its coordinator stopped beating", "roadtest retry", "killed its workers"):
        assert word in table


def test_invalidated_units_are_computed_again(cli: Any, ran: Path) -> None:
    before = rows(cli, "sql", "SELECT unit_key, auc, auc_path FROM results ORDER BY unit_key")
    key = rows(cli, "sql", "SELECT unit_key FROM results WHERE router = 'knn@5' AND seed = 0")[0]["unit_key"]
    assert "1 units invalidated" in cli("invalidate", key[:30], "--reason", "check").out
    assert explained(cli, ran)["knn@5", "invalidated"] == 1
    assert cli("run", ran, "--executor", "local", "--no-report").code == 0
    assert rows(cli, "sql", "SELECT unit_key, auc, auc_path FROM results ORDER BY unit_key") == before
    assert rows(cli, "sql", "SELECT kind FROM event") == [{"kind": "invalidated"}]


def test_failed_units_are_exit_code_1_and_can_be_retried(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.routers.knn import KNN as Router

    def fail(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("planted")

    sweep = write_sweep()
    with monkeypatch.context() as broken:
        broken.setattr(Router, "predict_many", fail)
        ended = cli("run", sweep, "--executor", "local", "--no-report")
    assert ended.code == 1
    assert "2 units failed" in ended.err
    assert "Traceback" not in ended.err
    status = rows(cli, "status")
    assert {(row["kind"], row["state"]): row["n"] for row in status["counts"]} == {
        ("embed", "done"): 1, ("evaluate", "done"): 4, ("evaluate", "failed"): 2,
    }  # fmt: skip
    found = {(row["error_kind"], row["message"], row["attempts"]) for row in status["failures"]}
    assert found == {("exception", "planted", 3)}
    assert "planted" in cli("status").out
    assert cli("run", sweep, "--executor", "local", "--no-report").code == 1
    assert "2 units are ready again" in cli("retry").out
    assert cli("run", sweep, "--executor", "local", "--no-report").code == 0
    assert rows(cli, "status")["failures"] == []


def test_nothing_but_failures_is_exit_code_1_too(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("workers.routers.knn.KNN.predict_many", fail)
    ended = cli("run", write_sweep(routers=[{"name": "knn@5", "use": "knn", "k": 5}]), "--executor", "local")
    assert ended.code == 1
    assert "2 units failed" in ended.err
    assert "of 2 evaluations none is done, 2 failed" in " ".join(ended.out.split())


def test_watching_ends_when_the_lease_of_a_dead_coordinator_does(cli: Any, ran: Path) -> None:
    with closing(sqlite3.connect("roadtest.db")) as database, database:
        database.execute("UPDATE unit SET state = 'running', lease_expires = 0 WHERE kind = 'embed'")
    ended = cli("status", "--watch")
    assert ended.code == 0
    assert "its lease ran out" in ended.out


def test_a_sweep_of_another_specification_under_one_name_is_warned_of(
    cli: Any, ran: Path, write_sweep: Callable[..., Path]
) -> None:
    ended = cli("run", write_sweep("other.yaml", seeds=1), "--executor", "local", "--no-report")
    assert ended.code == 0
    assert "'small' has another specification than before" in ended.err


def test_artefacts_live_where_the_environment_says(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADTEST_ARTIFACTS", (tiny.parent / "elsewhere").as_uri())
    assert cli("run", write_sweep(), "--executor", "local", "--no-report").code == 0
    assert list((tiny.parent / "elsewhere").rglob("*.npy"))
    assert not (tiny.parent / ".roadtest" / "artifacts").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["sql", "SELECT * FROM leaderboard"],
        ["sql", "SELECT * FROM results"],
        ["compare", "knn@5", "zero-router"],
        ["benchmarks", "list"],
        ["benchmarks", "describe", "tiny"],
        ["encoders", "list"],
        ["routers", "list"],
        ["plan", "sweep.yaml"],
        ["plan", "sweep.yaml", "--explain"],
    ],
    ids=" ".join,
)
def test_listing_verbs_print_tables_and_valid_json(cli: Any, ran: Path, arguments: list[str]) -> None:
    found = rows(cli, *arguments)
    assert found
    assert "NaN" not in json.dumps(found)
    table = cli(*arguments)
    assert table.code == 0
    assert table.out.strip()


def test_what_lists_say(cli: Any, ran: Path) -> None:
    names = {row["name"]: row for row in rows(cli, "routers", "list")}
    assert {"knn", "linear", "mlp", "oracle", "random", "zero-router", "task-zero"} <= set(names)
    assert names["oracle"]["flags"] == "privileged"
    assert "k" in names["knn"]["tunables"].split(", ")
    assert {"hash-ngrams", "minilm", "st"} <= {row["name"] for row in rows(cli, "encoders", "list")}
    assert {"toolbox", "digits", "synthetic"} <= {row["name"] for row in rows(cli, "benchmarks", "list")}


def test_sql_prints_csv(cli: Any, ran: Path) -> None:
    ended = cli("sql", "SELECT kind, n FROM progress ORDER BY kind", "--csv")
    assert ended.out.splitlines() == ["kind,n", "embed,1", "evaluate,6"]


@pytest.mark.parametrize("query", ["DELETE FROM unit", "PRAGMA user_version", "ATTACH 'x' AS x", "SELECT 1; SELECT 2"])
def test_sql_refuses_to_do_more_than_read(cli: Any, ran: Path, query: str) -> None:
    ended = cli("sql", query)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_export_is_read_back(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("workers.routers.knn.KNN.predict_many", fail)
    assert cli("run", write_sweep(), "--executor", "local", "--no-report").code == 1
    assert cli("export", "--format", format, "--out", "out").code == 0
    read = pd.read_parquet if format == "parquet" else pd.read_csv
    frames = {path.stem: read(path) for path in sorted(Path("out").iterdir())}
    assert set(frames) == {"results", "leaderboard", "decisions", "frontier", "findings", "progress", "failures"}
    for view, frame in frames.items():
        [n] = rows(cli, "sql", f"SELECT count(*) AS n FROM {view}")
        assert len(frame) == n["n"]
        assert len(frame) > 0 or view == "findings"  # which a sweep without a study has none of
    progress = frames["progress"].set_index(["kind", "state"])["n"].to_dict()
    assert progress == {("embed", "done"): 1, ("evaluate", "done"): 4, ("evaluate", "failed"): 2}
    assert frames["failures"][["router", "message"]].to_numpy().tolist() == [["knn@5", "planted"]] * 2
    frame = frames["results"].set_index("unit_key")["auc"]
    stored = pd.DataFrame(rows(cli, "sql", "SELECT unit_key, auc FROM results")).set_index("unit_key")["auc"]
    pd.testing.assert_series_equal(frame.sort_index(), stored.sort_index())


def test_an_import_goes_round(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> None:
    ended = cli(
        "benchmarks", "import", "tiny", "--name", "mine", "--task", "count", "--family", "north", "--embed", "question"
    )
    assert ended.out.startswith("mine: 30 queries x 2 models, imported to ")
    assert "mine" in {row["name"] for row in rows(cli, "benchmarks", "list")}
    described = rows(cli, "benchmarks", "describe", "mine")
    assert (described["n_queries"], described["n_models"]) == (30, 2)
    by_import = write_sweep("mine.yaml", benchmarks=["mine"])
    by_filter = write_sweep(
        "filter.yaml",
        benchmarks=[{"name": "t", "path": "tiny", "tasks": ["count"], "family": "north", "embed": "question"}],
    )
    keys = [
        [row["unit"] for row in rows(cli, "plan", path, "--explain") if row["router"] == "zero-router"]
        for path in (by_import, by_filter)
    ]
    assert keys[0] == keys[1]


def test_init_writes_a_sweep_that_plan_accepts(cli: Any, folder: Path) -> None:
    assert cli("init").code == 0
    assert sum(row["units"] for row in rows(cli, "plan", "sweep.yaml")) > 50
    again = cli("init")
    assert again.code == 2
    assert "--force" in again.err
    assert cli("init", "--force").code == 0


def test_schema_is_a_json_schema(cli: Any, folder: Path) -> None:
    found = json.loads(cli("schema").out)
    Draft202012Validator.check_schema(found)
    assert set(found["required"]) == {"name", "benchmarks", "routers"}


def test_doctor(cli: Any, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = {row["check"]: row for row in rows(cli, "doctor")}
    assert findings["database"]["detail"].endswith("7 units")
    assert set(findings) >= {"python", "ray", "torch", "sqlalchemy", "database", "home", "free disk"}
    monkeypatch.setenv("ROADTEST_HOME", str(ran / "below-a-file"))
    ended = cli("doctor")
    assert ended.code == 1
    assert "ROADTEST_HOME" in ended.out


def test_db_check_and_upgrade(cli: Any, ran: Path) -> None:
    assert "already" in cli("db", "upgrade").out
    assert "sound" in cli("db", "check").out
    store = open_store()
    with store.begin() as session:
        session.run("UPDATE unit SET state = 'ready' WHERE router = 'knn' AND seed = 0")
    store.close()
    ended = cli("db", "check")
    assert ended.code == 2
    assert "1 unfinished units with metrics" in ended.err


def test_logs_as_json_lines(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> None:
    ended = cli(
        "--log-level", "info", "--log-format", "json", "run", write_sweep(), "--executor", "local", "--no-report"
    )
    assert ended.code == 0
    shown = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    assert any("coordinator" in line["message"] for line in shown)
    [log] = (tiny.parent / ".roadtest" / "logs").iterdir()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["sweep"] for line in lines} == {"small"}
    assert {"at", "level", "logger", "message"} <= set(lines[0])


def imported_by(*arguments: str | Path, folder: Path) -> set[str]:
    """Top-level modules that a command has imported when it ends."""
    code = (
        "import sys; sys.argv[0] = 'roadtest'\n"
        "from orchestrator.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print('MODULES', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, timeout=120, check=True,
    )  # fmt: skip
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["report"], ["status"], ["compare", "knn@5", "zero-router"]]
)
def test_reading_imports_neither_ray_nor_torch(cli: Any, ran: Path, arguments: list[str]) -> None:
    found = imported_by(*arguments, folder=ran.parent)
    assert "typer" in found
    assert found.isdisjoint({"ray", "torch", "sentence_transformers", "sklearn", "transformers"})
    if "--help" in arguments:
        assert found.isdisjoint({"pandas", "numpy", "sqlalchemy", "matplotlib"})


def test_the_installed_command_says_what_it_can(folder: Path) -> None:
    done = subprocess.run(
        command("--help"), capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"}
    )
    for verb in (
        "init",
        "run",
        "plan",
        "status",
        "report",
        "compare",
        "sql",
        "export",
        "retry",
        "invalidate",
        "doctor",
    ):
        assert re.search(rf"^\W*{verb}\b", done.stdout, flags=re.MULTILINE), verb
