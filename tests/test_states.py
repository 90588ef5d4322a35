"""The table of states: complete, closed, and the only judge of a move."""

import itertools

import pytest

from elizacloud.errors import Conflict
from elizacloud.states import NEXT, ROUTABLE, SETTLING, TRANSITIONS, State, Wanted, check_move, next_step


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_due_step_leads_where_the_table_allows() -> None:
    for wanted, steps in NEXT.items():
        for state, due in steps.items():
            walk = [state, *([due.via] if due.via else []), due.then]
            for before, after in itertools.pairwise(walk):
                assert before is after or after in TRANSITIONS[before], (wanted, state, due)


@pytest.mark.parametrize("wanted", list(Wanted))
def test_every_state_settles(wanted: Wanted) -> None:
    """From any state, following the due steps ends where nothing is due, in a state that the owner wanted."""
    final = {
        Wanted.RUNNING: {State.READY, State.GONE, State.DELETING, State.TOMBSTONE},
        Wanted.PAUSED: {State.PAUSED, State.GONE, State.DELETING, State.TOMBSTONE},
        Wanted.ASLEEP: {State.STOPPED, State.GONE, State.DELETING, State.TOMBSTONE},
        Wanted.STOPPED: {State.STOPPED, State.GONE, State.DELETING, State.TOMBSTONE},
        Wanted.DELETED: {State.GONE},
    }
    for start in State:
        state, walked = start, 0
        while due := next_step(state, wanted):
            state, walked = due.then, walked + 1
            assert walked <= len(State), f"{start} never settles on {wanted}"
        assert state in final[wanted]


def test_a_move_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(Conflict, match="cannot move an agent from gone to ready") as caught:
        check_move(State.GONE, State.READY)
    assert caught.value.reason == "illegal_move"


def test_staying_is_allowed_everywhere() -> None:
    for state in State:
        check_move(state, state)


def test_nothing_comes_back_from_gone_and_only_deletion_leads_there() -> None:
    assert TRANSITIONS[State.GONE] == frozenset()
    assert [state for state, to in TRANSITIONS.items() if State.GONE in to] == [State.TOMBSTONE]


def test_an_agent_that_can_be_routed_to_is_settled() -> None:
    assert not ROUTABLE & SETTLING
