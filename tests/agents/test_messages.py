"""The sentence about an agent, in each state and for each wish."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from elizacloud.agents.messages import message
from elizacloud.model import Failure
from elizacloud.states import State, Wanted
from tests.fakes.store import an_agent

FAILURE = Failure(
    "await join", "no node joined.", "join_timeout", 3, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "Look at its logs."
)


@pytest.mark.parametrize("wanted", list(Wanted))
@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("failure", [None, FAILURE])
def test_there_is_always_one_sentence(state: State, wanted: Wanted, external: bool, failure: Failure | None) -> None:
    told = message(replace(an_agent(), state=state, wanted=wanted, external=external, failure=failure))
    assert told[0].isupper()
    assert told.endswith(".")


def test_a_failure_says_what_when_and_what_to_do() -> None:
    told = message(replace(an_agent(), state=State.STARTED, failure=FAILURE))
    assert told == (
        "It failed 3 times to await join: no node joined; the next try is at 03:04:05 UTC. Look at its logs."
    )


@pytest.mark.parametrize(
    ("ready", "words"), [(True, "It is ready."), (False, "not ready yet"), (None, "does not say whether")]
)
def test_a_ready_agent_says_what_the_agent_says(ready: bool | None, words: str) -> None:
    assert words in message(replace(an_agent(), state=State.READY, agent_ready=ready))


def test_a_stop_on_the_way_back_up_is_no_stop() -> None:
    assert "being started again" in message(replace(an_agent(), state=State.STOPPED, wanted=Wanted.RUNNING))
    assert "start it" in message(replace(an_agent(), state=State.STOPPED, wanted=Wanted.STOPPED))


ON_THE_WAY = (State.REQUESTED, State.KEYED, State.STARTED, State.JOINED, State.PAUSING, State.STOPPING, State.DELETING)


@pytest.mark.parametrize("state", ON_THE_WAY)
def test_on_its_way_it_says_what_is_done_and_what_comes_then(state: State) -> None:
    told = message(replace(an_agent(), state=state))
    assert told.count(".") == 1
    assert any(word in told for word in ("; ", " then", ", and ")), told


def test_a_stop_that_fails_says_so() -> None:
    stopping = replace(an_agent(), state=State.STOPPING, wanted=Wanted.STOPPED, failure=FAILURE)
    assert "It failed" in message(stopping)
    assert "It failed" not in message(replace(stopping, state=State.STOPPED))


def test_one_that_is_started_by_hand_waits_for_its_person() -> None:
    assert "by hand" in message(replace(an_agent(), state=State.STARTED, external=True))
