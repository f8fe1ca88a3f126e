"""Which source reads this path or name?"""

from __future__ import annotations

from pathlib import Path

from workers.benchmarks.base import Benchmark, embedded_sources
from workers.benchmarks.routerbench import load_routerbench
from workers.benchmarks.tables import find_table, load_tables
from workers.errors import BenchmarkError
from workers.plugins import nearest


def load_benchmark(name: str, *, path: Path | None = None, embed: str = "prompt", score: str = "score") -> Benchmark:
    """The whole, unfiltered source.

    Args:
        name: Name of the source; without a path, that of an embedded benchmark or a plug-in's.
        path: A folder with queries.* and outcomes.*, or a CSV file or folder of CSVs in RouterBench's wide layout.
        embed: Column that encoders see.
        score: Column of the outcomes that holds the score; the tables layout alone has a choice.

    Raises:
        BenchmarkError: Nothing of this name, nothing readable at this path, or its content is at fault.
    """
    if path is None:
        return _load_embedded(name, embed, score)
    if not path.exists():
        raise BenchmarkError(f"{path}: no such file or folder.")
    if path.is_dir() and (find_table(path, "queries") or find_table(path, "outcomes")):
        return load_tables(path, name=name, embed=embed, score=score)
    if path.suffix == ".csv" or (path.is_dir() and any(path.glob("*.csv"))):
        if score != "score":
            raise BenchmarkError(f"{path}: no score {score!r}; RouterBench's wide layout has one score per model.")
        return load_routerbench(path, name=name, embed=embed)
    raise BenchmarkError(
        f"{path}: no benchmark here. Looked for a folder with queries.* and outcomes.* (parquet, csv or jsonl), "
        "and for a .csv file or a folder of them in RouterBench's wide layout."
    )


def _load_embedded(name: str, embed: str, score: str) -> Benchmark:
    sources = embedded_sources()
    if name not in sources:
        raise BenchmarkError(
            f"no embedded benchmark {name!r}; {nearest(name, list(sources))} A benchmark of files needs a path."
        )
    benchmark = sources[name]().load()
    if embed not in ("prompt", benchmark.embedded):
        raise BenchmarkError(f"benchmark {name!r}: no column {embed!r} to embed (columns: {benchmark.embedded}).")
    if score != "score":
        raise BenchmarkError(f"benchmark {name!r}: no score {score!r} (scores: score).")
    return benchmark
