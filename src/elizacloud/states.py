"""The life of an agent, as a table. Rule: nothing outside this file decides which move is allowed.

An agent has a *wanted* state, set by its owner, and a *state*, which says how far reality is. The reconciler walks the
table from one to the other: `next_step` names the one step that is due, and a step that succeeds moves to its `then`.
The diagram in ARCHITECTURE.md is drawn from this file by scripts/docs.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from elizacloud.errors import Conflict


class Wanted(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    """Frozen until a request comes for it."""
    ASLEEP = "asleep"
    """Stopped until a request comes for it."""
    STOPPED = "stopped"
    """Stopped until its owner starts it."""
    DELETED = "deleted"


class State(StrEnum):
    REQUESTED = "requested"
    """Stored; nothing outside exists yet."""
    KEYED = "keyed"
    """The instance is created (not started) and a pre-auth key is minted for this generation."""
    STARTED = "started"
    """The instance runs; its node has not been seen, or not yet in this run."""
    JOINED = "joined"
    """Headscale lists the node with our key and tag; its id is pinned."""
    READY = "ready"
    """A relay got a live answer from it over its own path."""
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    """The instance is gone; node, address and state volume are kept."""
    DELETING = "deleting"
    TOMBSTONE = "tombstone"
    """Everything outside was told to go; kept until two clean sweeps have seen it gone."""
    GONE = "gone"


class Step(StrEnum):
    """The name is the log line, the event and the progress text."""

    MINT_KEY = "mint key and create instance"
    START = "start instance"
    AWAIT_JOIN = "await join"
    AWAIT_READY = "await ready"
    PAUSE = "drain and pause"
    RESUME = "resume"
    STOP = "stop instance"
    RESTART = "start instance again"
    DELETE = "delete"
    CONFIRM_GONE = "confirm gone"


TRANSITIONS: dict[State, frozenset[State]] = {
    # KEYED falls back to REQUESTED when the key was lost with the process that held its value.
    State.REQUESTED: frozenset({State.KEYED, State.STOPPING, State.DELETING}),
    State.KEYED: frozenset({State.STARTED, State.REQUESTED, State.STOPPING, State.DELETING}),
    State.STARTED: frozenset({State.JOINED, State.STOPPING, State.DELETING}),
    # What runs ends by way of STOPPING, which cleans up; with a new key for a lost node it joins again from STARTED.
    State.JOINED: frozenset({State.READY, State.STARTED, State.STOPPING, State.DELETING}),
    State.READY: frozenset({State.JOINED, State.STARTED, State.PAUSING, State.STOPPING, State.DELETING}),
    State.PAUSING: frozenset({State.PAUSED, State.READY, State.STOPPING, State.DELETING}),
    State.PAUSED: frozenset({State.JOINED, State.STOPPING, State.DELETING}),
    State.STOPPING: frozenset({State.STOPPED, State.DELETING}),
    # STOPPED goes to STARTED with run + 1 and no new key, or to REQUESTED when its node or volume is lost.
    State.STOPPED: frozenset({State.STARTED, State.REQUESTED, State.DELETING}),
    State.DELETING: frozenset({State.TOMBSTONE}),
    State.TOMBSTONE: frozenset({State.GONE, State.DELETING}),
    State.GONE: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Due:
    """The step that is due in a state, where it leads, and the longest it may take.

    `via` is the state that is saved before the step acts, so that a crash in the middle is seen and the step repeated.
    """

    step: Step
    then: State
    within_seconds: float
    via: State | None = None


_STOP = Due(Step.STOP, State.STOPPED, 60, via=State.STOPPING)
_PAUSE = Due(Step.PAUSE, State.PAUSED, 30, via=State.PAUSING)
_DELETE = Due(Step.DELETE, State.TOMBSTONE, 60, via=State.DELETING)
_RUN = {
    State.REQUESTED: Due(Step.MINT_KEY, State.KEYED, 30),
    State.KEYED: Due(Step.START, State.STARTED, 60),
    State.STARTED: Due(Step.AWAIT_JOIN, State.JOINED, 60),
    State.JOINED: Due(Step.AWAIT_READY, State.READY, 120),
    State.PAUSED: Due(Step.RESUME, State.JOINED, 30),
    State.STOPPING: _STOP,
    State.STOPPED: Due(Step.RESTART, State.STARTED, 60),
}


NEXT: dict[Wanted, dict[State, Due]] = {
    Wanted.RUNNING: _RUN | {State.PAUSING: Due(Step.RESUME, State.READY, 30)},
    Wanted.PAUSED: _RUN | {State.READY: _PAUSE, State.PAUSING: _PAUSE},
    Wanted.STOPPED: dict.fromkeys(
        (
            State.REQUESTED,
            State.KEYED,
            State.STARTED,
            State.JOINED,
            State.READY,
            State.PAUSING,
            State.PAUSED,
            State.STOPPING,
        ),
        _STOP,
    ),
    Wanted.DELETED: {state: _DELETE for state in State if state not in (State.TOMBSTONE, State.GONE)}
    | {State.TOMBSTONE: Due(Step.CONFIRM_GONE, State.GONE, 60)},
}
NEXT[Wanted.PAUSED].pop(State.PAUSED)
# By way of a pause, which cuts no request off.
NEXT[Wanted.ASLEEP] = NEXT[Wanted.STOPPED] | {State.READY: _PAUSE, State.PAUSING: _PAUSE}


def next_step(state: State, wanted: Wanted) -> Due | None:
    """The step that is due, or None when reality is what the owner wants."""
    return NEXT[wanted].get(state)


def check_move(state: State, to: State) -> None:
    """Raise Conflict unless the table allows the move. Staying is always allowed."""
    if to is not state and to not in TRANSITIONS[state]:
        raise Conflict(
            f"cannot move an agent from {state} to {to}: the table of states does not allow it", code="illegal_move"
        )


WAKEABLE = frozenset({Wanted.PAUSED, Wanted.ASLEEP})
"""What is wanted of an agent that runs again as soon as a request comes for it."""

ROUTABLE = frozenset({State.READY})
"""States in which a relay may send an owner's requests to the agent."""

SETTLING = frozenset({State.REQUESTED, State.KEYED, State.STARTED, State.JOINED, State.PAUSING, State.STOPPING})
"""States on the way somewhere, for progress displays."""
