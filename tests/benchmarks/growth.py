"""How does the cost of evaluating a router grow with queries, dimensions, models and splits? Exponents, fitted.

    python -m tests.benchmarks.growth [--router knn linear mlp] [--json FILE]
    python -m tests.benchmarks.growth --support 1000000

One quantity at a time is doubled, the others stay at `BASE`; the rows are drawn. A cost is the CPU seconds of
`workers.evaluate` on one thread, everything that a unit's metrics need included: the least of three runs. The exponent
is the slope of log seconds over log size by least squares, over the upper half of the sizes, where constants weigh
less. `--support` fits kNN on so many rows of 384 dimensions and routes a thousand queries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from orchestrator.environment import facts
from tests.benchmarks.measuring import observed
from workers.benchmarks.base import Benchmark, Model
from workers.evaluate import run_evaluate
from workers.measures.scaling import Scaling
from workers.units import EvaluateUnit, MeasureUnit, ProtocolOptions

#: Queries, dimensions, models, splits.
BASE: Mapping[str, int] = {"n": 2000, "d": 384, "M": 10, "seeds": 2}
SIZES: Mapping[str, tuple[int, ...]] = {
    "n": (1000, 2000, 4000, 8000, 16_000, 32_000),
    "d": (96, 192, 384, 768, 1536),
    "M": (5, 10, 20, 40, 80),
    "seeds": (1, 2, 4, 8, 16),
}
ROUTERS: Mapping[str, Mapping[str, Any]] = {"knn": {"k": 10}, "linear": {"penalty": 1.0}, "mlp": {}}
RUNS = 3
DIM = 384


def drawn(n: int, n_models: int) -> Benchmark:
    """A benchmark of so many queries whose outcomes are noise."""
    rng = np.random.default_rng(0)
    scores = (rng.random((n, n_models)) < np.linspace(0.3, 0.8, n_models)).astype(float)
    return Benchmark.build(
        name="drawn",
        queries=[f"q{i:07d}" for i in range(n)],
        prompts=[f"prompt {i}" for i in range(n)],
        models=[Model(name=f"m{j:02d}") for j in range(n_models)],
        S=scores,
        C=rng.random((n, n_models)) * np.linspace(0.1, 1.0, n_models),
    )


def cost(router: str, *, n: int, d: int, M: int, seeds: int) -> float:
    """CPU seconds of one router's evaluation on so many splits."""
    benchmark = drawn(n, M)
    X = np.random.default_rng(1).normal(size=(n, d)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    units = [
        EvaluateUnit(key=f"{i}", router=router, params=ROUTERS[router], split=i, protocol=ProtocolOptions(bootstrap=0))
        for i in range(seeds)
    ]
    found = []
    for _ in range(RUNS):
        begin = process_time()
        outcomes = run_evaluate(units, benchmark, X)
        found.append(process_time() - begin)
        assert all(hasattr(outcome, "metrics") for outcome in outcomes), outcomes
    return min(found)


def exponent(sizes: Mapping[int, float]) -> float:
    """Slope of log cost over log size over the upper half of the sizes."""
    upper = sorted(sizes)[len(sizes) // 2 :]
    return float(np.polyfit(np.log(upper), np.log([sizes[size] for size in upper]), 1)[0])


def curve(router: str, quantity: str, costs: Callable[..., float] = cost) -> dict[str, Any]:
    """Costs of a router over the sizes of one quantity, and their exponent."""
    seconds = {size: costs(router, **{**BASE, quantity: size}) for size in SIZES[quantity]}
    return {"router": router, "quantity": quantity, "seconds": seconds, "exponent": exponent(seconds)}


def support(n: int, n_models: int = 11) -> dict[str, float]:
    """Seconds of kNN to fit and to route on n labelled rows, and the peak of memory."""
    benchmark = drawn(2000, n_models)
    X = np.random.default_rng(1).normal(size=(2000, DIM)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    measure = Scaling(router="knn", params={"k": 10}, n=n)
    unit = MeasureUnit(key="support", measure="scaling", params={})
    found: dict[str, float] = {}
    peak = observed(partial(_into, found, lambda: measure.findings(benchmark, X, unit))).peak
    return {"n": n, "d": DIM, "M": n_models, **found, "peak_mb": peak / 1e6, "rows_mb": n * DIM * 4 / 1e6}


def _into(found: dict[str, float], findings: Callable[[], Any]) -> float:
    found.update({finding.quantity: finding.value for finding in findings()})
    return 0.0


def main() -> None:
    """Print a line a curve and, if asked, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", nargs="+", choices=ROUTERS, default=list(ROUTERS))
    parser.add_argument("--support", type=int, metavar="ROWS")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = []
    if asked.support:
        found.append(support(asked.support))
        sys.stdout.write(f"{json.dumps(found[0])}\n")
    else:
        for router in asked.router:
            for quantity in SIZES:
                found.append(curve(router, quantity))
                seconds = ", ".join(f"{size}: {value:.3g} s" for size, value in found[-1]["seconds"].items())
                sys.stdout.write(f"{router} over {quantity}: exponent {found[-1]['exponent']:.2f} ({seconds})\n")
                sys.stdout.flush()
    if asked.json:
        asked.json.write_text(json.dumps({"machine": facts(), "found": found}, indent=1))


if __name__ == "__main__":
    main()
