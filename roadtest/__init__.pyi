from orchestrator.api import across_suites, compare, leaderboard, query, results, run
from orchestrator.run import RunSummary
from orchestrator.sweep import Sweep
from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.base import Source as BenchmarkSource
from workers.check import check_router
from workers.deployed import Deployed
from workers.encoders.base import Encoder, Input
from workers.errors import RouterError
from workers.routers.base import Calls, Mixture, Prediction, Router, Side, mean_outcomes

__all__ = [
    "Benchmark",
    "BenchmarkSource",
    "Calls",
    "Deployed",
    "Encoder",
    "Input",
    "Mixture",
    "Model",
    "Prediction",
    "Router",
    "RouterError",
    "RunSummary",
    "Side",
    "Sweep",
    "across_suites",
    "check_router",
    "compare",
    "leaderboard",
    "mean_outcomes",
    "query",
    "results",
    "run",
]
