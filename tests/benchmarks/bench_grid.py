"""How much faster are ten seeds x five grid points of `mlp` than training one network after another?

    ROADTEST_SHARED=... python -m tests.benchmarks.bench_grid

RouterBench's rows (`routerbench_part`, 3148 queries x 11 models) under MiniLM. Ours: `workers.tuning.tune`, which the
evaluate job calls, with five configurations on ten splits; first in this process on one thread, then in two processes
of one thread each, as two workers do. The alternative, written the usual way: a `torch.nn.Sequential` with two outputs
(score and cost) per model, seed and configuration, an ordinary loop with `torch.optim.Adam` over as many epochs of as
many minibatches, on one thread (with tensors indexed by a shuffled order, or by a `DataLoader`) and with torch's
default number of threads. Both sides then compute the validation AUC of every configuration.

Five rounds alternate, each with two of the seeds on every side (of the DataLoader and of torch's default threads one
configuration on one seed). Prints seconds for all 50 trainings, medians over the rounds, the median of the rounds'
ratios, and the mean validation AUC of both sides. On one thread seconds are of the process's CPU, which other work on
the machine disturbs little; with several threads or workers they are wall seconds, which mean something only when
nothing else runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.measuring import Figure, Measurement, NotMeasuredError, figure, measured
from workers.benchmarks.base import Floats
from workers.benchmarks.load import load_benchmark
from workers.embed import normalized, unique_inputs
from workers.encoders.base import make_encoder
from workers.metrics.summary import both_areas
from workers.routers.base import Prediction, Side
from workers.routers.mlp import MLP
from workers.seeding import generator
from workers.sides import Trial, cost_ratios, hidden, subset, whole
from workers.splits import split_benchmark
from workers.tuning import TuningTask, tune
from workers.units import ProtocolOptions

SEEDS, POINTS, ROUNDS, WORKERS = range(10), 5, 5, 2
OPTIONS = ProtocolOptions(bootstrap=0, tuning_budget=POINTS)
#: Epochs and batch size are the router's defaults for both sides.
EPOCHS, BATCH = MLP().epochs, MLP().batch_size

Batches = Callable[[torch.Tensor, torch.Tensor], Any]


def embedded(path: Path) -> None:
    """Write MiniLM's rows, which both sides are given."""
    benchmark = load_benchmark("routerbench-part", path=table(), embed="question")
    encoder, unique = make_encoder("minilm"), unique_inputs(benchmark, "text")
    rows = [normalized(encoder.encode(unique.inputs[i : i + 64])) for i in range(0, len(unique.inputs), 64)]
    np.save(path, np.concatenate(rows)[unique.row_of_query])


def table() -> Path:
    """RouterBench's rows in the shared data."""
    return Path(os.environ["ROADTEST_SHARED"]) / "data/tables/routerbench_part"


@cache
def trials(rows: Path) -> tuple[Trial, ...]:
    """Training and validation sides of every seed."""
    benchmark = load_benchmark("routerbench-part", path=table(), embed="question")
    everything = whole(benchmark, cost_ratios(benchmark, OPTIONS), np.load(rows))
    found = []
    for seed in SEEDS:
        split = split_benchmark(benchmark, seed)
        held = subset(everything, split.validation)
        found.append(Trial(train=subset(everything, split.train), held=held, queries=hidden(held)))
    return tuple(found)


def ours(rows: Path, seeds: Sequence[int]) -> list[list[float]]:
    """Validation AUC of every configuration of each of these seeds, one thread."""
    with threadpool_limits(limits=1):
        tasks = [
            TuningTask(
                cls=MLP,
                fixed={"epochs": EPOCHS},
                formulation="utility",
                trials=(trials(rows)[seed],),
                n_train=trials(rows)[seed].train.n,
                root_seed=0,
                split=seed,
                options=OPTIONS,
            )
            for seed in seeds
        ]
        return [list(tuned.chosen["scores"]) for tuned in tune(tasks)]


def one_by_one(trial: Trial, config: dict[str, Any], batches: Batches) -> float:
    """Validation AUC of one configuration on one seed, a network per model."""
    found = [network(trial.train, model, trial.queries.X, config, batches) for model in range(len(trial.train.models))]
    scores, costs = np.stack(found, axis=2).transpose(1, 0, 2)
    return both_areas(Prediction(scores=scores, costs=costs), *trial.held.outcomes, OPTIONS).auc_path


