"""The control plane as it is, with seams: `python -m tests.chaos.control_plane serve`, as `python -m elizacloud serve`.

A seam is a place inside a step of an agent: its begin, its end, and the moments before and after each call to Headscale,
the runtime, the relays and the store. It is put around the calls of this one process, from outside, so that the product
has none: no line, no cost, and no setting by which somebody could switch one on. A call that a step makes in a later
version has its seam as soon as it is written.

At every seam the process asks at the socket CHAOS_SOCKET (gate.py has the other end) and waits for its word.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from pydantic import SecretStr

from elizacloud.agents.drive import Driver
from elizacloud.agents.lifecycle import Lifecycle
from elizacloud.cli import main
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.model import OPERATOR
from elizacloud.relay.link.hub import Hub
from elizacloud.runtime.process.runtime import ProcessRuntime
from elizacloud.states import Due
from elizacloud.store import Record
from elizacloud.store.agents import Agents
from elizacloud.store.tokens import Tokens

CALLS: dict[type, tuple[str, ...]] = {
    HeadscaleClient: (
        "create_preauth_key",
        "expire_preauth_key",
        "delete_preauth_key",
        "list_preauth_keys",
        "get_node",
        "list_nodes",
        "delete_node",
    ),
    ProcessRuntime: ("create", "start", "pause", "resume", "stop", "remove", "inspect", "list", "list_volumes"),
    Hub: ("withdraw", "probe"),
    Agents: ("save",),
    Tokens: ("revoke_of_agent",),
}

Call = Callable[..., Awaitable[Any]]

_here: ContextVar[tuple[str, str] | None] = ContextVar("here", default=None)
"""The agent and the step that this task works for."""


class Door:
    """Asks the test at each seam, and takes its orders."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def pass_through(self, seam: str) -> None:
        here = _here.get()
        if here is None or self._writer is None:
            return
        number = next(self._numbers)
        passed = self._waiting[number] = asyncio.get_running_loop().create_future()
        question = {"number": number, "agent": here[0], "step": here[1], "seam": seam}
        self._writer.write(json.dumps(question).encode() + b"\n")
        try:
            await passed
        finally:
            self._waiting.pop(number, None)

    async def obey(self, lifecycle: Lifecycle) -> None:
        """Until the test closes the socket; from then on every seam is open."""
        reader, self._writer = await asyncio.open_unix_connection(os.environ["CHAOS_SOCKET"])
        async for line in reader:
            order = json.loads(line)
            if "pause" in order:  # which no public call asks for
                await lifecycle.operations.pause(order["pause"], OPERATOR)
            elif "rekey" in order:
                await lifecycle.containers.rekey(order["rekey"], SecretStr(order["token"]))
            elif (passed := self._waiting.get(order["go"])) is not None and not passed.done():
                passed.set_result(None)
        self._writer = None
        for passed in self._waiting.values():
            passed.set_result(None)


door = Door()


def with_seams(name: str, call: Call) -> Call:
    @functools.wraps(call)
    async def seamed(self: Any, *arguments: Any, **named: Any) -> Any:
        about = f"{name} {arguments[0].state}" if name == "save" else name
        await door.pass_through(f"before {about}")
        answer = await call(self, *arguments, **named)
        await door.pass_through(f"after {about}")
        return answer

    return seamed


def in_step(step_of: Call) -> Call:
    @functools.wraps(step_of)
    async def seamed(self: Any, *arguments: Any) -> Any:
        (record,) = (each for each in arguments if isinstance(each, Record))
        due = next((each for each in arguments if isinstance(each, Due)), None)
        here = _here.set((record.agent.id, due.step.value) if due is not None else None)
        try:
            await door.pass_through("begin")
            outcome = await step_of(self, *arguments)
            await door.pass_through("end")
            return outcome
        finally:
            _here.reset(here)

    return seamed


def obeying(run: Call) -> Call:
    @functools.wraps(run)
    async def driven(self: Lifecycle) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(door.obey(self), name="obey the test")
            tasks.create_task(run(self), name="lifecycle with seams")  # type: ignore[arg-type]

    return driven


def put_seams() -> None:
    for owner, names in CALLS.items():
        for name in names:
            setattr(owner, name, with_seams(name, getattr(owner, name)))
    Driver._step = in_step(Driver._step)  # type: ignore[method-assign,assignment]
    Lifecycle.run = obeying(Lifecycle.run)  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    put_seams()
    main()
