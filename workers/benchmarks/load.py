"""Which source reads this path or name?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from workers.benchmarks.base import Benchmark, embedded_sources
from workers.benchmarks.columns import column_names
from workers.benchmarks.logs import ReadOptions, find_format, log_formats, read_logs
from workers.benchmarks.pools import find_pool, keep_pool, match, reprice
from workers.benchmarks.prices import Prices
from workers.benchmarks.routerbench import KINDS, load_routerbench, models_of, wide_files
from workers.benchmarks.tables import find_table, load_tables
from workers.errors import BenchmarkError
from workers.plugins import nearest

#: Layouts that are no logs, by the name that `--format` knows them by; what they are.
LAYOUTS = {
    "tables": "a folder with queries.* and outcomes.* (parquet, csv or jsonl)",
    "routerbench-csv": "RouterBench's wide layout, a .csv or .parquet or a folder of them",
    "routerbench-pickle": "the same as a pickled data frame, read without running it",
}


def load_benchmark(
    name: str,
    *,
    path: Path | None = None,
    embed: str = "prompt",
    score: str | None = None,
    format: str | None = None,
    variant: str | None = None,
    prices: Path | None = None,
    scale: float = 1.0,
    pool: str | None = None,
) -> Benchmark:
    """The whole, unfiltered source, or its models of a pool.

    Args:
        name: Name of the source; without a path, that of an embedded benchmark or a plug-in's.
        path: Tables, RouterBench's wide CSV, or logs of an evaluation tool.
        embed: Column or field that encoders see.
        score: What holds the score: a column of the outcomes, a metric or scorer of logs; default the first choice.
        format: How to read the path; default: what it looks like.
        variant: Filter or other variant of an answer, of formats that have them.
        prices: Table of prices in USD per 1M tokens: of models without a cost, and of those whose costs are tokens
            times price.
        scale: Highest score of a log, such as 100 for percentages.
        pool: Named pool whose models are kept, at its prices where costs are tokens times price.

    Raises:
        BenchmarkError: Nothing of this name, nothing readable at this path, its content is at fault, or an option
            means nothing to it.
    """
    options = ReadOptions(
        score=score,
        embed=embed,
        variant=variant,
        prices=Prices.read(prices) if prices else None,
        scale=scale,
        pool=find_pool(pool) if pool else None,
    )
    if path is None:
        if format is not None:
            raise BenchmarkError(f"benchmark {name!r}: format {format!r} is of files; leave it out.")
        _refuse(f"benchmark {name!r}", options)
        return _at_prices(_load_embedded(name, embed, score), options)
    if not path.exists():
        raise BenchmarkError(f"{path}: no such file or folder.")
    layout = _layout(path, format)
    if layout == "tables":
        _refuse(str(path), options)
        return _at_prices(load_tables(path, name=name, embed=embed, score=score or "score"), options)
    if layout.startswith("routerbench-"):
        if score not in (None, "score"):
            raise BenchmarkError(f"{path}: no score {score!r}; RouterBench's wide layout has one score per model.")
        _refuse(str(path), options)
        return _at_prices(load_routerbench(path, name=name, embed=embed), options)
    return read_logs(path, log_formats()[layout], name=name, options=options)


def _layout(path: Path, format: str | None) -> str:
    """One of `LAYOUTS` or the name of a log format."""
    if format is not None:
        if format not in LAYOUTS and format not in log_formats():
            raise BenchmarkError(f"unknown format {format!r}; {nearest(format, [*LAYOUTS, *log_formats()])}")
        return format
    if path.is_dir() and (find_table(path, "queries") or find_table(path, "outcomes")):
        return "tables"
    files = [file for file in wide_files(path) if file.suffix != ".pkl"]
    if any(models_of(_header(file)) for file in files):
        return "routerbench-csv"
    if (cls := find_format(path)) is not None:
        return cls.name
    if files:
        return "routerbench-csv"  # whose reader says what it looked for
    if wide_files(path):
        return "routerbench-pickle"
    logs = "; ".join(f"{name} ({cls.summary})" for name, cls in log_formats().items())
    raise BenchmarkError(
        f"{path}: no benchmark here. Looked for a folder with queries.* and outcomes.* (parquet, csv or jsonl), "
        f"for a {', '.join(KINDS)} file or a folder of them in RouterBench's wide layout, and for logs of {logs}."
    )


def _header(file: Path) -> tuple[str, ...]:
    try:
        return column_names(file)
    except BenchmarkError:  # whoever reads it says so
        return ()


def _refuse(where: str, options: ReadOptions) -> None:
    """Refuse options that only logs have."""
    if options.variant is not None:
        raise BenchmarkError(f"{where}: variant {options.variant!r} is of logs that have variants; leave it out.")
    if options.scale != 1:
        raise BenchmarkError(f"{where}: scale {options.scale:g} is of logs; scores here are within [0, 1] already.")


def _at_prices(benchmark: Benchmark, options: ReadOptions) -> Benchmark:
    """The pool's models, and costs at other prices where they were tokens times price."""
    if options.pool is not None:
        names = [model.name for model in benchmark.models]
        benchmark = keep_pool(benchmark, match(options.pool, names, f"benchmark {benchmark.name!r}"))
    if options.prices is None:
        return benchmark
    benchmark, repriced = reprice(benchmark, options.prices.find)
    if not repriced:
        raise BenchmarkError(
            f"benchmark {benchmark.name!r}: {options.prices.source} changes no cost: it names none of the models, or "
            "their costs are not tokens (input_tokens, output_tokens) times a recorded price; leave --prices out."
        )
    report = {"source": options.prices.source, "models": repriced}
    return replace(benchmark, meta={**benchmark.meta, "repriced": report})


def _load_embedded(name: str, embed: str, score: str | None) -> Benchmark:
    sources = embedded_sources()
    if name not in sources:
        raise BenchmarkError(
            f"no embedded benchmark {name!r}; {nearest(name, list(sources))} A benchmark of files needs a path."
        )
    benchmark = sources[name]().load()
    if embed not in ("prompt", benchmark.embedded):
        raise BenchmarkError(f"benchmark {name!r}: no column {embed!r} to embed (columns: {benchmark.embedded}).")
    if score not in (None, "score"):
        raise BenchmarkError(f"benchmark {name!r}: no score {score!r} (scores: score).")
    return benchmark
