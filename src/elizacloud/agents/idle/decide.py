"""What is due for an agent that is where it is wanted, by who used it, the clock and its policy: the table. Pure.

| it is | and | then |
| --- | --- | --- |
| ready | its policy says never, its schedule says awake, its container says it works, or it was used | it goes on |
| ready | nobody used it for `idle_after` | pause it, or, with no time between, put it to sleep |
| paused | for `stop_after` | put it to sleep: stop it until a request comes |
| paused or asleep | hours of its schedule began since | wake it |
| stopped | for `archive_after`, and it has a node | archive it: delete the node, keep the state |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from elizacloud.agents.idle.policy import Policy
from elizacloud.states import WAKEABLE, State, Wanted

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Move(StrEnum):
    """What is about to be done to it, as the end of a sentence."""

    PAUSE = "paused"
    SLEEP = "put to sleep"
    WAKE = "woken"
    ARCHIVE = "archived"


@dataclass(frozen=True, slots=True)
class Facts:
    """`rests_since` is when it came to rest, if it does; `busy_until` the end of its container's lease."""

    state: State
    wanted: Wanted
    now: datetime
    used_at: datetime
    rests_since: datetime
    busy_until: datetime | None = None
    has_node: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """`why` is a sentence on why it runs or rests; `again_at` is when something else may be due, if nothing happens."""

    move: Move | None
    why: str
    again_at: datetime | None = None


def decide(facts: Facts, policy: Policy, *, archive_after_seconds: float | None = None) -> Decision:
    if facts.state is State.READY:
        return _awake(facts, policy)
    if facts.state is State.PAUSED:
        return _paused(facts, policy)
    return _stopped(facts, policy, archive_after_seconds)


def _awake(facts: Facts, policy: Policy) -> Decision:
    now, idle_after = facts.now, policy.idle_after_seconds
    if idle_after is None:
        return Decision(None, "It runs: its policy says that it never rests.")
    if policy.schedule is not None and (window := policy.schedule.window(now)) is not None:
        return Decision(None, f"It runs: its schedule says so until {_clock(window.end)}.", window.end)
    if facts.busy_until is not None and facts.busy_until > now:
        return Decision(
            None, f"It runs: its container says that it works until {_clock(facts.busy_until)}.", facts.busy_until
        )
    rests_at = facts.used_at + timedelta(seconds=idle_after)
    if rests_at > now:
        ago = spoken((now - facts.used_at).total_seconds())
        return Decision(None, f"It runs: it was used {ago} ago, and rests at {_clock(rests_at)} if unused.", rests_at)
    why = f"nobody used it for {spoken(idle_after)}"
    return Decision(Move.SLEEP if policy.stop_after_seconds == 0 else Move.PAUSE, why)


def _paused(facts: Facts, policy: Policy) -> Decision:
    if (due := _hours_began(facts, policy)) is not None:
        return due
    again_at = _next_hours(facts, policy)
    told = f"It is paused since {_clock(facts.rests_since)}; a request wakes it"
    if policy.stop_after_seconds is None:
        return Decision(None, f"{told}.", again_at)
    stops_at = facts.rests_since + timedelta(seconds=policy.stop_after_seconds)
    if stops_at <= facts.now:
        return Decision(Move.SLEEP, f"nobody used it for {spoken(policy.stop_after_seconds)} more, while it was paused")
    return Decision(None, f"{told}. It is stopped at {_clock(stops_at)}.", _earlier(stops_at, again_at))


def _stopped(facts: Facts, policy: Policy, archive_after_seconds: float | None) -> Decision:
    if (due := _hours_began(facts, policy)) is not None:
        return due
    wakes = "a request wakes it" if facts.wanted in WAKEABLE else "its owner has to start it"
    told = f"It is stopped since {_clock(facts.rests_since)}; {wakes}."
    again_at = _next_hours(facts, policy)
    if not facts.has_node:
        return Decision(None, f"{told} It has no node any more and comes back with a new one.", again_at)
    if archive_after_seconds is None:
        return Decision(None, told, again_at)
    archived_at = facts.rests_since + timedelta(seconds=archive_after_seconds)
    if archived_at <= facts.now:
        return Decision(Move.ARCHIVE, f"nobody used it for {spoken(archive_after_seconds)}")
    return Decision(None, told, _earlier(archived_at, again_at))


def _hours_began(facts: Facts, policy: Policy) -> Decision | None:
    """Hours of its schedule that began while it rested; in those in which it came to rest somebody wanted that."""
    if policy.schedule is None or facts.wanted not in WAKEABLE:
        return None
    window = policy.schedule.window(facts.now)
    if window is None or window.start <= facts.rests_since:
        return None
    return Decision(Move.WAKE, f"its schedule says that it is awake until {_clock(window.end)}")


def _next_hours(facts: Facts, policy: Policy) -> datetime | None:
    if policy.schedule is None or facts.wanted not in WAKEABLE:
        return None
    return policy.schedule.next_start(facts.now)


def _earlier(one: datetime, other: datetime | None) -> datetime:
    return one if other is None else min(one, other)


def spoken(seconds: float) -> str:
    """A duration for people: in the largest unit of which it has two, or exactly one."""
    for size, name in _UNITS:
        count = seconds / size
        if count >= 2 or count == 1:
            return f"{count:.0f} {name}{'' if round(count) == 1 else 's'}"
    return f"{seconds:.1f} seconds"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
