"""Installed from a wheel and outside the checkout, roadtest finds its migrations and templates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.runs import roadtest, select, write_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    arguments = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("roadtest-*.whl")
    return built


@pytest.mark.slow
def test_no_name_but_its_own_lies_at_the_top(wheel: Path) -> None:
    with ZipFile(wheel) as content:
        names = content.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"orchestrator", "workers", "roadtest"}
    assert "orchestrator/store/migrations/versions/0001_initial.py" in names
    assert "roadtest/py.typed" in names
    assert {"workers/benchmarks/prices.csv", "workers/benchmarks/pools.csv"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".db")]


@pytest.mark.slow
def test_the_installed_wheel_runs_a_sweep_and_writes_its_report(wheel: Path, tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "elsewhere"
    folder.mkdir()
    arguments = ["install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, check=True, timeout=300)
    env = {"PYTHONPATH": str(site)}  # before the checkout, which this interpreter knows too
    where = (
        "import orchestrator, workers; from orchestrator.store.schema import migrations_folder; "
        "print(orchestrator.__file__, workers.__file__, migrations_folder(), sep='\\n')"
    )
    told = subprocess.run([sys.executable, "-c", where], cwd=folder, env=env, stdout=subprocess.PIPE, check=True)
    assert all(Path(line).is_relative_to(site) for line in told.stdout.decode().split()), told.stdout

    sweep = write_sweep(folder, routers=["zero-router", {"name": "knn@10", "use": "knn", "k": 10}])
    said = roadtest("run", sweep.name, "--executor", "local", cwd=folder, env=env).stdout

    assert "Report: " in said
    page = (folder / "roadtest-report" / "small.html").read_text()
    assert "knn@10" in page and "</html>" in page
    assert select(folder, "SELECT count(*) FROM results") == [(8,)]
    assert "sound" in roadtest("db", "check", cwd=folder, env=env).stdout
    roadtest("init", "mine.yaml", cwd=folder, env=env)
    assert "benchmarks:" in (folder / "mine.yaml").read_text()
