"""How do several models' evaluation logs become one routing benchmark? Answers joined on the question's identity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

from workers.benchmarks.answers import EXAMPLES, Answer, Notes, ReadOptions
from workers.benchmarks.base import Benchmark
from workers.benchmarks.joining import Table
from workers.errors import BenchmarkError
from workers.plugins import discover, nearest

__all__ = [
    "EXAMPLES",
    "Answer",
    "LogFormat",
    "Notes",
    "ReadOptions",
    "find_format",
    "log_formats",
    "options_are_known",
    "read_logs",
]


class LogFormat(ABC):
    """Subclass, set `name`, recognise paths, yield answers. Each (task, query, model) comes once, the newest run."""

    #: Name for `--format`.
    name: ClassVar[str]
    #: One line for listings.
    summary: ClassVar[str]
    #: What it was checked on; `not verified on real files; written from <source>` where that holds.
    verified: ClassVar[str]

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a file or folder is of this format; cheap, reads a few bytes, never raises for its content."""

    @abstractmethod
    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read all answers of all models below a path.

        Args:
            path: File or folder.
            options: What the user says.
            notes: Takes what was left out and why, and what was chosen for the user.

        Raises:
            BenchmarkError: With the file and line at fault.
        """


@cache
def log_formats() -> dict[str, type[LogFormat]]:
    """Every format by name: ours and those of plug-ins."""
    return discover("workers.benchmarks", LogFormat, "roadtest.formats")


def find_format(path: Path, name: str | None = None) -> type[LogFormat] | None:
    """The format of this name, or the one that recognises a path; None when none does.

    Raises:
        BenchmarkError: Unknown name, or several recognise it.
    """
    known = log_formats()
    if name is not None:
        if name not in known:
            raise BenchmarkError(f"unknown format {name!r}; {nearest(name, list(known))}")
        return known[name]
    found = [cls for cls in known.values() if cls.recognises(path)]
    if len(found) > 1:
        raise BenchmarkError(f"{path}: looks like {' and '.join(cls.name for cls in found)}; say which with --format.")
    return found[0] if found else None


def read_logs(path: Path, cls: type[LogFormat], *, name: str, options: ReadOptions) -> Benchmark:
    """Join a path's logs into a benchmark; `meta["join"]` reports what did not match.

    Raises:
        BenchmarkError: With what is wrong, where, and what to do.
    """
    if not 0 < options.scale < float("inf"):
        raise BenchmarkError(f"scale {options.scale:g}: give the highest score, such as 100 for percentages.")
    notes = Notes()
    table = Table(options)
    for answer in cls().answers(path, options, notes):
        table.add(answer)
    if not table.models:
        raise BenchmarkError(
            f"{path}: read as {cls.name}, it holds no answer{_reasons(notes)}; check the folder and --format."
        )
    return table.benchmark(name, path, cls.name, notes)


def options_are_known(options: ReadOptions, *known: str) -> Iterable[str]:
    """Options that a user gave and a format does not know: for formats to refuse."""
    default = ReadOptions()
    for key in ("score", "variant"):
        if key not in known and getattr(options, key) != getattr(default, key):
            yield key


def _reasons(notes: Notes) -> str:
    reasons = [f"{reason}: {', '.join(notes.examples[reason])}" for reason in notes.counts]
    return f" ({'; '.join(reasons)})" if reasons else ""
