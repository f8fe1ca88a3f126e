"""How long do two ways of doing one thing take, side by side, and how much memory does each need?

The two alternate, so that what else the machine does falls on both.
"""

from __future__ import annotations

import gc
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any

import psutil

from tests.benchmarks.memory import pss

#: Runs of each side, unless one is too slow for more than one.
RUNS = 5
#: Seconds between two samples of the memory of child processes, and of their CPU, which is cheaper to ask for.
EVERY, EVERY_CPU = 1.0, 0.5
#: Share of a core that sampling memory may take where time is measured: it is done less often instead.
SAMPLING = 0.01

Work = Callable[[], object]
Clock = Callable[[], float]


class NotMeasuredError(Exception):
    """What a benchmark needs is not on this machine; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One run of one side."""

    #: Seconds, or what else the figure is about; less is better.
    value: float
    #: Bytes at the peak, this process and its children together.
    peak: int


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One ratio: how many times less than a named alternative in the same run."""

    #: Unique among all benchmarks: the history is kept by it.
    name: str
    ours: str
    against: str
    #: Of both values: `s` of the wall clock, `CPU s`, `MB`.
    unit: str
    #: Medians of each side.
    ours_value: float
    against_value: float
    #: The alternative's value over ours: the median of the rounds' ratios; where the alternative ran in fewer rounds,
    #: its median over each of our runs.
    ratio: float
    lowest: float
    highest: float
    #: Runs of each side that were counted.
    runs: tuple[int, int]
    #: Bytes at the peak of each side.
    ours_peak: int
    against_peak: int
    #: The ratio that the project aims at, if any.
    wanted: float | None = None
    #: Other facts: sizes, differences of areas.
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON values, numbers to four digits."""
        return {key: _short(value) for key, value in asdict(self).items()}


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_short(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def figure(
    name: str,
    *,
    ours: tuple[str, Sequence[Measurement]],
    against: tuple[str, Sequence[Measurement]],
    unit: str = "s",
    wanted: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Figure:
    """A figure of runs that were made, ours and the alternative's of a round at the same position.

    Args:
        name: Of the figure.
        ours: What it is, and its runs.
        against: The alternative, and its runs: as many as ours, or fewer.
        unit: Of the values.
        wanted: The ratio aimed at.
        facts: To be kept beside the figure.
    """
    mine, theirs = ([run.value for run in runs] for _, runs in (ours, against))
    typical = statistics.median(theirs)
    ratios = [b / a for a, b in zip(mine, theirs if len(theirs) == len(mine) else [typical] * len(mine), strict=True)]
    return Figure(
        name=name,
        ours=ours[0],
        against=against[0],
        unit=unit,
        ours_value=statistics.median(mine),
        against_value=typical,
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        runs=(len(mine), len(theirs)),
        ours_peak=max(run.peak for run in ours[1]),
        against_peak=max(run.peak for run in against[1]),
        wanted=wanted,
        facts=facts or {},
    )


def compared(
    name: str,
    *,
    ours: tuple[str, Work],
    against: tuple[str, Work],
    cpu: bool = False,
    runs: int = RUNS,
    wanted: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Figure:
    """Run two ways in turns, after one run of each that is not counted.

    Args:
        name: Of the figure.
        ours: What it is, and the work.
        against: The alternative.
        cpu: Measure this process's CPU, which other work on the machine disturbs little, instead of the wall clock;
            for sides of one thread.
        runs: Rounds.
        wanted: The ratio aimed at.
        facts: To be kept beside the figure.
    """
    ours[1]()
    against[1]()
    clock, unit = (process_time, "CPU s") if cpu else (perf_counter, "s")
    mine, theirs = [], []
    for _ in range(runs):
        mine.append(measured(ours[1], clock))
        theirs.append(measured(against[1], clock))
    return figure(name, ours=(ours[0], mine), against=(against[0], theirs), unit=unit, wanted=wanted, facts=facts)


def measured(work: Work, clock: Clock = perf_counter) -> Measurement:
    """Seconds of some work, and bytes at its peak."""

    def seconds() -> float:
        begin = clock()
        work()
        return clock() - begin

    return observed(seconds)


def measured_cpu(work: Work) -> tuple[Measurement, float]:
    """The same by the wall clock, and CPU seconds of this process and all below it.

    Sampled: Ray's workers end without anyone who waits for them, so the kernel adds their seconds to nobody's. What a
    process used after the last look at it, a fraction of a second, is missing.
    """
    used: dict[psutil.Process, float] = {}
    begin, ended = process_time(), threading.Event()

    def sample() -> None:
        me = psutil.Process()
        while not ended.wait(EVERY_CPU):
            for process in me.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    used[process] = times.user + times.system

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        found = measured(work)
    finally:
        ended.set()
        sampler.join()
    return found, process_time() - begin + sum(used.values())


def observed(work: Callable[[], float], sampling: float = SAMPLING) -> Measurement:
    """What some work says that it took, and bytes at the peak of this process and its children together."""
    gc.collect()
    with peak_of_tree(sampling) as peak:
        value = work()
    return Measurement(value=value, peak=peak[0])


@contextmanager
def peak_of_tree(sampling: float) -> Iterator[list[int]]:
    """A list whose one number is the peak in bytes once the block has ended.

    This process's own is the kernel's high-water mark of the resident set, reset beforehand; that of its children is
    their summed proportional set size, sampled. The sum of both peaks is at least the peak of the sum.
    """
    found, children, ended = [0], [0], threading.Event()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: proc(5)

    def sample() -> None:
        me, took = psutil.Process(), 0.0
        while not ended.wait(max(EVERY, took / sampling)):
            begin = thread_time()
            children[0] = max(children[0], sum(pss(child) for child in me.children(recursive=True)))
            took = thread_time() - begin

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield found
    finally:
        ended.set()
        sampler.join()
        found[0] = high_water() + children[0]


def high_water() -> int:
    """Bytes of this process's resident set at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status lacks VmHWM")
