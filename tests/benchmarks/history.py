"""What did earlier runs of the benchmarks find, and what has become slower since? `history.jsonl`, a run a line.

Ratios are compared, not seconds: both sides of a ratio ran on the same machine in the same minutes. A figure counts as
slower when its ratio lies more than `TOLERANCE` below the median of its last `RECENT` earlier ratios; those of the
same processor model and number of cores count where there are any, all of them otherwise.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).with_name("history.jsonl")
#: Earlier ratios that are looked at.
RECENT = 5
#: Share of the ratio that may be lost before a figure counts as slower; a choice, not a measured spread.
TOLERANCE = 0.3

Run = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A figure beside its history."""

    name: str
    ratio: float
    #: Median of the earlier ratios; None: it has none.
    before: float | None
    #: The ratio that the project aims at.
    wanted: float | None

    @property
    def slower(self) -> bool:
        """Whether it lost more than is tolerated."""
        return self.before is not None and self.ratio < (1 - TOLERANCE) * self.before

    def __str__(self) -> str:
        if self.before is None:
            said = f"{self.ratio:.3g} x, no history"
        else:
            said = f"{self.ratio:.3g} x, before {self.before:.3g} x ({self.ratio / self.before - 1:+.0%})"
        slower = ", SLOWER" if self.slower else ""
        missed = f", aimed at {self.wanted:.3g} x" if self.wanted is not None and self.ratio < self.wanted else ""
        return f"{self.name}: {said}{slower}{missed}"


def load(path: Path | None = None) -> list[Run]:
    """All runs, the oldest first."""
    path = path or HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(run: Run, path: Path | None = None) -> None:
    """Add a run."""
    with (path or HISTORY).open("a") as file:
        file.write(json.dumps(run, ensure_ascii=False) + "\n")


def changes(run: Run, history: Sequence[Run]) -> list[Change]:
    """Every figure of a run beside its history."""
    return [
        Change(
            name=figure["name"],
            ratio=figure["ratio"],
            before=_before(figure["name"], run["machine"], history),
            wanted=figure["wanted"],
        )
        for figure in run["figures"]
    ]


def _before(name: str, machine: Mapping[str, Any], history: Sequence[Run]) -> float | None:
    found = [
        (all(earlier["machine"][key] == machine[key] for key in ("cpu", "cores")), figure["ratio"])
        for earlier in history
        for figure in earlier["figures"]
        if figure["name"] == name
    ]
    same = [ratio for alike, ratio in found if alike]
    ratios = (same or [ratio for _, ratio in found])[-RECENT:]
    return statistics.median(ratios) if ratios else None
