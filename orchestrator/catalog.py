"""Where do a sweep's benchmarks and encoders come from? Files, imports, embedded sources, packages."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.errors import SweepError
from orchestrator.fetching import find_suite, suite_folder
from orchestrator.sweep import BenchmarkEntry, EncoderEntry, Sweep, find_path
from workers.benchmarks.base import Benchmark, embedded_sources
from workers.benchmarks.images import bad_images
from workers.benchmarks.load import load_benchmark
from workers.encoders.base import Encoder, make_encoder
from workers.plugins import nearest

log = logging.getLogger("roadtest.catalog")

#: Queries left out that are named one by one.
_NAMED = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedBenchmark:
    """One benchmark as a sweep evaluates it."""

    #: Display name: the entry's, with `/<task>` for a single task.
    name: str
    #: The single task, None for several together.
    task: str | None
    benchmark: Benchmark
    #: What is embedded: all queries of the source (or of its nested subsample), so that tasks and pools share rows.
    source: Benchmark


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedEncoder:
    """One encoder under its display name."""

    name: str
    entry: EncoderEntry
    encoder: Encoder


def imported_folder(home: Path) -> Path:
    """Where imported benchmarks lie."""
    return home / "benchmarks"


def imported_names(home: Path) -> list[str]:
    """Names of imported benchmarks."""
    folder = imported_folder(home)
    return (
        sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if folder.is_dir()
        else []
    )


def fetched_path(entry: BenchmarkEntry, *, home: Path) -> Path:
    """Where an entry's published suite lies, once `benchmarks fetch` has brought it; `path` is inside of it."""
    suite = find_suite(str(entry.fetch))
    return suite_folder(home, suite.name) / (entry.path or suite.path)


def source_name(path: Path) -> str:
    """Name of the source at a path: the default of its suite, so that a display name is part of no key."""
    return path.absolute().stem if path.is_file() else path.absolute().name


def load_source(entry: BenchmarkEntry, *, home: Path, beside: Path | None) -> Benchmark:
    """The whole source of an entry: its path, an import of that name, or an embedded benchmark.

    Raises:
        SweepError: Nothing of this name or path.
        BenchmarkError: Its content is at fault.
    """
    prices = find_path(entry.prices, beside=beside, key="prices") if entry.prices else None
    read = partial(
        load_benchmark,
        embed=entry.embed,
        score=entry.score,
        format=entry.format,
        variant=entry.variant,
        prices=prices,
        scale=entry.scale,
        pool=entry.pool,
    )
    if entry.fetch is not None:
        path = fetched_path(entry, home=home)
        return _decodable(entry, read(entry.fetch, path=path))
    if entry.path is not None:
        path = find_path(entry.path, beside=beside)
        return _decodable(entry, read(source_name(path), path=path))
    imported = imported_names(home)
    if entry.name in imported:
        return _decodable(entry, read(entry.name, path=imported_folder(home) / entry.name))
    embedded = list(embedded_sources())
    if entry.name not in embedded:
        raise SweepError(
            f"unknown benchmark {entry.name!r}; {nearest(entry.name, embedded + imported)} "
            "Give `path:` to read files, or import it: `roadtest benchmarks import DIR --name NAME`."
        )
    return read(entry.name)


def _decodable(entry: BenchmarkEntry, source: Benchmark) -> Benchmark:
    """The source, without queries whose image cannot be decoded where the entry asks for that."""
    if entry.bad_images == "refuse":
        return source
    bad = bad_images(source)
    for reason in list(bad.values())[:_NAMED]:
        log.warning("benchmark %s: left out: %s", entry.name, reason)
    if bad:
        log.warning("benchmark %s: %d queries left out for their images", entry.name, len(bad))
    report = {"n": len(bad), "such_as": list(bad.values())[:_NAMED]}
    return replace(source.restrict(without=bad), meta={**source.meta, "bad_images": report})


def load_benchmarks(sweep: Sweep, *, home: Path, beside: Path | None) -> list[EvaluatedBenchmark]:
    """Every benchmark that a sweep evaluates, in the file's order, tasks sorted before their whole.

    Raises:
        SweepError: Nothing of this name or path.
        BenchmarkError: Content or filters at fault.
    """
    found: list[EvaluatedBenchmark] = []
    absent: list[str] = []
    for entry in sweep.benchmarks:
        if entry.fetch is not None and not fetched_path(entry, home=home).exists():
            absent.append(find_suite(entry.fetch).command)
            log.warning("benchmark %s skipped: it is not on disk; to get it: %s", entry.name, absent[-1])
            continue
        source = load_source(entry, home=home, beside=beside)
        if entry.queries is not None:
            source = source.restrict(n_queries=entry.queries)
        whole = source.restrict(name=entry.name, models=entry.models, family=entry.family)
        shifts = sweep.study is not None and sweep.study.kind == "shift"
        found += _by_shift(entry, whole, source) if shifts else _by_task(entry, whole, source)
    if not found:
        raise SweepError(f"none of the benchmarks is on disk; to get them: {'; '.join(dict.fromkeys(absent))}.")
    return found


def _by_task(entry: BenchmarkEntry, whole: Benchmark, source: Benchmark) -> list[EvaluatedBenchmark]:
    def one(benchmark: Benchmark, task: str | None) -> EvaluatedBenchmark:
        return EvaluatedBenchmark(name=benchmark.name, task=task, benchmark=benchmark, source=source)

    if isinstance(entry.tasks, list):
        return [one(whole.restrict(tasks=entry.tasks), entry.tasks[0] if len(entry.tasks) == 1 else None)]
    each = []
    if entry.tasks in ("each", "each+all"):
        tasks = sorted(set(whole.tasks) - {""})
        if not tasks:
            raise SweepError(
                f"benchmark {entry.name!r}: `tasks: {entry.tasks}`, but its queries name no task; add a column `task`, "
                "or write `tasks: all`."
            )
        each = [one(whole.restrict(name=f"{entry.name}/{task}", tasks=[task]), task) for task in tasks]
    return each if entry.tasks == "each" else [*each, one(whole, None)]


def _by_shift(entry: BenchmarkEntry, whole: Benchmark, source: Benchmark) -> list[EvaluatedBenchmark]:
    """Every pair of tasks, all with the same number of training queries: half of the smallest task.

    About 70 % of a task's queries are on the training side, so that half of the smallest is there on every split.
    """
    if isinstance(entry.tasks, list):
        whole = whole.restrict(tasks=entry.tasks)
    sizes = Counter(task for task in whole.tasks if task)
    if len(sizes) < 2:
        raise SweepError(f"benchmark {entry.name!r}: `study: shift` needs two tasks or more; it has {len(sizes)}.")
    n_train = min(sizes.values()) // 2
    return [
        EvaluatedBenchmark(
            name=f"{entry.name}/{trained_on}→{tested_on}",
            task=tested_on,
            benchmark=whole.shifted(
                f"{entry.name}/{trained_on}→{tested_on}", trained_on=trained_on, tested_on=tested_on, n_train=n_train
            ),
            source=source,
        )
        for tested_on in sorted(sizes)
        for trained_on in sorted(sizes)
    ]


def load_encoders(entries: Sequence[EncoderEntry]) -> list[NamedEncoder]:
    """Make a sweep's encoders.

    Raises:
        EncoderError: Unknown encoder or parameter.
    """
    return [
        NamedEncoder(name=entry.name, entry=entry, encoder=make_encoder(entry.target, entry.params))
        for entry in entries
    ]
