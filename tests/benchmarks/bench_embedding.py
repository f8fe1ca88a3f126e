"""How fast is embedding, against SentenceTransformer.encode on the same texts in the same run?

`python -m tests.benchmarks.bench_embedding [N]` embeds the first N (default 2000) prompts of RouterDC, in the order of
their hashes, with MiniLM: by one call of `SentenceTransformer.encode` with its defaults, which may use every core, and
by roadtest's slices on as many worker processes of one thread as there are cores, in float32 and with the fast
settings. Models are loaded beforehand. The three alternate, so that what else the machine does falls on all; medians
of the rounds are printed. Needs ROADTEST_SHARED (default ../shared); without it, prompts of the embedded toolbox.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from workers.artifacts import ArtifactStore
from workers.benchmarks.base import Benchmark
from workers.benchmarks.load import load_benchmark
from workers.embed import embed_slice, embedding_digest, slice_bounds, unique_inputs
from workers.encoders.base import Input, make_encoder
from workers.units import EmbedUnit

ROUNDS = 3
FAST = {"dtype": "bfloat16"}


def prompts(n: int) -> Benchmark:
    """A benchmark of n prompts, duplicates included."""
    path = Path(os.environ.get("ROADTEST_SHARED", "../shared")) / "data" / "tables" / "routerdc"
    whole = load_benchmark("routerdc", path=path) if path.exists() else load_benchmark("toolbox")
    order = sorted(whole.queries, key=lambda query: hashlib.sha256(query.encode()).hexdigest())
    return whole.restrict(without=set(order[n:]))


def _slice(store: str, unit: EmbedUnit, inputs: Sequence[Input]) -> int:
    return embed_slice(unit, inputs, ArtifactStore(store)).n_rows


def slices(pool: ProcessPoolExecutor, benchmark: Benchmark, store: str, params: dict[str, Any]) -> int:
    """Embed every slice on the pool as a run's workers do; number of rows written."""
    found = unique_inputs(benchmark, "text")
    digest = embedding_digest(make_encoder("minilm", params).recipe(), found.digest)
    jobs = [
        pool.submit(
            _slice,
            store,
            EmbedUnit(key=f"{start}", embedding=digest, encoder="minilm", params=params, start=start, stop=stop),
            found.inputs[start:stop],
        )
        for start, stop in slice_bounds(len(found.inputs), 64)
    ]
    return sum(job.result() for job in jobs)


def main() -> None:
    """Print texts per second and ratios."""
    from sentence_transformers import SentenceTransformer

    benchmark = prompts(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    cores = os.cpu_count() or 1
    model = SentenceTransformer(str(make_encoder("minilm").folder), device="cpu")  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder, _pool(cores) as plain, _pool(cores) as fast:
        work: dict[str, Callable[[], object]] = {
            "SentenceTransformer.encode": lambda: model.encode(list(benchmark.texts)),
            "roadtest, float32": lambda: slices(plain, benchmark, folder, {}),
            "roadtest, bfloat16": lambda: slices(fast, benchmark, folder, FAST),
        }
        few = benchmark.restrict(n_queries=min(400, benchmark.n_queries))
        model.encode(list(few.texts))  # every process loads its model before the clock runs
        slices(plain, few, folder, {})
        slices(fast, few, folder, FAST)
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, run in work.items():
                begin = perf_counter()
                run()
                taken[name].append(perf_counter() - begin)
    write = sys.stdout.write
    write(
        f"{benchmark.n_queries} texts, {np.mean([len(text) for text in benchmark.texts]):.0f} characters on average, "
    )
    write(f"{cores} cores\n{'':<30}{'texts/s':>9}{'ratio':>8}\n")
    base = statistics.median(taken["SentenceTransformer.encode"])
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        write(f"{name:<30}{benchmark.n_queries / median:>9.0f}{base / median:>8.2f}\n")


def _pool(cores: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(cores, mp_context=get_context("spawn"))


if __name__ == "__main__":
    main()
