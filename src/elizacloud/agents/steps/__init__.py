"""One function a step of states.py. Each one looks before it acts, saves each fact before the next act, and can be
repeated after a crash at any line. It returns Moved, or Later while there is nothing to do, or raises an Error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from elizacloud.agents.parts import Outcome, Parts, Waiting
from elizacloud.agents.steps.ending import confirm_gone, delete, stop
from elizacloud.agents.steps.joining import await_join, await_ready
from elizacloud.agents.steps.launching import mint_key, restart, start
from elizacloud.agents.steps.pausing import pause, resume
from elizacloud.agents.steps.resting import rest
from elizacloud.states import Step
from elizacloud.store import Record

STEPS: dict[Step, Callable[[Parts, Record, Waiting], Awaitable[Outcome]]] = {
    Step.MINT_KEY: mint_key,
    Step.START: start,
    Step.AWAIT_JOIN: await_join,
    Step.AWAIT_READY: await_ready,
    Step.PAUSE: pause,
    Step.RESUME: resume,
    Step.STOP: stop,
    Step.RESTART: restart,
    Step.DELETE: delete,
    Step.CONFIRM_GONE: confirm_gone,
}

LOOKS = frozenset({Step.AWAIT_JOIN, Step.AWAIT_READY, Step.CONFIRM_GONE})
"""Steps that only look and are called again until they see it: they are not held back by a failure's pause."""

__all__ = ["LOOKS", "STEPS", "rest"]
