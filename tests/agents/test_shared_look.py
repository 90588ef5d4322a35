"""However many look at once, one call is made; an answer that is too old is not given; an error is shared."""

from __future__ import annotations

import asyncio

import pytest

from elizacloud.agents.shared_look import SharedLook
from elizacloud.errors import HeadscaleUnavailable

pytestmark = pytest.mark.looptime


class Looks:
    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    async def __call__(self) -> int:
        self.count += 1
        count = self.count
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        if self.fails:
            raise HeadscaleUnavailable("cannot look")
        return count


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_crowd_costs_one_look() -> None:
    looks = Looks()
    shared = SharedLook(looks, gap_seconds=1)
    async with asyncio.TaskGroup() as tasks:
        got = [tasks.create_task(shared.get(since=now())) for _ in range(20)]
    assert {task.result() for task in got} <= {1, 2}
    assert looks.count <= 2


async def test_an_older_answer_is_not_given_and_the_gap_is_kept() -> None:
    looks = Looks()
    shared = SharedLook(looks, gap_seconds=10)
    began = now()
    assert await shared.get(since=began) == 1
    assert await shared.get(since=began) == 1
    assert await shared.get(since=now() + 0.001) == 2
    assert now() - began >= 10


async def test_an_error_is_shared_and_not_kept() -> None:
    looks = Looks()
    shared = SharedLook(looks, gap_seconds=0)
    looks.fails = True
    began = now()
    for _ in range(3):
        with pytest.raises(HeadscaleUnavailable):
            await shared.get(since=began)
    assert looks.count == 1
    looks.fails = False
    assert await shared.get(since=now() + 1) == 2
