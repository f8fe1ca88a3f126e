"""Which states has a unit, and what happens to it after each outcome? One table and pure rules.

The queue's SQL is `orchestrator.store.claims` and `orchestrator.store.results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from orchestrator.errors import TransitionError


class State(StrEnum):
    """State of a unit."""

    #: Waits for a coordinator.
    READY = "ready"
    #: Claimed; its lease tells until when.
    RUNNING = "running"
    #: Its result is committed.
    DONE = "done"
    #: Gave up after bounded retries, or at once where a retry cannot help.
    FAILED = "failed"
    #: Killed its worker again and again; left alone until a person releases it.
    QUARANTINED = "quarantined"
    #: Cannot be computed by definition (k above a nested training size); never claimed.
    SKIPPED = "skipped"
    #: A person declared its result void; it will be computed again.
    INVALIDATED = "invalidated"


#: The only transitions there are.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.READY: frozenset({State.RUNNING}),
    State.RUNNING: frozenset({State.RUNNING, State.READY, State.DONE, State.FAILED, State.QUARANTINED}),
    State.DONE: frozenset({State.INVALIDATED, State.READY}),  # ready again: an artefact that got lost
    State.FAILED: frozenset({State.READY}),
    State.QUARANTINED: frozenset({State.READY}),
    State.SKIPPED: frozenset(),
    State.INVALIDATED: frozenset({State.RUNNING}),
}

#: Attempts that may end in an exception before a unit is given up.
MAX_FAILURES = 3
#: Deaths of a worker that held this unit alone before it is quarantined.
MAX_DEATHS = 3

#: Outcomes that no retry mends.
FINAL_KINDS = frozenset({"user_error"})


def check_transition(before: State, after: State) -> None:
    """Raise unless a unit may go from one state to the other.

    Raises:
        TransitionError: It may not.
    """
    if after not in TRANSITIONS[before]:
        raise TransitionError(f"a unit cannot go from {before.value} to {after.value}")


def after_failure(kind: str, *, n_failures: int, n_deaths: int, alone: bool) -> tuple[State, int, int]:
    """The state after a failed attempt and the renewed counters.

    Args:
        kind: Class of the failure, as in `workers.units.UnitFailure`.
        n_failures: Failures so far.
        n_deaths: Worker deaths counted against the unit so far.
        alone: Whether it was alone in its shard; a death counts against a unit only then.

    Returns:
        State, failures, deaths.
    """
    if kind == "worker_death":
        deaths = n_deaths + (1 if alone else 0)
        return (State.QUARANTINED if deaths >= MAX_DEATHS else State.READY), n_failures, deaths
    failures = n_failures + 1
    final = kind in FINAL_KINDS or failures >= MAX_FAILURES
    return (State.FAILED if final else State.READY), failures, n_deaths


#: States in which a unit still waits to be computed.
UNFINISHED = frozenset({State.READY, State.RUNNING, State.INVALIDATED})


def exit_code(counts: Mapping[tuple[str, str], int], *, stopped: bool) -> int:
    """How a run ended: 0 all done, 1 some failed or wait for one that did, 3 stopped before the end.

    Args:
        counts: Units of the sweep by (kind, state).
        stopped: Whether someone asked for the end.
    """
    states = {state for (_, state), n in counts.items() if n}
    if states & UNFINISHED:
        return 3 if stopped else 1
    return 1 if states & {State.FAILED, State.QUARANTINED} else 0
