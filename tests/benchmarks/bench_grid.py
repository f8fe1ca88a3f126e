"""How much faster are ten seeds x five grid points of `mlp` than training one network after another?

    ROADTEST_SHARED=... python -m tests.benchmarks.bench_grid

RouterBench's rows (`routerbench_part`, 3148 queries x 11 models) under MiniLM. Ours: `workers.tuning.tune`, which the
evaluate job calls, with five configurations on ten splits; in two processes of one thread each, as two workers do, and
in this process on one thread. The alternative, written the usual way: a `torch.nn.Sequential` with two outputs (score
and cost) per model, seed and configuration, an ordinary loop with `torch.optim.Adam` over as many epochs of as many
minibatches, which index the tensors by a shuffled order (a `DataLoader` takes longer), with one thread and with torch's
default number of threads. Both sides then compute the validation AUC of every configuration.

Five rounds alternate, each with two of the seeds on every side (of torch's default threads one configuration on one
seed). The first figure is wall seconds of two workers beside the faster of both loops: it means something only when
nothing else runs. What else runs disturbs CPU seconds less: the busiest worker's are among its facts, and the second
figure is one thread beside one thread. Its floor is what the products of matrices in our steps take alone.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

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
from workers.training import one_thread, padded
from workers.tuning import TuningTask, tune
from workers.units import ProtocolOptions

SEEDS, POINTS, ROUNDS, WORKERS = range(10), 5, 5, 2
OPTIONS = ProtocolOptions(bootstrap=0, tuning_budget=POINTS)
#: Epochs and batch size are the router's defaults for both sides.
EPOCHS, BATCH = MLP().epochs, MLP().batch_size


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


def ours(rows: Path, seeds: Sequence[int], points: int = POINTS) -> list[list[float]]:
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
                options=replace(OPTIONS, tuning_budget=points),
            )
            for seed in seeds
        ]
        return [list(tuned.chosen["scores"]) for tuned in tune(tasks)]


def one_by_one(trial: Trial, config: dict[str, Any]) -> float:
    """Validation AUC of one configuration on one seed, a network per model."""
    found = [network(trial.train, model, trial.queries.X, config) for model in range(len(trial.train.models))]
    scores, costs = np.stack(found, axis=2).transpose(1, 0, 2)
    return both_areas(Prediction(scores=scores, costs=costs), *trial.held.outcomes, OPTIONS).auc_path


def network(train: Side, model: int, queries: Floats, config: dict[str, Any]) -> Floats:
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
    for parameter in net[-1].parameters():  # as in ours: a network starts at its model's mean outcomes
        torch.nn.init.zeros_(parameter)
    adam = torch.optim.Adam(net.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"])
    for _ in range(EPOCHS):
        for inputs, wanted in minibatches(X, y):
            adam.zero_grad()
            loss = ((net(inputs) - wanted) ** 2).mean(dim=0).sum()
            loss.backward()
            adam.step()
    with torch.no_grad():
        answer: Floats = net(torch.from_numpy(queries)).double().numpy() * deviation + mean
        return answer


def minibatches(X: torch.Tensor, y: torch.Tensor) -> Any:
    """Minibatches by a shuffled order; the last incomplete one is left out, as in ours."""
    order = torch.randperm(len(X))
    for start in range(0, len(X) - BATCH + 1, BATCH):
        some = order[start : start + BATCH]
        yield X[some], y[some]


def alternative(rows: Path, seeds: Sequence[int], threads: int, points: int = POINTS) -> list[list[float]]:
    """What `ours` gives, or its first `points` of each seed, one network after the other."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [[one_by_one(trials(rows)[seed], config) for config in configs(seed)[:points]] for seed in seeds]
    finally:
        torch.set_num_threads(before)


def configs(seed: int) -> list[dict[str, Any]]:
    """The rates and decays that `tune` tries."""
    rng = generator(0, "tuning", MLP.name, seed)
    return MLP.candidates(n_train=0, budget=POINTS, fixed={}, rng=rng)


def rows_file() -> Path:
    """MiniLM's rows, made at the first call."""
    if "ROADTEST_SHARED" not in os.environ or not table().exists():
        raise NotMeasuredError("no data/tables/routerbench_part under ROADTEST_SHARED")
    rows = Path(os.environ.get("TMPDIR", "/tmp")) / "bench_grid_minilm.npy"
    if not rows.exists():
        embedded(rows)
    return rows


