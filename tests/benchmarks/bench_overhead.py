"""What does orchestration cost on top of the work? Wall x cores of a run against the CPU of its units in one process.

    python -m tests.benchmarks.bench_overhead [--minutes 10] [--runs 1]

The sweep (`toolbox` under `hash-ngrams`, embedded beforehand; kNN and ridge tuned, and fixed networks) has as many
splits as keep one process busy for so many minutes. Ours is `roadtest run --no-report` from the start of its process to
its end, Ray's start included, its wall seconds times the cores of the machine; the other side is `workers.evaluate` on
the same units, one shard after the other on one thread, in CPU seconds. Busy cores slow each other down: a second
figure is against as many such processes side by side as there are cores, each with its part of the splits. Both mean
something only on a machine that does nothing else; CPU seconds of all processes of the run, the third, on any.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import yaml

from orchestrator.run import load_plan
from orchestrator.sweep import Sweep
from tests.benchmarks.measuring import Figure, Measurement, figure, measured, measured_cpu, observed
from tests.runs import roadtest, select
from workers.embed import normalized
from workers.evaluate import run_evaluate
from workers.units import EvaluateUnit

#: Of CPU, so half as long on two cores.
MINUTES = 10.0
ROUTERS: Sequence[dict[str, Any]] = (
    {"name": "knn"},
    {"name": "linear"},
    {"name": "knn@10", "use": "knn", "k": 10},
    {"name": "mlp"},
    {"name": "embedllm"},
    {"name": "hybrid-llm"},
)
#: Splits of which the cost of one is taken.
PROBED = 4
#: Units that the serial side evaluates at once, as a shard of a run does.
SHARD = 8


def sweep(name: str, seeds: int, routers: Sequence[dict[str, Any]] = ROUTERS) -> dict[str, Any]:
    """The sweep with so many splits."""
    return {
        "name": name,
        "benchmarks": ["toolbox"],
        "encoders": ["hash-ngrams"],
        "routers": list(routers),
        "seeds": seeds,
        "reference": routers[0]["name"],
    }


def serially(seeds: int) -> float:
    """CPU seconds of the sweep's units, one shard after the other in this process."""
    plan = load_plan(Sweep.from_dict(sweep("serial", seeds)), home=Path())
    [embedding] = plan.embeddings
    encoder, inputs = embedding.encoder.encoder, embedding.inputs.inputs
    rows = np.concatenate([normalized(encoder.encode(inputs[i : i + 64])) for i in range(0, len(inputs), 64)])
    X = rows[embedding.inputs.row_of_query]
    families: dict[str, list[EvaluateUnit]] = {}
    for planned in plan.units:
        if isinstance(planned.unit, EvaluateUnit):
            families.setdefault(str(planned.router), []).append(planned.unit)
    benchmark = plan.benchmarks[0].benchmark
    begin = process_time()
    for units in families.values():
        for start in range(0, len(units), SHARD):
            outcomes = run_evaluate(units[start : start + SHARD], benchmark, X)
            assert all(hasattr(outcome, "metrics") for outcome in outcomes), outcomes
    return process_time() - begin


def side_by_side(seeds: int, processes: int) -> float:
    """CPU seconds of as many processes as given, each with its part of so many splits."""
    parts = [seeds // processes + (i < seeds % processes) for i in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(serially, [1] * processes))  # started and warm
        return sum(pool.map(serially, parts))


def figures(minutes: float = MINUTES, runs: int = 1) -> list[Figure]:
    """By wall seconds, against one process and one for each core, and by CPU seconds."""
    serially(1)
    seeds = math.ceil(60 * minutes / (serially(PROBED) / PROBED))
    cores = os.cpu_count() or 1
    wall, cpu, serial, beside, units = [], [], [], [], 0.0
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="rt-bench-") as name:
            folder = Path(name)
            _prime(folder)
            (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep("overhead", seeds)))
            whole, busy = measured_cpu(
                lambda: roadtest("run", "sweep.yaml", "--no-report", cwd=folder, timeout=36_000)  # noqa: B023
            )
            [[units]] = select(folder, "SELECT sum(seconds) FROM unit WHERE kind = 'evaluate'")
        wall.append(Measurement(value=cores * whole.value, peak=whole.peak))
        cpu.append(Measurement(value=busy, peak=whole.peak))
        found: list[float] = []
        peak = measured(lambda: found.append(serially(seeds))).peak  # noqa: B023
        serial.append(Measurement(value=found[0], peak=peak))
        beside.append(observed(lambda: side_by_side(seeds, cores)))
    alone = ("the same units in one process, CPU", serial)
    facts = {"splits": seeds, "seconds of units in the run": units, "cores": cores}
    together = (f"the same units in {cores} processes side by side, CPU", beside)
    return [
        figure("overhead, wall x cores", ours=("roadtest run", wall), against=alone, wanted=0.95, facts=facts),
        figure("overhead, wall x cores, busy cores", ours=("roadtest run", wall), against=together),
        figure("overhead, CPU", ours=("roadtest run, all its processes", cpu), against=alone, unit="CPU s"),
    ]


def _prime(folder: Path) -> None:
    """Embed, by a sweep of one cheap router."""
    one = sweep("prime", 1, [{"name": "knn@1", "use": "knn", "k": 1}])
    (folder / "prime.yaml").write_text(yaml.safe_dump(one))
    roadtest("run", "prime.yaml", "--no-report", "--executor", "local", cwd=folder, timeout=3600)


def main() -> None:
    """Print the figures."""
    from tests.benchmarks.run import row

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--runs", type=int, default=1)
    asked = parser.parse_args()
    sys.stdout.write("".join(row(found.as_json()) for found in figures(asked.minutes, asked.runs)))


if __name__ == "__main__":
    main()
