"""Does the memory of a run grow with the number of its units? The peak of a hundred times as many null units."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from tests.benchmarks.bench_orchestration import run_units
from tests.benchmarks.measuring import Figure, Measurement, figure, observed

FEW, MANY = 500, 50_000
RUNS = 3


def peak(n_units: int) -> Measurement:
    """MB at the peak of a run, Ray's processes included, in this process."""
    with tempfile.TemporaryDirectory(prefix="rt-bench-") as folder:
        os.environ["ROADTEST_HOME"] = folder
        found = observed(partial(_run, f"sqlite:///{folder}/bench.db", n_units), sampling=1.0)
    return Measurement(value=found.peak / 1e6, peak=found.peak)


def _run(url: str, n_units: int) -> float:
    return run_units(url, "null", n_units)["run"]


def alone(n_units: int) -> Measurement:
    """The same in a process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak, n_units).result()


def figures() -> list[Figure]:
    """The ratio of the peaks; 1 if units cost no memory."""
    few, many = [], []
    for _ in range(RUNS):
        few.append(alone(FEW))
        many.append(alone(MANY))
    return [
        figure(
            f"peak memory, {MANY} units against {FEW}",
            ours=(f"{MANY} null units", many),
            against=(f"{FEW} null units", few),
            unit="MB",
            wanted=0.9,
        )
    ]
