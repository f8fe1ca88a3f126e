from orchestrator.api import compare, leaderboard, query, results, run
from orchestrator.run import RunSummary
from orchestrator.sweep import Sweep
from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.base import Source as BenchmarkSource
from workers.encoders.base import Encoder, Input
from workers.errors import RouterError
from workers.routers.base import Mixture, Prediction, Router, Side, mean_outcomes

__all__ = [
    "Benchmark",
    "BenchmarkSource",
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
    "compare",
    "leaderboard",
    "mean_outcomes",
    "query",
    "results",
    "run",
]
