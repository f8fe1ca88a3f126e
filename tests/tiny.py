"""What do tests evaluate on when any benchmark will do? Tables small enough to read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from orchestrator.catalog import EvaluatedBenchmark
from orchestrator.plan import Plan, plan_sweep
from orchestrator.sweep import Sweep
from workers.benchmarks.base import Benchmark, Model

#: Routers without an encoder.
UNEMBEDDED = ("zero-router", "best-single", "random", "task-zero", "oracle")


def write_tables(folder: Path, *, n: int = 60) -> Path:
    """A benchmark of n queries of two tasks, three models of two families; 7 observed cells are missing."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["red", "green", "blue", "one", "two", "three", "up", "down"]
    with (folder / "queries.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query_id", "prompt", "question", "task"])
        for i in range(n):
            text = " ".join(rng.choice(words, size=6))
            rows.writerow([f"q{i:03d}", f"Answer this: {text} {i}", f"{text} {i}", ("colour", "count")[i % 2]])
    with (folder / "outcomes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query_id", "model", "score", "strict", "cost"])
        for i in range(n):
            for j, model in enumerate(("large", "medium", "small")):
                score = float(rng.random() < 0.9 - 0.25 * j)
                missing = i % 9 == 4 and j == 0
                cost = "" if missing else 0.01 / 4**j * (1 + i % 3)
                rows.writerow([f"q{i:03d}", model, "" if missing else score, "" if missing else score / 2, cost])
    families = {"large": "north", "medium": "north", "small": "south"}
    meta = {"models": {name: {"family": family} for name, family in families.items()}, "licence": "CC0-1.0"}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def tiny_benchmark() -> Benchmark:
    """Twelve queries and two models."""
    rng = np.random.default_rng(0)
    return Benchmark.build(
        name="null",
        queries=[f"q{i:02d}" for i in range(12)],
        prompts=[f"prompt {i}" for i in range(12)],
        tasks=["a", "b"] * 6,
        models=[Model(name="m0"), Model(name="m1")],
        S=rng.random((12, 2)),
        C=rng.random((12, 2)),
    )


def tiny_plan(name: str, n_units: int) -> Plan:
    """A plan of so many units (rounded up to whole routers)."""
    sweep = Sweep.from_dict(
        {"name": name, "benchmarks": ["null"], "routers": list(UNEMBEDDED), "seeds": -(-n_units // len(UNEMBEDDED))}
    )
    found = tiny_benchmark()
    return plan_sweep(sweep, [EvaluatedBenchmark(name="null", task=None, benchmark=found, source=found)], [])
