"""When to try again: exponential with jitter and a cap, for steps that fail and for instances that die. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from elizacloud.model import Run

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 300.0
QUICK_DEATH_SECONDS = 60.0
"""An instance that ends sooner after its start died of something that a new start will not cure."""
LOOK_BACK_RUNS = 10


def backoff_seconds(attempts: int, chance: float = 1.0) -> float:
    """The pause after so many failed attempts: doubled each time, up to the cap; `chance` (0 to 1) moves its upper half."""
    longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(max(attempts, 1) - 1, 32))
    return longest * (0.5 + chance / 2)


def seconds_until(at: datetime, now: datetime, *, longest_seconds: float = LONGEST_SECONDS) -> float:
    """How long until then: 0 when it is past, and when it is further off than it can have been set, for then somebody put
    the clock back, and waiting for it to come round again could take a day."""
    left = (at - now).total_seconds()
    return left if 0 < left <= longest_seconds else 0.0


def is_within(seconds: float, since: datetime, now: datetime) -> bool:
    """True when less than so many seconds have passed since then; a clock that was put back counts as time passed."""
    return timedelta(0) <= now - since < timedelta(seconds=seconds)


def quick_deaths(runs: Sequence[Run]) -> int:
    """How many runs in a row, from the newest one back, died soon after they started. `runs` has the newest first.

    The stop of a host counts from the second one on: a host that is started again gets all its agents back at once, and an
    agent that can make its end look like a stop of its host gains one start by it.
    """
    deaths, host_stops = 0, 0
    for run in runs:
        if run.started_at is None or run.ended_at is None or was_stopped_by_us(run):
            break
        if run.ended_at - run.started_at > timedelta(seconds=QUICK_DEATH_SECONDS):
            break
        if run.end_reason == HOST_STOPPED:
            host_stops += 1
        else:
            deaths += 1
    return deaths + max(0, host_stops - 1)


STOPPED_BY_US = "stopped"
"""How the end reason of a run begins that did not die: its owner, a repair or its host stopped it."""
HOST_STOPPED = f"{STOPPED_BY_US}: its host was"


def was_stopped_by_us(run: Run) -> bool:
    return (run.end_reason or "").startswith(STOPPED_BY_US) and run.end_reason != HOST_STOPPED
