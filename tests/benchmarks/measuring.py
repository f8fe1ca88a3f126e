"""How long do two ways of doing one thing take, side by side, and how much memory does each need?

The two alternate, so that what else the machine does falls on both. Seconds are of the wall clock.
"""

from __future__ import annotations

import gc
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

from tests.benchmarks.memory import pss

#: Runs of each side, unless one is too slow for more than one.
RUNS = 5
#: Seconds between two samples of the memory of child processes.
EVERY = 0.5

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One ratio: how many times faster than a named alternative in the same run."""

    #: Unique among all benchmarks: the history is kept by it.
    name: str
    ours: str
    against: str
    #: Median seconds of each side.
    ours_seconds: float
    against_seconds: float
    #: Seconds of the alternative over ours: the median of the rounds' ratios; where the alternative ran in fewer
    #: rounds, its median over each of our runs.
    ratio: float
    lowest: float
    highest: float
    #: Runs of each side that were counted.
    runs: tuple[int, int]
    #: Bytes at the peak, all processes of a side together.
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
    return float(f"{value:.4g}") if isinstance(value, float) else value


def compared(
    name: str,
    *,
    ours: tuple[str, Work],
    against: tuple[str, Work],
    runs: int = RUNS,
    against_runs: int | None = None,
    wanted: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Figure:
    """Run two ways in turns, after one run of each that is not counted.

    Args:
        name: Of the figure.
        ours: What it is, and the work.
        against: The alternative.
        runs: Rounds.
        against_runs: In how many of them the alternative runs; if not in all, it is not warmed up either.
        wanted: The ratio aimed at.
        facts: To be kept beside the figure.
    """
    slow_runs = runs if against_runs is None else against_runs
    paired = slow_runs == runs
    ours[1]()
    if paired:
        against[1]()
    mine: list[tuple[float, int]] = []
    theirs: list[tuple[float, int]] = []
    for number in range(runs):
        mine.append(measured(ours[1]))
        if number < slow_runs:
            theirs.append(measured(against[1]))
    ours_seconds, against_seconds = (statistics.median(seconds for seconds, _ in side) for side in (mine, theirs))
    slow = [seconds for seconds, _ in theirs] if paired else [against_seconds] * runs
    ratios = [b / a for (a, _), b in zip(mine, slow, strict=True)]
    return Figure(
        name=name,
        ours=ours[0],
        against=against[0],
        ours_seconds=ours_seconds,
        against_seconds=against_seconds,
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        runs=(runs, slow_runs),
        ours_peak=max(peak for _, peak in mine),
        against_peak=max(peak for _, peak in theirs),
        wanted=wanted,
        facts=facts or {},
    )


def measured(work: Work) -> tuple[float, int]:
    """Seconds, and bytes at the peak of this process and its children together."""
    gc.collect()
    with peak_of_tree() as peak:
        begin = perf_counter()
        work()
        seconds = perf_counter() - begin
    return seconds, peak[0]


@contextmanager
def peak_of_tree() -> Iterator[list[int]]:
    """A list whose one number is the peak in bytes once the block has ended.

    This process's own is the kernel's high-water mark of the resident set, reset beforehand; that of its children is
    their summed proportional set size, sampled.
    """
    found, children, ended = [0], [0], threading.Event()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: proc(5)

    def sample() -> None:
        me = psutil.Process()
        while not ended.wait(EVERY):
            children[0] = max(children[0], sum(pss(child) for child in me.children(recursive=True)))

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