def products(trainings: int, train: Side) -> None:
    """The products of matrices in our steps of so many trainings, and nothing else; one thread."""
    n_models, dim, hidden = len(train.models), train.X.shape[1], padded(MLP().hidden)
    inputs, of_wide = torch.rand(BATCH, dim), torch.rand(BATCH, n_models * hidden)
    first, second, third = (
        torch.rand(shape) for shape in ((dim, n_models * hidden), (n_models, hidden, hidden), (n_models, hidden, 2))
    )
    states, slopes = torch.rand(n_models, BATCH, hidden), torch.rand(n_models, BATCH, 2)
    with one_thread():
        for _ in range(trainings * EPOCHS * (train.n // BATCH)):
            for left, right in ((inputs, first), (states, second), (states, third)):
                left @ right
            for left, right in ((states.mT, slopes), (slopes, third.mT), (states.mT, states), (states, second.mT)):
                left @ right
            inputs.mT @ of_wide


class Round(NamedTuple):
    """What ten trainings took on each side, on two seeds."""

    workers: Measurement
    #: CPU seconds of the busiest worker.
    busiest: float
    one_thread: Measurement
    #: Wall seconds, and CPU seconds of the same run.
    loop: Measurement
    loop_cpu: Measurement
    #: With more threads, wall seconds.
    loop_threads: Measurement | None
    #: CPU seconds of the products of matrices alone.
    floor: float


def one_round(
    rows: Path,
    seeds: Sequence[int],
    workers: ProcessPoolExecutor,
    areas: dict[str, list[list[float]]],
    *,
    points: int,
    threads: int,
) -> Round:
    """Every side once; adds the areas that both found to `areas`."""
    trainings, busy, cpu = len(seeds) * points, list[float](), list[float]()

    def split() -> None:
        busy.extend(workers.map(cpu_of_ours, [rows] * len(seeds), [[seed] for seed in seeds], [points] * len(seeds)))

    def loop() -> None:
        begin = process_time()
        areas["one by one"] += alternative(rows, seeds, 1, points)
        cpu.append(process_time() - begin)

    one = measured(lambda: areas["ours"].extend(ours(rows, seeds, points)), process_time)
    two, by_loop = measured(split), measured(loop)
    by_threads = measured(partial(alternative, rows, seeds[:1], threads, points=1)) if threads > 1 else None
    return Round(
        workers=two,
        busiest=max(busy),
        one_thread=one,
        loop=by_loop,
        loop_cpu=replace(by_loop, value=cpu[0]),
        loop_threads=by_threads and replace(by_threads, value=trainings * by_threads.value),
        floor=measured(partial(products, trainings, trials(rows)[seeds[0]].train), process_time).value,
    )


def cpu_of_ours(rows: Path, seeds: Sequence[int], points: int) -> float:
    """CPU seconds of this process."""
    begin = process_time()
    ours(rows, seeds, points)
    return process_time() - begin


def figures(
    show: Callable[[Round], object] = lambda found: None, *, points: int = POINTS, threads: int | None = None
) -> list[Figure]:
    """Two workers beside the faster loop, by the wall clock, and one thread beside one thread, in CPU seconds.

    Args:
        show: Gets every round as soon as it is over.
        points: Configurations on each seed.
        threads: Of the second loop, by default torch's default; 1 leaves it out.
    """
    threads = threads or torch.get_num_threads()
    rows, rounds = rows_file(), list[Round]()
    areas: dict[str, list[list[float]]] = {"ours": [], "one by one": []}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as workers:
        list(workers.map(ours, [rows] * WORKERS, [[0]] * WORKERS))  # started and warm, as workers are
        ours(rows, [0], 1)
        for number in range(ROUNDS):
            pair = list(SEEDS)[WORKERS * number : WORKERS * (number + 1)]
            rounds.append(one_round(rows, pair, workers, areas, points=points, threads=threads))
            show(rounds[-1])
    ahead = (np.array(areas["ours"]) - np.array(areas["one by one"])).mean(axis=1)
    facts = {f"validation AUC, {name}": float(np.mean(found)) for name, found in areas.items()}
    facts["difference of validation AUC, standard error over seeds"] = float(ahead.std(ddof=1) / np.sqrt(len(ahead)))
    return summarised(rounds, threads, facts)


def summarised(rounds: Sequence[Round], threads: int, facts: Mapping[str, float]) -> list[Figure]:
    """Both figures of these rounds."""
    loops = {1: [each.loop for each in rounds], threads: [each.loop_threads or each.loop for each in rounds]}
    seconds = {number: median(run.value for run in runs) for number, runs in loops.items()}
    faster = min(seconds, key=lambda number: seconds[number])
    return [
        figure(
            "grid of mlp, two workers",
            ours=("2 seeds in two processes of one thread", [each.workers for each in rounds]),
            against=(f"a torch loop per network, {faster} threads", loops[faster]),
            wanted=5,
            facts={
                **{f"loop, {number} threads, s": value for number, value in seconds.items()},
                "busiest worker, CPU s": median(each.busiest for each in rounds),
                "loop's CPU s over the busiest worker's": median(each.loop_cpu.value / each.busiest for each in rounds),
            },
        ),
        figure(
            "grid of mlp, one thread",
            ours=("2 seeds", [each.one_thread for each in rounds]),
            against=("a torch loop per network, 1 thread", [each.loop_cpu for each in rounds]),
            unit="CPU s",
            facts={"products of matrices alone, CPU s": median(each.floor for each in rounds), **facts},
        ),
    ]


def show_round(found: Round) -> None:
    """Print its seconds, and the load."""
    seconds = {key: getattr(value, "value", value) for key, value in found._asdict().items()}
    line = {key: value and round(value, 2) for key, value in {**seconds, "load": os.getloadavg()[0]}.items()}
    print(json.dumps(line), flush=True)  # noqa: T201


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=POINTS, help="configurations on each seed")
    parser.add_argument("--threads", type=int, help="of the second loop; 1 leaves it out; default: torch's")
    asked, load = parser.parse_args(), os.getloadavg()[0]
    for found in figures(show_round, points=asked.points, threads=asked.threads):
        print(json.dumps(found.as_json(), indent=1), flush=True)  # noqa: T201
    print(json.dumps({"load before and after": [load, os.getloadavg()[0]]}))  # noqa: T201


if __name__ == "__main__":
    main()
