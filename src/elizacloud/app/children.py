"""The children of `elizacloud up`: each supervised, started in order, stopped in reverse.

Reverse order is what keeps a shutdown clean: the relay drains while its agents still answer, the agents end before the
control server does (a Headscale with a connected node hangs in its own shutdown), and the tailnet goes last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, Signals

from elizacloud.errors import Misconfigured, Unavailable
from elizacloud.log import show_line
from elizacloud.processes import Child, Exited, LogFile, Started, spawn, supervise

OUR_ERROR = "elizacloud: "
"""What a command of ours begins its last sentence with (cli/command.py)."""


@dataclass(frozen=True)
class ChildSpec:
    """What to run. `when_parent_dies` is SIGTERM for a child that has children of its own to end."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str]
    pass_fds: Sequence[int] = ()
    when_parent_dies: Signals = SIGKILL
    grace_seconds: float = 5.0
    shown: bool = False
    """Its lines go to our own standard error as well as to its log file."""
    starting: Callable[[], AbstractContextManager[None]] = nullcontext
    """What each start is made in; an error of it that is not SpawnFailed ends the supervision."""


@dataclass
class Kept:
    """One supervised child as the rest of `up` sees it."""

    name: str
    log: LogFile
    task: asyncio.Task[None] | None = None
    child: Child | None = None
    exits: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def hear(self, news: Started | Exited) -> None:
        if isinstance(news, Exited):
            self.child, self.exits = None, self.exits + 1
        self.changed.set()

    async def started(self) -> Child:
        """The running child, once there is one."""
        while self.child is None:
            self.changed.clear()
            await self.changed.wait()
        return self.child


class Children:
    """Owns the supervision tasks; `stop` ends all, newest first. An error of one ends the group that it was given.

    They are not the group's own: an error in it would cancel them all at once, and `stop` a second time, which is a kill.
    """

    def __init__(self, group: asyncio.TaskGroup, logs: Path) -> None:
        self._group = group
        self._logs = logs
        self._kept: list[Kept] = []

    def keep(self, spec: ChildSpec) -> Kept:
        """Start the child and keep it running."""
        kept = Kept(spec.name, LogFile(self._logs / f"{spec.name.replace(' ', '-')}.log"))

        def show(line: bytes) -> None:
            kept.log.write(line)
            show_line(line)

        async def start() -> Child:
            with spec.starting():
                kept.child = spawn(
                    spec.argv,
                    name=spec.name,
                    env=spec.env,
                    log=show if spec.shown else kept.log.write,
                    pass_fds=spec.pass_fds,
                    when_parent_dies=spec.when_parent_dies,
                )
            return kept.child

        async def run() -> None:
            await supervise(spec.name, start, hook=kept.hear, grace_seconds=spec.grace_seconds)

        kept.task = asyncio.create_task(run(), name=f"supervise {spec.name}")
        self._kept.append(kept)
        self._group.create_task(_end_of(kept.task), name=f"end of {spec.name}")
        return kept

    async def stop(self) -> None:
        """Stop every child, the newest first, and wait for each. Raises, at the end, a group of their errors."""
        errors: list[BaseException] = []
        while self._kept:
            kept = self._kept.pop()
            if kept.task is not None:
                kept.task.cancel()
                await asyncio.wait([kept.task])
                if not kept.task.cancelled() and (error := kept.task.exception()):
                    errors.append(error)
            kept.log.close()
        if errors:
            raise BaseExceptionGroup("cannot keep or end children", errors)


async def _end_of(supervision: asyncio.Task[None]) -> None:
    await asyncio.shield(supervision)


async def ready_or_exit(children: Sequence[Kept], ready: Awaitable[None], *, within_seconds: float) -> None:
    """Wait until `ready` returns; Misconfigured, with what it said, when a child exits first, Unavailable when the time is up.

    The last of the children is the one that is to become ready; the others are what it needs.
    """

    async def exited(kept: Kept) -> None:
        while kept.exits == 0:
            kept.changed.clear()
            await kept.changed.wait()

    waiting = asyncio.ensure_future(ready)  # noqa: TID251 - owned and cancelled here
    dying = {asyncio.create_task(exited(kept), name=f"exit of {kept.name}"): kept for kept in children}
    tasks: set[asyncio.Future[None]] = {waiting, *dying}
    try:
        await asyncio.wait(tasks, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        kept = next((kept for task, kept in dying.items() if task.done()), children[-1])
        last = kept.log.recent()
        if not kept.exits:
            why = f"it was not ready within {within_seconds:g} s"
            raise Unavailable(f"cannot start {kept.name}: {why}; its last lines: {last or '(none)'}")
        said = [line.removeprefix(OUR_ERROR) for line in last.splitlines() if line.startswith(OUR_ERROR)]
        raise Misconfigured(
            said[-1] if said else f"cannot start {kept.name}: it exited; its last lines: {last or '(none)'}"
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
