"""The relay's workers: processes that share its listening socket, kept running, and replaced one at a time.

Each has a number that no other living one has: its name in logs and metrics, and `worker-{number}.sock`, an address at
which this one worker can be asked. A worker that replaces another one is ready before that one drains.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM

import structlog

from elizacloud.app.channel import Channel, Message
from elizacloud.app.metrics import Families
from elizacloud.errors import Unavailable
from elizacloud.log import show_line
from elizacloud.processes import Backoff, Child, Exited, Started, spawn, supervise
from elizacloud.tailnet.feed import NetmapFeed

READY_SECONDS = 30.0
METRICS_SECONDS = 2.0
"""How long a worker may take to say what it counts."""
MOST_UNANSWERED = 15
"""Beats, one a second, after which a worker that had answered before hangs."""
BACKOFF = Backoff(first_seconds=0.1, cap_seconds=5.0)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How to start a worker; its number and what it inherits are added to `argv`."""

    argv: Sequence[str | Path]
    environment: Mapping[str, str]
    listener: socket.socket
    grace_seconds: float


@dataclass(eq=False)
class _Worker:
    """One number, and the process that has it now."""

    number: int
    task: asyncio.Task[None] | None = None
    child: Child | None = None
    channel: Channel | None = None
    ready: bool = False
    exits: int = 0
    unanswered: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever it becomes ready or exits."""
    asked: dict[int, asyncio.Future[Families]] = field(default_factory=dict)

    def send(self, message: Message) -> None:
        if self.channel is None:
            return
        if "beat" in message:
            self.unanswered += 1
            if self.ready and self.unanswered > MOST_UNANSWERED and self.child is not None:
                log.warning("worker is stuck and is killed", worker=self.number, unanswered=self.unanswered)
                self.child.kill()
        self.channel.send(message)

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()


class Workers:
    """`start` them, `replace` all, `stop` all. An error of the supervision itself ends the group that it was given."""

    def __init__(self, tasks: asyncio.TaskGroup, command: WorkerCommand, feed: NetmapFeed) -> None:
        self._tasks = tasks
        self._command = command
        self._feed = feed
        self._workers: list[_Worker] = []
        self._asked = itertools.count(1)
        # Workers write to it themselves: their access logs are too much for one process to pass on.
        self._output = os.dup(sys.stderr.fileno())
        self.starts = 0

    def start(self, count: int) -> None:
        for _ in range(count):
            self._keep()

    async def replace(self) -> bool:
        """Every worker by a new one, one at a time; False when a new one did not get ready: then the others stay."""
        old_ones = tuple(self._workers)
        for old in old_ones:
            new = self._keep()
            try:
                await self._until_ready(new)
            except Unavailable as error:
                log.error("workers are not replaced", worker=old.number, reason=str(error))
                await self._end(new)
                return False
            log.info("worker replaced", worker=old.number, by=new.number)
            old.send({"succeeded": True})
            await self._end(old)
        return True

    async def stop(self) -> None:
        """Drain all of them at once, and wait."""
        await self._end(*self._workers)
        os.close(self._output)

    async def metrics(self) -> Mapping[str, Families]:
        """What each worker counts, by number; one that does not answer in time is left out."""
        found: dict[str, Families] = {}

        async def ask(worker: _Worker) -> None:
            number = next(self._asked)
            worker.asked[number] = answer = asyncio.get_running_loop().create_future()
            worker.send({"metrics": number})
            try:
                async with asyncio.timeout(METRICS_SECONDS):
                    found[str(worker.number)] = await answer
            except TimeoutError:
                log.warning("worker tells no metrics", worker=worker.number)
            finally:
                del worker.asked[number]

        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers:
                if worker.ready:
                    tasks.create_task(ask(worker), name=f"metrics of worker {worker.number}")
        return dict(sorted(found.items()))

    @property
    def ready(self) -> int:
        return sum(worker.ready for worker in self._workers)

    # One worker

    def _keep(self) -> _Worker:
        taken = {worker.number for worker in self._workers}
        worker = _Worker(next(number for number in itertools.count(1) if number not in taken))
        self._workers.append(worker)
        worker.task = self._tasks.create_task(self._run(worker), name=f"supervise worker {worker.number}")
        return worker

    async def _run(self, worker: _Worker) -> None:
        async def start() -> Child:
            return await self._start(worker)

        async def hear(news: Started | Exited) -> None:
            if isinstance(news, Exited):
                worker.child, worker.exits = None, worker.exits + 1
                worker.close()
                worker.news.set()

        name = f"relay worker {worker.number}"
        try:
            await supervise(name, start, hook=hear, backoff=BACKOFF, grace_seconds=self._command.grace_seconds)
        finally:
            worker.close()

    async def _start(self, worker: _Worker) -> Child:
        command = self._command
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                inherited = {"listen": command.listener.fileno(), "channel": theirs.fileno(), "output": self._output}
                options = [part for name, fd in inherited.items() for part in (f"--{name}-fd", str(fd))]
                child = worker.child = spawn(
                    [*command.argv, "--number", str(worker.number), *options],
                    name=f"relay worker {worker.number}",
                    env=command.environment,
                    log=show_line,  # what it says before it has our standard error: why it cannot start
                    pass_fds=tuple(inherited.values()),
                    when_parent_dies=SIGTERM,
                )
        except BaseException:
            ours.close()
            raise
        self.starts += 1
        try:
            await self._connect(worker, ours)
        except BaseException:
            await child.stop(0)
            raise
        return child

    async def _connect(self, worker: _Worker, end: socket.socket) -> None:
        send = worker.send

        def hear(message: Message) -> None:
            worker.unanswered = 0
            if "ready" in message:
                worker.ready = True
                worker.news.set()
            elif "again" in message:
                self._feed.tell_all(send)
            elif "metrics" in message and (answer := worker.asked.get(message["metrics"])) and not answer.done():
                answer.set_result(message["families"])

        def lost() -> None:
            worker.ready = False
            worker.channel = None
            self._feed.unsubscribe(send)

        worker.unanswered = 0
        worker.channel = Channel(hear, lost)
        await worker.channel.open(end)
        self._feed.subscribe(send)

    async def _until_ready(self, worker: _Worker) -> None:
        """Raises Unavailable when its process ends first, or the time is up."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not worker.ready:
                    if worker.exits:
                        raise Unavailable(f"cannot start worker {worker.number}: it exited; see its last lines above")
                    worker.news.clear()
                    await worker.news.wait()
        except TimeoutError:
            raise Unavailable(
                f"cannot start worker {worker.number}: in {READY_SECONDS:g} s it knew no table of upstreams, or no netmap; "
                "do control plane and tailscaled run?"
            ) from None

    async def _end(self, *workers: _Worker) -> None:
        tasks = [worker.task for worker in workers if worker.task is not None]
        for task in tasks:
            if not task.cancelling():  # a second time would be a kill
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._workers = [worker for worker in self._workers if worker not in workers]
