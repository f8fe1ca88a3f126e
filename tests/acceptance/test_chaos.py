"""A small sweep survives a few random faults on either database; `make chaos N=100` is the whole of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = 4


@pytest.mark.slow
@pytest.mark.parametrize(("database", "ray", "seed"), [("sqlite", "local", 21), ("postgresql", "cluster", 5)])
def test_a_small_sweep_survives(
    database: str, ray: str, seed: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if database == "postgresql":
        request.getfixturevalue("running_postgres")  # skips where there is none
    figures = tmp_path / "figures.json"
    options = ["--n", FAULTS, "--seed", seed, "--db", database, "--ray", ray, "--small", "--out", figures]

    # A process of its own: it adopts orphans, and ends all that it started.
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *map(str, options)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )

    sys.stdout.write(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(figures.read_text())
    assert len(found["schedule"]) == FAULTS
    assert all(0 < fault["share"] < 1 for fault in found["schedule"])
    assert found["problems"] == []
    assert found["units"] == 81
