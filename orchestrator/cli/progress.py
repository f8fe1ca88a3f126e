"""How far is the run? A live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from orchestrator.coordinator import Progress as ProgressListener

#: States in which a unit needs no more work.
FINAL = ("done", "failed", "quarantined", "skipped")
#: Seconds between plain lines.
EVERY = 5.0


class _Stage:
    """Rate and time left of one kind of unit, by the work of this run alone."""

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None
        self.done = self.total = self.failed = 0

    def update(self, counts: Mapping[str, int]) -> None:
        self.total = sum(counts.values())
        self.done = sum(counts.get(state, 0) for state in FINAL)
        self.failed = counts.get("failed", 0) + counts.get("quarantined", 0)
        if self.first is None:
            self.first = (time.monotonic(), self.done)

    @property
    def pace(self) -> str:
        if self.first is None:
            return ""
        seconds, made = time.monotonic() - self.first[0], self.done - self.first[1]
        if made <= 0 or seconds <= 0:
            return ""
        left = (self.total - self.done) * seconds / made
        return f"{made / seconds:.1f}/s, {_span(left)} left" if self.done < self.total else f"{made / seconds:.1f}/s"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _by_kind(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    kinds: dict[str, dict[str, int]] = {}
    for (kind, state), n in sorted(counts.items()):
        kinds.setdefault(kind, {})[state] = n
    return kinds


class LiveProgress:
    """A bar for each kind of unit."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._stages: dict[str, _Stage] = {}
        self._tasks: dict[str, TaskID] = {}

    def update(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Redraw."""
        for kind, states in _by_kind(counts).items():
            stage = self._stages.setdefault(kind, _Stage())
            stage.update(states)
            if kind not in self._tasks:
                self._tasks[kind] = self._bars.add_task(kind, total=stage.total, pace="", failed="")
            self._bars.update(
                self._tasks[kind],
                completed=stage.done,
                total=stage.total,
                pace=stage.pace,
                failed=f"[red]{stage.failed} failed[/red]" if stage.failed else "",
            )


class PlainProgress:
    """A line every few seconds and one at the end of each kind."""

    def __init__(self) -> None:
        self._stages: dict[str, _Stage] = {}
        self._said: dict[str, tuple[float, int]] = {}

    def update(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Print where a kind moved on."""
        now = time.monotonic()
        for kind, states in _by_kind(counts).items():
            stage = self._stages.setdefault(kind, _Stage())
            stage.update(states)
            at, done = self._said.get(kind, (-EVERY, -1))
            if stage.done != done and (now - at >= EVERY or stage.done == stage.total):
                self._said[kind] = (now, stage.done)
                failed = f", {stage.failed} failed" if stage.failed else ""
                pace = f" ({stage.pace})" if stage.pace else ""
                sys.stderr.write(f"{kind}: {stage.done}/{stage.total}{failed}{pace}\n")
                sys.stderr.flush()


@contextmanager
def shown_progress() -> Iterator[ProgressListener]:
    """Progress on stderr: bars on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainProgress()
        return
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}"),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=console) as bars:
        yield LiveProgress(bars)
