"""In virtual time with a scripted process; what real children do is test_child.py's."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from elizacloud.processes import Backoff, Child, Exit, Exited, SpawnFailed, Started, spawn, supervise
from tests.processes.conftest import ENV, Printed, python

BACKOFF = Backoff(first_seconds=1, cap_seconds=8, jitter=0, reset_after_seconds=60)


@dataclass
class Scripted:
    """Lives for `uptime_seconds`, or until stopped."""

    uptime_seconds: float
    pid: int = 4711
    stopped_with: list[float] = field(default_factory=list)

    async def wait(self) -> Exit:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.uptime_seconds):
                await asyncio.Event().wait()
        return Exit(1)

    async def stop(self, grace_seconds: float) -> Exit:
        self.stopped_with.append(grace_seconds)
        return Exit(-15)


class Story:
    """What the hook heard, with times, until `length` events; then the supervision ends."""

    def __init__(self, length: int) -> None:
        self.events: list[Started | Exited] = []
        self.times: list[float] = []
        self._length = length

    async def __call__(self, event: Started | Exited) -> None:
        self.events.append(event)
        self.times.append(asyncio.get_running_loop().time())
        if len(self.events) == self._length:
            raise asyncio.CancelledError

    @property
    def retries(self) -> list[float]:
        return [event.retry_seconds for event in self.events if isinstance(event, Exited)]


@pytest.mark.looptime
async def test_each_short_life_doubles_the_wait_and_a_long_one_resets_it() -> None:
    lives = iter([0.5, 0.5, 0.5, 0.5, 0.5, 61.0, 0.5])
    processes: list[Scripted] = []

    async def start() -> Scripted:
        processes.append(Scripted(next(lives)))
        return processes[-1]

    story = Story(14)
    with pytest.raises(asyncio.CancelledError):
        await supervise("child", start, hook=story, backoff=BACKOFF)
    assert story.retries == [1, 2, 4, 8, 8, 1, 2]
    assert story.times[:5] == [0, 0.5, 1.5, 2, 4]
    assert all(process.stopped_with == [5.0] for process in processes)


@pytest.mark.looptime
async def test_a_child_that_cannot_start_is_tried_again() -> None:
    failure = SpawnFailed("cannot start child: it is not there")
    answers: Iterator[SpawnFailed | Scripted] = iter([failure, failure, Scripted(0)])

    async def start() -> Scripted:
        answer = next(answers)
        if isinstance(answer, SpawnFailed):
            raise answer
        return answer

    story = Story(3)
    with pytest.raises(asyncio.CancelledError):
        await supervise("child", start, hook=story, backoff=BACKOFF)
    assert story.events[0] == Exited("child", None, None, failure, 0, 1)
    assert story.times == [0, 1, 3]


@pytest.mark.looptime
async def test_cancelling_stops_the_child_with_the_grace_given() -> None:
    process = Scripted(1000)

    async def start() -> Scripted:
        return process

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await supervise("child", start, backoff=BACKOFF, grace_seconds=3)
    assert process.stopped_with == [3]


@pytest.mark.looptime
async def test_cancelling_during_the_wait_starts_nothing_more() -> None:
    starts = 0

    async def start() -> Scripted:
        nonlocal starts
        starts += 1
        return Scripted(0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await supervise("child", start, backoff=BACKOFF)
    assert starts == 1


@pytest.mark.looptime
async def test_an_error_of_the_hook_stops_the_child() -> None:
    process = Scripted(1000)

    async def start() -> Scripted:
        return process

    async def hook(_: Started | Exited) -> None:
        raise RuntimeError("not ready")

    with pytest.raises(RuntimeError, match="not ready"):
        await supervise("child", start, hook=hook)
    assert process.stopped_with == [5.0]


async def test_real_children_follow_one_another() -> None:
    async def start() -> Child:
        return spawn(python("raise SystemExit(7)"), name="child", env=ENV, log=Printed())

    story = Story(4)
    with pytest.raises(asyncio.CancelledError):
        await supervise("child", start, hook=story, backoff=Backoff(first_seconds=0.001))
    first, first_exit, second, second_exit = story.events
    assert isinstance(first, Started)
    assert isinstance(first_exit, Exited)
    assert isinstance(second, Started)
    assert isinstance(second_exit, Exited)
    assert first.process.pid == first_exit.pid != second.process.pid
    assert first_exit.exit == second_exit.exit == Exit(7)
