"""A new router is one file of under 40 lines and nothing else: the documented one, as an installed wheel, in Ray."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import roadtest, run, select, write_sweep

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-router.md"


def block(language: str) -> str:
    """The page's code block in a language; there is one of each."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine where the documented package is installed from a wheel."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "roadtest_clusters.py").write_text(block("python"))
    (folder / "pyproject.toml").write_text(block("toml"))
    site = folder / "site"
    _quietly(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    _quietly(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel)
    return {"PYTHONPATH": str(site)}


def _quietly(*arguments: str | Path) -> None:
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_file_has_under_40_lines() -> None:
    assert len(block("python").splitlines()) < 40


@pytest.mark.slow
def test_without_the_package_the_router_is_unknown(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, routers=["zero-router", "clusters"])
    assert "unknown router 'clusters'" in run(sweep, "--executor", "local", expect=2)


@pytest.mark.slow
def test_the_installed_router_is_listed_run_in_ray_and_reported(installed: dict[str, str], tmp_path: Path) -> None:
    listed = json.loads(roadtest("routers", "list", "--json", cwd=tmp_path, env=installed).stdout)
    (row,) = [row for row in listed if row["name"] == "clusters"]
    assert row["summary"] == "mean outcomes of the query's k-means cluster"

    routers = [
        "zero-router",
        "clusters",
        {"name": "clusters@1", "use": "clusters", "k": 1},
        {"name": "clusters@32", "use": "clusters", "k": 32, "twin": True},
    ]
    sweep = write_sweep(tmp_path, routers=routers, reference="clusters")
    said = roadtest("run", sweep.name, "--executor", "ray", "--workers", "2", cwd=tmp_path, env=installed).stdout

    finished = select(tmp_path, "SELECT router, count(*), min(auc_path) > 0 FROM results GROUP BY router ORDER BY 1")
    names = ["clusters", "clusters@1", "clusters@32", "clusters@32 blind twin", "zero-router"]
    assert finished == [(name, 4, 1) for name in names]
    pids = {pid for (pid,) in select(tmp_path, "SELECT DISTINCT a.pid FROM attempt a WHERE a.outcome = 'done'")}
    drivers = {pid for (pid,) in select(tmp_path, "SELECT pid FROM coordinator")}
    assert pids and not pids & (drivers | {os.getpid()})
    # One cluster knows nothing of the query: its shrunken means are the zero-router's.
    one, zero = (
        [auc for (auc,) in select(tmp_path, "SELECT auc FROM results WHERE router = ? ORDER BY seed", name)]
        for name in ("clusters@1", "zero-router")
    )
    assert one == pytest.approx(zero, abs=1e-6)
    page = (tmp_path / "roadtest-report" / "small.html").read_text()
    for name in names:
        assert name in said
        assert name in page
