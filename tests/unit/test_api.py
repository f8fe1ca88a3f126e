from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import roadtest
from orchestrator.errors import AnalysisError, DatabaseError, NotFoundError, QueryError, SweepError


def test_every_public_name_is_there() -> None:
    assert dir(roadtest) == sorted(roadtest.__all__)
    for name in roadtest.__all__:
        assert getattr(roadtest, name).__name__ in (name, "Source"), name
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        roadtest.runn  # noqa: B018


def test_importing_the_face_is_cheap() -> None:
    code = "import roadtest, sys; print(len({'numpy', 'pandas', 'ray', 'torch', 'sqlalchemy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(
    ("modules", "slow"),
    [
        ("orchestrator.store, orchestrator.run, orchestrator.reports.html", {"alembic", "scipy.stats", "torch"}),
        ("orchestrator.executors.ray", {"orchestrator.sweep", "sqlalchemy", "torch"}),  # in every worker
    ],
)
def test_what_a_run_waits_for_leaves_out_what_is_slow(modules: str, slow: set[str]) -> None:
    code = f"import sys, {modules}; print(sorted({slow!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_notebook_runs_a_sweep_and_reads_it(
    tiny: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    routers = ["oracle", "zero-router", {"name": "knn@5", "use": "knn", "k": 5}]
    path = write_sweep(seeds=10, routers=routers, reference="zero-router")
    away = tiny.parent / "away"
    away.mkdir()
    monkeypatch.chdir(away)  # relative paths of the sweep file are its own
    monkeypatch.setenv("ROADTEST_DB", f"sqlite:///{tiny.parent / 'roadtest.db'}")
    summary = roadtest.run(roadtest.Sweep.from_yaml(path), executor="local", workers=1)
    assert (summary.exit_code, summary.interrupted, summary.number("done")) == (0, False, 31)

    frame = roadtest.results("small")
    assert frame.groupby("router").size().to_dict() == {"knn@5": 10, "oracle": 10, "zero-router": 10}
    assert frame["privileged"].dtype == bool
    assert (frame.loc[frame["router"] == "oracle", "auc_rel"] == 1.0).all()
    assert (frame.loc[frame["router"] == "zero-router", "auc_rel"] == 0.0).all()
    assert roadtest.results().equals(frame)

    board = roadtest.leaderboard().set_index("router")
    for router, aucs in frame.groupby("router")["auc"]:
        assert board.loc[router, "auc_mean"] == pytest.approx(aucs.mean(), abs=1e-9)
        assert board.loc[router, "auc_sd"] == pytest.approx(aucs.std(ddof=1), abs=1e-9)

    pair = roadtest.compare("knn@5", "zero-router")
    areas = frame.pivot(index="seed", columns="router", values="auc")
    difference = (areas["knn@5"] - areas["zero-router"]).mean()
    [row] = pair[pair["metric"] == "auc"].to_dict("records")
    assert (row["candidate"], row["reference"], row["n_splits"]) == ("knn@5", "zero-router", 10)
    assert row["difference"] == pytest.approx(difference, abs=1e-9)
    assert row["p_better"] + row["p_rope"] + row["p_worse"] == pytest.approx(1)
    assert roadtest.across_suites("knn@5", "zero-router").empty  # one suite

    counted = roadtest.query("SELECT count(*) AS n FROM decisions")
    assert counted["n"].tolist() == [3 * int(frame["n_test"].sum())]


def test_a_sweep_made_in_python_is_the_same_as_its_file(tiny: Path, write_sweep: Callable[..., Path]) -> None:
    path = write_sweep(routers=["zero-router"], encoders=None)
    assert roadtest.run(path, executor="local").number("done") == 2
    made = roadtest.Sweep.from_yaml(path)
    roadtest.run(made, executor="local")
    assert roadtest.query("SELECT count(*) AS n FROM attempt")["n"].tolist() == [2]


def test_another_database(tiny: Path, write_sweep: Callable[..., Path], url: str) -> None:
    roadtest.run(write_sweep(routers=["zero-router"]), db=url, executor="local")
    assert len(roadtest.results(db=url)) == 2
    assert roadtest.query("SELECT n FROM progress WHERE state = 'done'", db=url)["n"].tolist() == [2]


def test_errors(tiny: Path, write_sweep: Callable[..., Path]) -> None:
    with pytest.raises(DatabaseError, match="no database"):
        roadtest.results()
    with pytest.raises(SweepError, match="no such sweep file"):
        roadtest.run("gone.yaml")
    with pytest.raises(SweepError, match="did you mean 'toolbox'"):
        roadtest.run(write_sweep(benchmarks=["toolbo"]), executor="local")
    assert not (tiny.parent / "roadtest.db").exists()
    roadtest.run(write_sweep(routers=["zero-router", "oracle"]), executor="local")
    with pytest.raises(NotFoundError, match="did you mean 'small'"):
        roadtest.results("smal")
    with pytest.raises(AnalysisError, match="nobody"):
        roadtest.compare("nobody", "zero-router")
    with pytest.raises(QueryError, match="only reads"):
        roadtest.query("DELETE FROM unit")
