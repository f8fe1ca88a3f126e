"""How much faster does an index of inverted lists find neighbours than the exact search, and how many does it miss?

    python -m tests.benchmarks.bench_index [--rows 200000] [--nprobe 8 32 128] [--k 10] [--noise 1.0] [--json FILE]

A thousand queries among so many rows of 384 dimensions, both drawn from one mixture of Gaussians: a component for each
fifty rows, `--noise` its standard deviation in each dimension when that of the centres is 1. The search alone, CPU
seconds on one thread, the index built once; recall is measured as it is stored with a result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from orchestrator.environment import facts
from tests.benchmarks.measuring import high_water
from workers.benchmarks.base import Model
from workers.routers.base import Side
from workers.routers.inverted_lists import InvertedLists, recall
from workers.routers.neighbours import Search, nearest
from workers.routers.shortlists import Floats32

DIM, QUERIES, PER_COMPONENT = 384, 1000, 50
#: Rows that are drawn at once.
DRAWN = 65_536


def mixture(n: int, n_components: int, noise: float, rng: np.random.Generator) -> Floats32:
    """Unit rows of a mixture whose centres the first draws of the generator are. [n, DIM]."""
    centres = np.random.default_rng(0).standard_normal((n_components, DIM), dtype=np.float32)
    rows = np.empty((n, DIM), dtype=np.float32)
    for start in range(0, n, DRAWN):
        part = rows[start : start + DRAWN]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= noise
        part += centres[rng.integers(n_components, size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def side(rows: Floats32) -> Side:
    """A side of these rows and nothing else."""
    places = np.arange(len(rows))
    return Side(
        rows=places, matrix=rows, embedding_rows=places, tasks=(), groups=places, models=(Model(name="m"),)
    )  # fmt: skip


def measured(n: int, nprobes: Sequence[int], k: int, noise: float) -> dict[str, Any]:
    """Seconds of the exact search, of building the index and of searching it at each nprobe, with the recall."""
    rng, n_components = np.random.default_rng(1), max(1, n // PER_COMPONENT)
    train = side(mixture(n, n_components, noise, rng))
    search = Search(similarity="cosine", train=train, queries=side(mixture(QUERIES, n_components, noise, rng)), k=k)
    begin = process_time()
    for _ in nearest([search]):
        pass
    exact, begin = process_time() - begin, process_time()
    lists = InvertedLists(train, "cosine")
    found: dict[str, Any] = {"rows": n, "k": k, "noise": noise, "exact_s": exact, "build_s": process_time() - begin}
    found |= {"nlist": lists.nlist, "index_mb": lists.n_bytes / 1e6, "nprobe": {}}
    for nprobe in nprobes:
        similarity = np.empty((QUERIES, k), dtype=np.float32)
        begin = process_time()
        for part in lists.search(search.queries, k, nprobe):
            similarity[part.rows] = part.similarity
        seconds = process_time() - begin
        found["nprobe"][nprobe] = {"s": seconds, "times": exact / seconds, "recall": recall(search, similarity)}
    return {**found, "peak_mb": high_water() / 1e6}


def main() -> None:
    """Print the figures and, if asked, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--nprobe", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with threadpool_limits(limits=1):
        found = measured(asked.rows, asked.nprobe, asked.k, asked.noise)
    sys.stdout.write(f"{json.dumps(found)}\n")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": facts(), "found": found}, indent=1))


if __name__ == "__main__":
    main()
