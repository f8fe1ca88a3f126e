"""Which states has a unit, and what happens to it after each outcome? One table and pure rules.

The queue's SQL is `orchestrator.store.claims` and `orchestrator.store.results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    #: Took its worker down, hung or ate all memory again and again; left alone until a person releases it.
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

#: States in which a unit still waits to be computed.
UNFINISHED = frozenset({State.READY, State.RUNNING, State.INVALIDATED})

#: Attempts that may end in an exception before a unit is given up.
MAX_FAILURES = 3
#: Workers that died or had to be killed with this unit alone before it is quarantined.
MAX_DEATHS = 3
#: Attempts that may run out of memory: the second one has more of it.
MAX_OOMS = 2


def check_transition(before: State, after: State) -> None:
    """Raise unless a unit may go from one state to the other.

    Raises:
        TransitionError: It may not.
    """
    if after not in TRANSITIONS[before]:
        raise TransitionError(f"a unit cannot go from {before.value} to {after.value}")


@dataclass(frozen=True, kw_only=True)
class Strikes:
    """What counts against a unit since it was last done, or made ready by a person's hand."""

    #: Exceptions.
    failures: int = 0
    #: Workers that it took down, or that had to be killed because it hung.
    deaths: int = 0
    #: Attempts that ran out of memory.
    ooms: int = 0


def after_failure(kind: str, strikes: Strikes, *, alone: bool) -> tuple[State, Strikes]:
    """The state after a failed attempt and the renewed strikes.

    Args:
        kind: Class of the failure, as in `workers.units.UnitFailure`.
        strikes: What counted against the unit before.
        alone: Whether it was alone in its shard; a death counts against a unit only then.
    """
    if kind == "user_error":
        return State.FAILED, replace(strikes, failures=strikes.failures + 1)
    if kind in ("node_loss", "artifact"):
        return State.READY, strikes  # not the unit's fault; `orchestrator.repair` bounds lost artefacts
    if kind in ("worker_death", "timeout"):
        strikes = replace(strikes, deaths=strikes.deaths + alone)
        return (State.QUARANTINED if strikes.deaths >= MAX_DEATHS else State.READY), strikes
    if kind == "out_of_memory":
        strikes = replace(strikes, ooms=strikes.ooms + alone)
        return (State.QUARANTINED if strikes.ooms >= MAX_OOMS else State.READY), strikes
    strikes = replace(strikes, failures=strikes.failures + 1)
    return (State.FAILED if strikes.failures >= MAX_FAILURES else State.READY), strikes


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
