"""How fast is embedding, against SentenceTransformer.encode on the same texts in the same run?

`python -m tests.benchmarks.bench_embedding [N]` embeds the first N (default 2000) prompts of RouterDC, in the order of
their hashes, with MiniLM: by one call of `SentenceTransformer.encode` with its defaults, which may use every core, and
by roadtest's slices on as many worker processes of one thread as there are cores, in float32 and with the fast
settings. The two sides alternate, so that what else the machine does falls on both; the first round, in which models
are loaded, does not count. Needs ROADTEST_SHARED (default ../shared); without it, prompts of the embedded toolbox.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import Figure, compared
from workers.artifacts import ArtifactStore
from workers.benchmarks.base import Benchmark
from workers.benchmarks.load import load_benchmark
from workers.embed import embed_slice, embedding_digest, slice_bounds, unique_inputs
from workers.encoders.base import Input, make_encoder
from workers.units import EmbedUnit

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


def figures(n: int = 2000) -> list[Figure]:
    """Texts embedded in float32 and with the fast settings, against one call with sentence-transformers' defaults."""
    from sentence_transformers import SentenceTransformer

    benchmark = prompts(n)
    cores = os.cpu_count() or 1
    model = SentenceTransformer(str(make_encoder("minilm").folder), device="cpu")  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        found = []
        settings: dict[str, dict[str, Any]] = {"float32": {}, "bfloat16": FAST}
        for dtype, params in settings.items():
            with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
                found.append(
                    compared(
                        f"embedding, {dtype}",
                        ours=(f"{cores} workers of one thread", partial(slices, pool, benchmark, folder, params)),
                        against=("SentenceTransformer.encode", partial(model.encode, list(benchmark.texts))),
                        facts={"texts": benchmark.n_queries},
                    )
                )
    return found


def main() -> None:
    """Print texts per second and ratios."""
    for found in figures(int(sys.argv[1]) if len(sys.argv) > 1 else 2000):
        n = found.facts["texts"]
        sys.stdout.write(
            f"{found.name}: {n / found.ours_value:.0f} texts/s, {found.against} {n / found.against_value:.0f}, "
            f"ratio {found.ratio:.2f}\n"
        )


if __name__ == "__main__":
    main()
