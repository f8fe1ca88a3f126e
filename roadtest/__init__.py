"""Road-test LLM routers: what the command line does, in a few lines of a notebook.

    from roadtest import Sweep, run, results, compare

    sweep = Sweep.from_yaml("sweeps/demo.yaml")
    run(sweep)                    # the same database, executor and exactly-once results as the command
    frame = results(sweep.name)   # the view `results` as a data frame
    compare("knn", "linear")      # differences, intervals, verdict

`Router`, `Encoder`, `Benchmark` and `BenchmarkSource` are what a plug-in targets. Everything is imported when it is
first used, so `import roadtest` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Public name -> where it lives.
_HOMES = {
    "Benchmark": "workers.benchmarks.base",
    "Model": "workers.benchmarks.base",
    "BenchmarkSource": "workers.benchmarks.base:Source",
    "Encoder": "workers.encoders.base",
    "Input": "workers.encoders.base",
    "Router": "workers.routers.base",
    "Side": "workers.routers.base",
    "Prediction": "workers.routers.base",
    "Mixture": "workers.routers.base",
    "Calls": "workers.routers.base",
    "check_router": "workers.check",
    "Deployed": "workers.deployed",
    "mean_outcomes": "workers.routers.base",
    "RouterError": "workers.errors",
    "Sweep": "orchestrator.sweep",
    "RunSummary": "orchestrator.run",
    "run": "orchestrator.api",
    "results": "orchestrator.api",
    "leaderboard": "orchestrator.api",
    "query": "orchestrator.api",
    "compare": "orchestrator.api",
    "across_suites": "orchestrator.api",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'roadtest' has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    return getattr(import_module(module), other or name)


def __dir__() -> list[str]:
    return __all__
