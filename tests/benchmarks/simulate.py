"""How would 10⁵ units run on 1 to 256 nodes? A simulation of the coordinator's loop, from measured costs.

    python -m tests.benchmarks.simulate                      # measure the coordinator, check, simulate
    python -m tests.benchmarks.simulate --db sqlite:///x.db  # units as long as those that this database holds

What is assumed: the coordinator is one server, which spends the same time on every unit of a shard (cutting, sending,
taking, committing) and on every shard; workers are alike, and hold two shards at most; shards are cut by the product's
own rule; no worker dies, embeddings are there, and bytes on the network cost nothing. What is measured: what a unit and
a shard cost the coordinator, from null units in large and in small shards; and, at the small end, real runs on clusters
of 1 to 3 nodes with a CPU each (raylets on loopback addresses; their units wait, as one machine has few cores), beside
what the simulation says of them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.environment import facts
from orchestrator.executors.base import IN_FLIGHT
from orchestrator.shards import Pace, evenly, shard_size
from orchestrator.store import open_store
from tests.benchmarks.bench_orchestration import run_units
from tests.cluster.head import joined, ray_head

NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CORES = 2
UNITS = 100_000


@dataclass(frozen=True)
class Costs:
    """What the coordinator spends, in seconds."""

    per_unit: float
    per_shard: float


def simulate(seconds: Sequence[float], workers: int, costs: Costs, families: int = 100) -> float:
    """Wall seconds of a sweep.

    Args:
        seconds: Of every unit, in the order of the plan. [n]
        workers: That compute at the same time.
        costs: Of the coordinator.
        families: Runs of units that may share a shard: a benchmark, an embedding, a router.
    """
    waiting = deque(
        list(seconds[a:b]) for a, b in pairwise(np.linspace(0, len(seconds), families + 1).astype(int)) if b > a
    )
    free = np.zeros(workers)  # when a worker will have done all that it holds
    held = np.zeros(workers, dtype=int)
    reports: list[tuple[float, int, int]] = []
    now = 0.0  # the coordinator's clock
    typical = float(np.mean(seconds))

    def send() -> None:
        nonlocal now
        while waiting:
            worker = int(np.lexsort((free, held))[0])  # holds the fewest shards, and is done with them first
            if held[worker] >= IN_FLIGHT:
                return
            units = waiting[0]
            most = shard_size(Pace(), typical, waiting=sum(map(len, waiting)), workers=workers)
            size = evenly(len(units), most)
            shard, waiting[0] = units[:size], units[size:]
            if not waiting[0]:
                waiting.popleft()
            now += costs.per_shard
            free[worker] = max(free[worker], now) + sum(shard)
            held[worker] += 1
            heapq.heappush(reports, (free[worker], worker, size))

    send()
    while reports:
        done, worker, size = heapq.heappop(reports)
        now = max(now, done) + costs.per_unit * size
        held[worker] -= 1
        send()
    return now


def measured(folder: str, units: int) -> Costs:
    """What a unit and a shard cost the coordinator, from null units in large and in single shards."""
    large = run_units(_fresh(folder), "large", units)
    single = run_units(_fresh(folder), "single", units // 10, pace=Pace(shard_units=1, first_units=1))
    per_unit = large["run"] / large["units"]
    return Costs(per_unit=per_unit, per_shard=max(single["run"] / single["units"] - per_unit, 0.0))


def check(folder: str, costs: Costs) -> list[dict[str, float]]:
    """Real runs of units that wait, on 1 to 3 nodes of one CPU, beside the simulation."""
    found = []
    for nodes in (1, 2, 3):
        with cluster(nodes) as address:
            real = run_units(_fresh(folder), "wait", 100 * nodes, "wait", 0.1, workers=nodes, address=address)
        said = simulate([0.1] * int(real["units"]), nodes, costs, families=1)
        found.append({"nodes": nodes, "real": real["run"], "simulated": said, "ratio": said / real["run"]})
    return found


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Address of a Ray cluster of our own with so many nodes of one CPU, each on a loopback address."""
    import ray

    with ray_head() as head, ExitStack() as stack:
        for i in range(1, nodes):
            stack.enter_context(joined(head, f"127.0.0.{2 + i}"))
        stack.callback(ray.shutdown)  # a run leaves a cluster by its end, and so would this process have to
        yield head.address


def unit_seconds(url: str | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """10⁵ durations: of the evaluations in a database, repeated in their order, or 100 ms each."""
    if url is None:
        return np.full(UNITS, 0.1)
    with open_store(url) as store:
        rows = store.query(
            lambda session: session.rows(
                "SELECT seconds FROM unit WHERE state = 'done' AND kind = 'evaluate' AND seconds > 0 ORDER BY id"
            )
        )
    if not rows:
        sys.exit(f"{url} holds no evaluation that is done; run a sweep into it first.")
    return np.resize(np.array([row["seconds"] for row in rows]), UNITS)


def _fresh(folder: str) -> str:
    return f"sqlite:///{tempfile.mkdtemp(dir=folder)}/simulate.db"


def main() -> None:
    """Print the curve and, if asked, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", help="take the durations of its units")
    parser.add_argument("--units", type=int, default=20_000, help="null units to measure with")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds = unit_seconds(options.db)
    with tempfile.TemporaryDirectory(prefix="rt-simulate-") as folder:
        os.environ["ROADTEST_HOME"] = folder
        costs = measured(folder, options.units)
        checked = check(folder, costs)
    say = sys.stdout.write
    say(f"coordinator: {costs.per_unit * 1e3:.3f} ms a unit, {costs.per_shard * 1e3:.2f} ms a shard\n")
    for row in checked:
        say(f"{row['nodes']} nodes of one CPU: {row['real']:.1f} s, simulated {row['simulated']:.1f} s\n")
    say(f"{UNITS} units, {seconds.mean():.3f} s on average, {CORES} cores a node\n")
    curve = []
    for nodes in NODES:
        wall = simulate(seconds, nodes * CORES, costs)
        share = float(seconds.sum()) / (wall * nodes * CORES)
        curve.append({"nodes": nodes, "wall": wall, "share_of_ideal": share})
        say(f"{nodes:4d} nodes: {wall:9.1f} s, {share:.1%} of ideal\n")
    if options.json:
        answer = {"machine": facts(), "costs": vars(costs), "check": checked, "curve": curve}
        options.json.write_text(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
