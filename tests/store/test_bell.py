import asyncio
import gc
from contextlib import suppress

import pytest

from elizacloud.store.bell import Bell, Waiter

NEVER = 1000.0


async def rings(waiter: Waiter) -> bool:
    """Whether the waiter was rung already."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await waiter.wait(NEVER)
            return True
    return False


async def test_a_ring_wakes_those_of_the_agent_and_those_of_all() -> None:
    bell = Bell()
    ada, bob, everybody = bell.waiter("ada"), bell.waiter("bob"), bell.waiter(None)
    bell.ring("ada")
    assert [await rings(waiter) for waiter in (ada, bob, everybody)] == [True, False, True]


async def test_a_ring_before_the_wait_is_not_lost_and_one_before_the_waiter_is() -> None:
    bell = Bell()
    bell.ring("ada")
    waiter = bell.waiter("ada")
    assert not await rings(waiter)
    bell.ring("ada")
    assert await rings(waiter)
    assert not await rings(bell.waiter("ada"))


async def test_ringing_all_wakes_everyone() -> None:
    bell = Bell()
    waiters = [bell.waiter("ada"), bell.waiter("ada"), bell.waiter("bob"), bell.waiter(None)]
    bell.ring_all()
    assert all([await rings(waiter) for waiter in waiters])


@pytest.mark.looptime
async def test_a_wait_ends_with_its_time() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await Bell().waiter("ada").wait(15)
    assert loop.time() - before == 15


async def test_waiters_that_are_gone_leave_nothing() -> None:
    bell = Bell()
    for number in range(100):
        bell.waiter(f"agent {number}")
    gc.collect()
    assert len(bell._rung) == 0
