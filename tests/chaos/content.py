"""What is swept under chaos, and what must come out? Real units, four poisoned ones, the results without chaos."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.catalog import load_benchmarks
from orchestrator.sweep import Sweep
from tests.fragile import rows_digest
from tests.runs import command, deterministic, environment, select, write_fragile
from workers.splits import split_benchmark

ROOT = Path(__file__).parents[2]

#: How a poisoned unit goes wrong, the state that it must end in, the kind of its failures and what its traceback holds.
POISON = {
    "die": ("quarantined", "worker_death", "The actor died"),
    "hang": ("quarantined", "timeout", "time.sleep(1000)"),
    "leak": ("quarantined", "out_of_memory", "in leak"),
    "raise": ("failed", "exception", "in fit"),
}

_SMALL: Mapping[str, Any] = {
    "name": "chaos",
    "benchmarks": [{"name": "toolbox", "queries": 400}],
    "encoders": ["hash-ngrams"],
    "routers": [
        "oracle",
        "zero-router",
        {"name": "knn@10", "use": "knn", "k": 10, "twin": True},
        "knn",
        {"name": "linear", "twin": True},
    ],
    "seeds": 10,
    "protocol": {"bootstrap": 20, "tuning_budget": 6},
    "resources": {"evaluate": {"timeout": 6.0, "memory": 1_000_000_000}},
}
_LARGE: Mapping[str, Any] = {
    "name": "chaos",
    "benchmarks": [{"name": "toolbox"}],
    "encoders": ["hash-ngrams"],
    "routers": [
        "oracle",
        "zero-router",
        {"name": "knn@10", "use": "knn", "k": 10, "twin": True},
        {"name": "knn@100", "use": "knn", "k": 100},
        {"name": "ridge@1", "use": "linear", "penalty": 1},
        "knn",
        "linear",
        {"name": "mlp", "use": "mlp", "epochs": 2, "hidden": 32},
    ],
    "seeds": 20,
    "resources": {"evaluate": {"timeout": 30.0, "memory": 1_000_000_000}},
}


@dataclass(frozen=True, kw_only=True)
class Content:
    """A sweep with poison in it."""

    #: The sweep file's content.
    sweep: Mapping[str, Any]
    #: Way of going wrong, by (benchmark, split) of the fragile router's unit.
    poisoned: Mapping[tuple[str, int], str]
    #: Folder with the fragile router, for PYTHONPATH.
    plugin: Path
    #: Every deterministic column of a run that nothing disturbed and in which the poison was harmless.
    undisturbed: Mapping[str, list[tuple[Any, ...]]]
    #: Of the code at the start.
    code: str
    #: Seconds that it took, without Ray, on two threads; None when it had been run before.
    undisturbed_seconds: float | None


def make_content(folder: Path, *, small: bool, seed: int) -> Content:
    """Choose the units to poison and run the sweep once undisturbed, unless an earlier chaos did.

    Args:
        folder: For the plug-in.
        small: Under a hundred units on an embedded benchmark, else several hundred, on shared data if there.
        seed: Decides which units are poisoned.
    """
    sweep = dict(_SMALL if small else _LARGE)
    table = Path(os.environ.get("ROADTEST_SHARED") or ROOT.parent / "shared") / "data" / "tables" / "routerbench_part"
    if not small and table.is_dir():
        sweep["benchmarks"] = [
            {"name": "routerbench-part", "path": str(table.resolve()), "embed": "question", "tasks": "each+all"}
        ]
    asked = Sweep.model_validate({**sweep, "routers": ["oracle"]})
    benchmarks = {found.name: found.benchmark for found in load_benchmarks(asked, home=folder, beside=None)}
    rng = random.Random(f"poison {seed}")
    places = rng.sample([(name, split) for name in benchmarks for split in range(asked.seeds)], len(POISON))
    poisoned = dict(zip(places, POISON, strict=True))
    wrong = ",".join(
        f"{way}:{rows_digest(split_benchmark(benchmarks[name], split).train)}"
        for (name, split), way in poisoned.items()
    )
    # First of each benchmark's, so that they are met while much is still to come.
    sweep["routers"] = [{"name": "fragile", "wrong": wrong}, *sweep["routers"]]
    plugin, code = write_fragile(folder / "plugin"), code_digest()
    undisturbed, seconds = _undisturbed(sweep, plugin)
    return Content(
        sweep=sweep, poisoned=poisoned, plugin=plugin, code=code, undisturbed=undisturbed, undisturbed_seconds=seconds
    )


def code_digest() -> str:
    """Changes with the code that a run executes: an undisturbed run of other code is no measure."""
    files = [path for folder in ("workers", "orchestrator") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = hashlib.sha256()
    for path in [*files, ROOT / "tests" / "fragile.py"]:
        found.update(path.read_bytes())
    return found.hexdigest()


def _undisturbed(sweep: Mapping[str, Any], plugin: Path) -> tuple[dict[str, list[tuple[Any, ...]]], float | None]:
    harmless = yaml.safe_dump({**sweep, "resources": {}})
    digest = hashlib.sha256((harmless + code_digest()).encode()).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"roadtest-undisturbed-{os.getuid()}-{digest}.pickle"
    if kept.exists() and kept.stat().st_uid == os.getuid():
        return pickle.loads(kept.read_bytes()), None
    with tempfile.TemporaryDirectory(prefix="rt-undisturbed-") as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(harmless)
        options = ["run", "sweep.yaml", "--no-report", "--executor", "local", "--workers", "2"]
        subprocess.run(
            command(*options), cwd=folder, env=environment(PYTHONPATH=str(plugin)), check=True, capture_output=True
        )
        found = deterministic(folder)
        ((seconds,),) = select(folder, "SELECT max(finished_at) - min(started_at) FROM attempt")
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(found))
    partial.replace(kept)
    return found, float(seconds)
