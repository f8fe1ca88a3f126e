"""How fast are LLMRouter's trainers on the same rows and splits, and do they choose as well? One thread.

    ROADTEST_LLMROUTER_PYTHON=/somewhere/bin/python python -m tests.benchmarks.bench_llmrouter

`llmrouter-lib` needs an environment of its own. Its trainers learn each query's best model, ties to the first one, and
answer with one model for each query, whatever it costs; ours predict scores and costs for every price, and their time
includes all metrics. What is compared is the mean score of the models called for the test queries, of ours at price 0.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tests.benchmarks.measuring import Figure, Measurement, NotMeasuredError, figure, measured, observed
from workers.benchmarks.base import Benchmark, Floats
from workers.benchmarks.load import load_benchmark
from workers.embed import normalized, unique_inputs
from workers.encoders.base import make_encoder
from workers.evaluate import run_evaluate
from workers.routers.base import resolve_params, router_class
from workers.splits import split_benchmark
from workers.units import EvaluateResult, EvaluateUnit, ProtocolOptions

SPLITS = range(5)
RUNS = 3
#: Our router of the same family by theirs.
PAIRS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "knn": ("knn", {"k": 10}),
    "svm": ("svr", {"C": 1.0}),
    "mlp": ("mlp", {}),
    "mf": ("routellm-mf", {}),
}
VARIABLE = "ROADTEST_LLMROUTER_PYTHON"
#: No hub and no price list from the net; one thread.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OMP_NUM_THREADS": "1"}


def rows(benchmark: Benchmark) -> Floats:
    """wordllama's rows of every query."""
    encoder, unique = make_encoder("wordllama"), unique_inputs(benchmark, "text")
    parts = [unique.inputs[i : i + 64] for i in range(0, len(unique.inputs), 64)]
    return np.concatenate([normalized(encoder.encode(part)) for part in parts])[unique.row_of_query]


def written(folder: Path, benchmark: Benchmark, X: Floats) -> None:
    """Each split as LLMRouter's routing data: a line for each training query and model."""
    names = [model.name for model in benchmark.models]
    for i in SPLITS:
        split, place = split_benchmark(benchmark, i), folder / f"{i}"
        place.mkdir()
        np.save(place / "train.npy", X[split.train])
        np.save(place / "test.npy", X[split.test])
        lines = [
            {"query": benchmark.queries[q], "embedding_id": n, "model_name": name, "performance": float(score)}
            for n, q in enumerate(split.train)
            for name, score in zip(names, benchmark.S[q], strict=True)
        ]
        (place / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def theirs(python: str, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Their answers and CPU seconds by router and split."""
    command = [python, str(Path(__file__).with_name("llmrouter_side.py")), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": ""})
    if ran.returncode:
        raise NotMeasuredError(f"{VARIABLE}={python}: {(ran.stderr.strip() or 'no message').splitlines()[-1]}")
    found: dict[str, list[dict[str, Any]]] = json.loads(ran.stdout)
    return found


def ours(name: str, benchmark: Benchmark, X: Floats) -> list[EvaluateResult]:
    """Our router of the same family on every split."""
    router, given = PAIRS[name]
    params, options = resolve_params(router_class(router), given), ProtocolOptions(bootstrap=0)
    units = [EvaluateUnit(key=f"{i}", router=router, params=params, split=i, protocol=options) for i in SPLITS]
    results = run_evaluate(units, benchmark, X)
    assert all(isinstance(result, EvaluateResult) for result in results), results
    return results  # type: ignore[return-value]


def their_score(found: list[dict[str, Any]], benchmark: Benchmark) -> float:
    """Mean over splits of the mean score of the models that they call."""
    number = {model.name: i for i, model in enumerate(benchmark.models)}
    means = [
        benchmark.S[split_benchmark(benchmark, i).test, [number[name] for name in each["chosen"]]].mean()
        for i, each in zip(SPLITS, found, strict=True)
    ]
    return float(np.mean(means))


def figures() -> list[Figure]:
    """A figure for each pair; rounds alternate."""
    python = os.environ.get(VARIABLE)
    if not python:
        raise NotMeasuredError(
            f"{VARIABLE} is not set; name the python of a venv with `pip install torch==2.13.0`, then "
            "`pip install llmrouter-lib==0.4.0`"
        )
    benchmark = load_benchmark("toolbox")
    X = rows(benchmark)
    mine: dict[str, list[Measurement]] = {name: [] for name in PAIRS}
    others: dict[str, list[Measurement]] = {name: [] for name in PAIRS}
    scores: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="rt-bench-") as scratch, threadpool_limits(limits=1):
        written(Path(scratch), benchmark, X)
        for name in PAIRS:
            results = ours(name, benchmark, X)  # imports
            scores[name] = {"mean score, ours": float(np.mean([result.frontier[0].score for result in results]))}
        for _ in range(RUNS):
            answers: list[dict[str, list[dict[str, Any]]]] = []
            peak = observed(lambda: answers.append(theirs(python, Path(scratch))) or 0.0).peak  # noqa: B023
            for name, found in answers[0].items():
                seconds = sum(each["seconds"] for each in found)
                others[name].append(Measurement(value=seconds, peak=peak))
                scores[name]["mean score, theirs"] = their_score(found, benchmark)
                mine[name].append(measured(partial(ours, name, benchmark, X), process_time))
    return [
        figure(
            f"llmrouter-lib, {name}",
            ours=(f"`{PAIRS[name][0]}`, toolbox, 5 splits, every price of cost, all metrics", mine[name]),
            against=("its trainer and its answers at one price", others[name]),
            unit="CPU s",
            facts=scores[name],
        )
        for name in PAIRS
    ]


def main() -> None:
    """Print the figures."""
    from tests.benchmarks.run import row

    sys.stdout.write("".join(row(found.as_json()) for found in figures()))


if __name__ == "__main__":
    main()
