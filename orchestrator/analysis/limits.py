"""What can be concluded from a sweep as it stands, and what not? In sentences, for the top of every report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.analysis.sentences import names
from orchestrator.analysis.verdicts import INTERVAL_SPLITS, VERDICT_SPLITS

#: Names that a sentence lists before it counts.
MOST_NAMES = 8


def limits(
    results: pd.DataFrame, *, reference: str | None, spec: Mapping[str, Any], states: Mapping[str, int]
) -> list[str]:
    """Say what is lacking: unfinished or failed evaluations, routers without a result, splits.

    Args:
        results: The view `results` of one sweep; may be empty.
        reference: Display name of the router to compare with, None when the sweep has none.
        spec: The sweep file as a dict.
        states: Evaluations by state; empty when it is not known.

    Returns:
        None for a finished sweep of enough splits.
    """
    if results.empty:
        return [_nothing(spec, states)]
    said = [_unfinished(states), _without_result(results, spec), _no_reference(results, reference)]
    return [sentence for sentence in [*said, *_few_splits(results)] if sentence]


def router_names(spec: Mapping[str, Any]) -> list[str]:
    """Display names of a sweep file's routers."""
    entries = spec.get("routers") or ()
    return [
        str(entry.get("name") or entry.get("use")) if isinstance(entry, Mapping) else str(entry) for entry in entries
    ]


def _nothing(spec: Mapping[str, Any], states: Mapping[str, int]) -> str:
    wanted, skipped = _wanted(states), states.get("skipped", 0)
    study = spec.get("study")
    if not wanted and not skipped and study:
        kind = study.get("kind") if isinstance(study, Mapping) else study
        return f"This sweep evaluates no router (`study: {kind}` measures other things), so no router is compared."
    if not wanted and skipped:
        return f"Nothing can be concluded: {_evaluations(skipped)} wanted, all skipped for the reasons given."
    if not wanted:
        return "Nothing can be concluded: the sweep has no finished result yet."
    return f"Nothing can be concluded yet: of {_evaluations(wanted)} none is done{_rest(states)}."


def _unfinished(states: Mapping[str, int]) -> str:
    wanted, done = _wanted(states), states.get("done", 0)
    if done >= wanted:
        return ""
    return (
        f"Unfinished: {done:,} of {_evaluations(wanted)} are done{_rest(states)}. What is said here is of those that "
        "are done: means, ranks and verdicts may still change."
    )


def _rest(states: Mapping[str, int]) -> str:
    """How many are to come, and how many failed."""
    to_come = sum(states.get(state, 0) for state in ("ready", "running", "invalidated"))
    failed = sum(states.get(state, 0) for state in ("failed", "quarantined"))
    parts = [f"{to_come:,} still to come (`roadtest run` goes on)"] if to_come else []
    parts += [f"{failed:,} failed (`roadtest status` names them)"] if failed else []
    return "".join(f", {part}" for part in parts)


def _without_result(results: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    there = set(results["router"])
    lacking = [name for name in router_names(spec) if name not in there]
    if not lacking:
        return ""
    shown = lacking[:MOST_NAMES] + ([f"{len(lacking) - MOST_NAMES} more"] if len(lacking) > MOST_NAMES else [])
    return f"Nothing can be said about {names(shown)}: {'they have' if len(lacking) > 1 else 'it has'} no result."


def _no_reference(results: pd.DataFrame, reference: str | None) -> str:
    if reference is None or (results["router"] == reference).any():
        return ""
    return (
        f"As the reference {reference} has no result, no difference was tested: the leaderboards show which mean is "
        "higher, not whether that is more than chance."
    )


def _few_splits(results: pd.DataFrame) -> list[str]:
    """What is missing below 10 splits, for the benchmarks that have fewer."""
    counts = results.groupby("benchmark", sort=False)["seed"].nunique()
    by_need: dict[str, list[str]] = {}
    for benchmark, n in counts.items():
        if need := _need(int(n)):
            by_need.setdefault(need, []).append(str(benchmark))
    return [_on(benchmarks, len(counts)) + need for need, benchmarks in by_need.items()]


def _need(n: int) -> str:
    if n == 1:
        return (
            "one split the numbers tell how the routers did on one test side after one training side, no spread. "
            f"Intervals take {INTERVAL_SPLITS} splits, verdicts {VERDICT_SPLITS}: any difference may be chance."
        )
    if n < INTERVAL_SPLITS:
        return (
            f"{n} splits there are means and a first idea of their spread. Intervals take {INTERVAL_SPLITS} splits, "
            f"verdicts {VERDICT_SPLITS}: any difference may be chance."
        )
    if n < VERDICT_SPLITS:
        return (
            f"{n} splits there are means, spreads and intervals, but no verdict, which takes {VERDICT_SPLITS} splits."
        )
    return ""


def _on(benchmarks: Sequence[str], n_all: int) -> str:
    if len(benchmarks) == n_all:
        return "With "
    shown = list(benchmarks[:MOST_NAMES])
    shown += [f"{len(benchmarks) - MOST_NAMES} more"] if len(benchmarks) > MOST_NAMES else []
    return f"On {names(shown)}, with "


def _wanted(states: Mapping[str, int]) -> int:
    return sum(n for state, n in states.items() if state != "skipped")


def _evaluations(n: int) -> str:
    return f"{n:,} evaluation" + ("" if n == 1 else "s")
