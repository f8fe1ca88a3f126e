from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import TransitionError
from orchestrator.queue import (
    MAX_DEATHS,
    MAX_FAILURES,
    MAX_OOMS,
    TRANSITIONS,
    State,
    Strikes,
    after_failure,
    check_transition,
)
from orchestrator.store.tables import unit

#: Which counter a kind of failure raises, and where the last allowed one of it leads; None for nobody's fault.
RULES = {
    "user_error": ("failures", 1, State.FAILED),
    "exception": ("failures", MAX_FAILURES, State.FAILED),
    "worker_death": ("deaths", MAX_DEATHS, State.QUARANTINED),
    "timeout": ("deaths", MAX_DEATHS, State.QUARANTINED),
    "out_of_memory": ("ooms", MAX_OOMS, State.QUARANTINED),
    "artifact": None,
    "node_loss": None,
}
#: Failures for which a unit answers only when it was alone in its shard.
IN_COMPANY = ("worker_death", "timeout", "out_of_memory")
#: What ends one claim: a result, a failure of a kind (alone in its shard or not), or the coordinator's own end.
OUTCOMES = st.one_of(
    st.just("done"), st.just("released"), st.just("lost"), st.tuples(st.sampled_from(sorted(RULES)), st.booleans())
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
    state, strikes = State.READY, Strikes()
    counted = {"failures": 0, "deaths": 0, "ooms": 0}
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
                after, strikes = after_failure(kind, strikes, alone=alone)
                expected = State.READY
                if (rule := RULES[kind]) is not None and (alone or kind not in IN_COMPANY):
                    counter, most, end = rule
                    counted[counter] += 1
                    expected = end if counted[counter] >= most else State.READY
                assert (after, vars(strikes)) == (expected, counted)
        check_transition(State.RUNNING, after)
        state = after
    assert strikes.failures <= MAX_FAILURES
    assert strikes.deaths <= MAX_DEATHS
    assert strikes.ooms <= MAX_OOMS


@given(st.sampled_from(IN_COMPANY), st.integers(0, MAX_DEATHS - 1), st.integers(0, MAX_OOMS - 1))
def test_what_happens_in_company_counts_against_nobody(kind: str, deaths: int, ooms: int) -> None:
    strikes = Strikes(deaths=deaths, ooms=ooms)
    assert after_failure(kind, strikes, alone=False) == (State.READY, strikes)


def test_every_state_leads_somewhere_or_is_the_end_by_definition() -> None:
    assert [state for state, after in TRANSITIONS.items() if not after] == [State.SKIPPED]
