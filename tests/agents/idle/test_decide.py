"""The table of what is due for an agent that is where it is wanted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from elizacloud.agents.idle.decide import Decision, Facts, Move, decide, spoken
from elizacloud.agents.idle.policy import Policy
from elizacloud.agents.idle.schedule import read_schedule
from elizacloud.states import State, Wanted

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
"""A Monday."""
POLICY = Policy(900.0, 3600.0)
OFFICE = replace(POLICY, schedule=read_schedule("UTC", ["mon-fri 08:00-18:00"]))
NIGHT = replace(POLICY, schedule=read_schedule("UTC", ["mon-sun 22:00-06:00"]))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def facts(state: State, **changes: Any) -> Facts:
    wanted = {State.READY: Wanted.RUNNING, State.PAUSED: Wanted.PAUSED, State.STOPPED: Wanted.ASLEEP}[state]
    return replace(Facts(state, wanted, NOW, used_at=ago(5000), rests_since=ago(10)), **changes)


def decided(facts: Facts, policy: Policy = POLICY) -> Decision:
    return decide(facts, policy, archive_after_seconds=86_400)


READY, PAUSED, STOPPED = facts(State.READY), facts(State.PAUSED), facts(State.STOPPED)


@pytest.mark.parametrize(
    ("seen", "policy", "move"),
    [
        (READY, POLICY, Move.PAUSE),
        (READY, Policy(900, 0), Move.SLEEP),
        (READY, Policy(900, None), Move.PAUSE),
        (READY, Policy(None, 0), None),
        (READY, OFFICE, None),
        (READY, NIGHT, Move.PAUSE),
        (replace(READY, used_at=ago(900)), POLICY, Move.PAUSE),
        (replace(READY, used_at=ago(899)), POLICY, None),
        (replace(READY, busy_until=ago(-1)), POLICY, None),
        (replace(READY, busy_until=ago(1)), POLICY, Move.PAUSE),
        (PAUSED, POLICY, None),
        (replace(PAUSED, rests_since=ago(3600)), POLICY, Move.SLEEP),
        (replace(PAUSED, rests_since=ago(3600)), Policy(None, 3600), Move.SLEEP),
        (replace(PAUSED, rests_since=ago(10**6)), Policy(900, None), None),
        (replace(PAUSED, rests_since=ago(5 * 3600)), OFFICE, Move.WAKE),
        (replace(PAUSED, rests_since=ago(3 * 3600)), OFFICE, Move.SLEEP),
        (STOPPED, POLICY, None),
        (replace(STOPPED, rests_since=ago(5 * 3600)), OFFICE, Move.WAKE),
        (replace(STOPPED, rests_since=ago(5 * 3600), wanted=Wanted.STOPPED), OFFICE, None),
        (replace(STOPPED, rests_since=ago(86_400)), POLICY, Move.ARCHIVE),
        (replace(STOPPED, rests_since=ago(86_400), wanted=Wanted.STOPPED), POLICY, Move.ARCHIVE),
        (replace(STOPPED, rests_since=ago(86_400), has_node=False), POLICY, None),
    ],
)
def test_what_is_due(seen: Facts, policy: Policy, move: Move | None) -> None:
    assert decided(seen, policy).move is move


@pytest.mark.parametrize(
    ("seen", "policy", "again_at"),
    [
        (READY, Policy(None, None), None),
        (READY, OFFICE, NOW + timedelta(hours=6)),
        (replace(READY, busy_until=ago(-60)), POLICY, ago(-60)),
        (replace(READY, used_at=ago(100)), POLICY, ago(-800)),
        (PAUSED, POLICY, ago(-3590)),
        (PAUSED, Policy(900, None), None),
        (replace(PAUSED, rests_since=ago(10)), replace(NIGHT, stop_after_seconds=86_400), NOW + timedelta(hours=10)),
        (STOPPED, POLICY, ago(10) + timedelta(days=1)),
        (STOPPED, NIGHT, NOW + timedelta(hours=10)),
    ],
)
def test_when_to_look_again(seen: Facts, policy: Policy, again_at: datetime | None) -> None:
    decision = decided(seen, policy)
    assert (decision.move, decision.again_at) == (None, again_at)


def test_nothing_is_archived_without_the_setting() -> None:
    assert decide(replace(STOPPED, rests_since=ago(10**9)), POLICY).move is None


@pytest.mark.parametrize(
    ("seen", "policy", "told"),
    [
        (READY, Policy(None, None), "never rests"),
        (READY, OFFICE, "schedule says so until 2026-01-05 18:00:00 UTC"),
        (replace(READY, busy_until=ago(-60)), POLICY, "says that it works until 2026-01-05 12:01:00 UTC"),
        (replace(READY, used_at=ago(90)), POLICY, "used 90 seconds ago, and rests at 2026-01-05 12:13:30 UTC"),
        (READY, POLICY, "nobody used it for 15 minutes"),
        (PAUSED, POLICY, "a request wakes it. It is stopped at"),
        (STOPPED, POLICY, "a request wakes it"),
        (replace(STOPPED, wanted=Wanted.STOPPED), POLICY, "its owner has to start it"),
        (replace(STOPPED, has_node=False), POLICY, "comes back with a new one"),
    ],
)
def test_it_says_why(seen: Facts, policy: Policy, told: str) -> None:
    assert told in decided(seen, policy).why


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 seconds"),
        (1, "1 second"),
        (90, "90 seconds"),
        (3600, "1 hour"),
        (5400, "90 minutes"),
        (172_800, "2 days"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