def network(train: Side, model: int, queries: Floats, config: dict[str, Any], batches: Batches) -> Floats:
    """Predicted score and cost of one model, from the queries where it was observed. [n, 2]."""
    targets = np.column_stack([values[:, model] for values in train.outcomes])
    seen = ~np.isnan(targets[:, 0])
    targets = targets[seen]
    mean, deviation = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-9)
    X, y = torch.from_numpy(train.X[seen]), torch.from_numpy((targets - mean) / deviation).float()
    net = torch.nn.Sequential(
        torch.nn.Linear(X.shape[1], 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 2),
    )
    adam = torch.optim.Adam(net.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"])
    for _ in range(EPOCHS):
        for inputs, wanted in batches(X, y):
            adam.zero_grad()
            loss = ((net(inputs) - wanted) ** 2).mean(dim=0).sum()
            loss.backward()
            adam.step()
    with torch.no_grad():
        answer: Floats = net(torch.from_numpy(queries)).double().numpy() * deviation + mean
        return answer


def by_index(X: torch.Tensor, y: torch.Tensor) -> Any:
    """Minibatches by a shuffled order; the last incomplete one is left out, as in ours."""
    order = torch.randperm(len(X))
    for start in range(0, len(X) - BATCH + 1, BATCH):
        some = order[start : start + BATCH]
        yield X[some], y[some]


def by_loader(X: torch.Tensor, y: torch.Tensor) -> Any:
    """Minibatches by torch's loader."""
    return DataLoader(TensorDataset(X, y), batch_size=BATCH, shuffle=True, drop_last=True)


def alternative(
    rows: Path, seeds: Sequence[int], batches: Batches, threads: int, points: int = POINTS
) -> list[list[float]]:
    """What `ours` gives, or its first `points` of each seed, one network after the other."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [
            [one_by_one(trials(rows)[seed], config, batches) for config in configs(seed)[:points]] for seed in seeds
        ]
    finally:
        torch.set_num_threads(before)


def configs(seed: int) -> list[dict[str, Any]]:
    """The rates and decays that `tune` tries."""
    rng = generator(0, "tuning", MLP.name, seed)
    return MLP.candidates(n_train=0, budget=POINTS, fixed={}, rng=rng)


def timed(work: Callable[[], Any], clock: Callable[[], float] = process_time) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    begin = clock()
    answer = work()
    return clock() - begin, answer


def rows_file() -> Path:
    """MiniLM's rows, made at the first call."""
    if "ROADTEST_SHARED" not in os.environ or not table().exists():
        raise NotMeasuredError("no data/tables/routerbench_part under ROADTEST_SHARED")
    rows = Path(os.environ.get("TMPDIR", "/tmp")) / "bench_grid_minilm.npy"
    if not rows.exists():
        embedded(rows)
    return rows


def figures() -> list[Figure]:
    """CPU seconds of one thread, in as many rounds; `main` has the other alternatives, and wall seconds."""
    rows = rows_file()
    mine: list[Measurement] = []
    theirs: list[Measurement] = []
    areas: dict[str, list[list[float]]] = {"ours": [], "one by one": []}
    ours(rows, [0])
    for number in range(ROUNDS):
        pair = list(SEEDS)[2 * number : 2 * number + 2]
        mine.append(measured(partial(_into, areas["ours"], ours, rows, pair), process_time))
        theirs.append(measured(partial(_into, areas["one by one"], alternative, rows, pair, by_index, 1), process_time))
    return [
        figure(
            "grid of mlp",
            ours=("2 seeds x 5 configurations as one batched model", mine),
            against=("a torch loop per network", theirs),
            unit="CPU s",
            wanted=5,
            facts={f"validation AUC, {name}": float(np.mean(found)) for name, found in areas.items()},
        )
    ]


def _into(areas: list[list[float]], work: Callable[..., list[list[float]]], *arguments: Any) -> None:
    areas += work(*arguments)


def main() -> None:
    """Measure and print."""
    rows = rows_file()
    default = torch.get_num_threads()
    taken: dict[str, list[float]] = {}
    areas: dict[str, list[list[float]]] = {"ours": [], "one by one": []}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as workers:
        list(workers.map(ours, [rows] * WORKERS, [[0]] * WORKERS))  # started and warm, as workers are
        ours(rows, [0])
        for number in range(ROUNDS):
            pair = list(SEEDS)[2 * number : 2 * number + 2]
            taken_now, found = in_turn(rows, pair, workers, default)
            print(json.dumps({name: round(value, 1) for name, value in taken_now.items()}), flush=True)  # noqa: T201
            for name, value in taken_now.items():
                taken.setdefault(name, []).append(value)
            for name, values in found.items():
                areas[name] += values
    summarise(taken, areas)


def in_turn(
    rows: Path, pair: list[int], workers: ProcessPoolExecutor, default: int
) -> tuple[dict[str, float], dict[str, list[list[float]]]]:
    """Seconds for all 50 trainings from those on two seeds, and the areas that were found."""
    one, mine = timed(lambda: ours(rows, pair))
    two, _ = timed(lambda: list(workers.map(ours, [rows] * WORKERS, [[seed] for seed in pair])), perf_counter)
    index, theirs = timed(lambda: alternative(rows, pair, by_index, 1))
    loader, _ = timed(lambda: alternative(rows, pair[:1], by_loader, 1, points=1))
    wall, _ = timed(lambda: alternative(rows, pair[:1], by_index, 1, points=1), perf_counter)
    threads, _ = timed(lambda: alternative(rows, pair[:1], by_index, default, points=1), perf_counter)
    pairs, singles = len(SEEDS) / len(pair), len(SEEDS) * POINTS
    taken = {
        "ours, 1 thread": pairs * one,
        "one by one, 1 thread": pairs * index,
        "one by one, DataLoader, 1 thread": singles * loader,
        "ours, 2 workers, wall": pairs * two,
        "one by one, 1 thread, wall": singles * wall,
        f"one by one, torch's default of {default} threads, wall": singles * threads,
    }
    return taken, {"ours": mine, "one by one": theirs}


def summarise(taken: dict[str, list[float]], areas: dict[str, list[list[float]]]) -> None:
    """Print medians over the rounds, ratios to ours by the same clock, and mean areas."""
    for name, values in taken.items():
        own = "ours, 2 workers, wall" if name.endswith("wall") else "ours, 1 thread"
        ratio = median(a / b for a, b in zip(values, taken[own], strict=True))
        print(json.dumps({"what": name, "seconds": round(median(values), 1), f"times {own}": round(ratio, 2)}))  # noqa: T201
    for name, found in areas.items():
        print(json.dumps({"validation AUC": name, "mean": round(float(np.mean(found)), 2)}))  # noqa: T201


if __name__ == "__main__":
    main()
