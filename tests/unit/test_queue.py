from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import TransitionError
from orchestrator.queue import (
    FINAL_KINDS,
    MAX_DEATHS,
    MAX_FAILURES,
    TRANSITIONS,
    State,
    after_failure,
    check_transition,
)
from orchestrator.store.tables import unit

KINDS = ("user_error", "exception", "out_of_memory", "artifact", "timeout", "worker_death")
#: What ends one claim: a result, a failure of a kind (alone in its shard or not), or the coordinator's own end.
OUTCOMES = st.one_of(
    st.just("done"), st.just("released"), st.just("lost"), st.tuples(st.sampled_from(KINDS), st.booleans())
)


def test_the_table_names_every_state_that_the_database_allows() -> None:
    check = next(c for c in unit.constraints if str(c.name).endswith("state_is_known"))
    assert set(TRANSITIONS) == set(State)
    assert {state.value for state in State} == {word for word in State if f"'{word}'" in str(check.sqltext)}  # type: ignore[attr-defined]


@given(st.sampled_from(State), st.sampled_from(State))
def test_check_transition_is_the_table(before: State, after: State) -> None:
    if after in TRANSITIONS[before]:
        check_transition(before, after)
    else:
        with pytest.raises(TransitionError, match=f"from {before.value} to {after.value}"):
            check_transition(before, after)


@given(st.lists(OUTCOMES, max_size=30))
def test_any_history_walks_the_table_and_ends(history: list[str | tuple[str, bool]]) -> None:
    state, failures, deaths = State.READY, 0, 0
    counted_failures = counted_deaths = 0
    for outcome in history:
        if state not in (State.READY, State.INVALIDATED):
            break
        check_transition(state, State.RUNNING)
        match outcome:
            case "done":
                after = State.DONE
            case "released":
                after = State.READY
            case "lost":  # claimed again by another coordinator, which hands it back
                check_transition(State.RUNNING, State.RUNNING)
                after = State.READY
            case (kind, alone):
                after, failures, deaths = after_failure(kind, n_failures=failures, n_deaths=deaths, alone=alone)
                counted_failures += kind != "worker_death"
                counted_deaths += kind == "worker_death" and alone
                assert (failures, deaths) == (counted_failures, counted_deaths)
                final = kind in FINAL_KINDS or failures == MAX_FAILURES
                if kind == "worker_death":
                    assert after == (State.QUARANTINED if deaths == MAX_DEATHS else State.READY)
                else:
                    assert after == (State.FAILED if final else State.READY)
        check_transition(State.RUNNING, after)
        state = after
    assert failures <= MAX_FAILURES
    assert deaths <= MAX_DEATHS


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_death_in_company_counts_against_nobody(failures: int, deaths: int) -> None:
    state, after_failures, after_deaths = after_failure(
        "worker_death", n_failures=failures, n_deaths=min(deaths, MAX_DEATHS - 1), alone=False
    )
    assert (state, after_failures, after_deaths) == (State.READY, failures, min(deaths, MAX_DEATHS - 1))


def test_every_state_leads_somewhere_or_is_the_end_by_definition() -> None:
    assert [state for state, after in TRANSITIONS.items() if not after] == [State.SKIPPED]
