"""What runs under a lease is cut off when it ends, and calls outside begin only while enough of it is left."""

from __future__ import annotations

import asyncio

import pytest

from elizacloud.agents.sharing.hold import Alone, Hold, guarded
from elizacloud.errors import LeaseLost
from elizacloud.store import Fence
from tests.agents.world import _pass

pytestmark = pytest.mark.looptime

FENCE = Fence("agents 3", "cp", 7)


def hold(seconds: float) -> Hold:
    return Hold(FENCE, asyncio.get_running_loop().time() + seconds, needed_seconds=2.0)


class Outside:
    """`acts` counts the calls that arrived; each takes a second."""

    kind = "outside"

    def __init__(self) -> None:
        self.acts = 0

    async def act(self) -> str:
        self.acts += 1
        await _pass(1.0)
        return "done"


async def test_it_is_cut_off_at_the_end() -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(LeaseLost, match="agents 3"):
        async with hold(8.0).under():
            await _pass(100)
    assert asyncio.get_running_loop().time() - began == pytest.approx(8.0)


async def test_a_renewal_moves_the_end() -> None:
    mine, loop = hold(8.0), asyncio.get_running_loop()
    loop.call_later(5, lambda: mine.keep(loop.time() + 8.0))
    async with mine.under():
        assert not mine.is_idle
        await _pass(12.5)
    assert mine.is_idle
    assert not mine.is_over


async def test_what_is_over_is_not_revived() -> None:
    mine, loop = hold(8.0), asyncio.get_running_loop()
    await _pass(9)
    mine.keep(loop.time() + 8.0)
    assert mine.is_over
    with pytest.raises(LeaseLost):
        mine.check()


async def test_what_is_given_up_ends_at_once() -> None:
    mine = hold(8.0)
    asyncio.get_running_loop().call_later(1, mine.end)
    with pytest.raises(LeaseLost):
        async with mine.under():
            await _pass(100)


async def test_a_timeout_of_the_work_itself_is_its_own() -> None:
    with pytest.raises(TimeoutError):
        async with hold(8.0).under(), asyncio.timeout(1):
            await _pass(100)


async def test_a_call_begins_only_with_enough_left() -> None:
    outside, mine = Outside(), hold(8.0)
    under = guarded(outside, mine)
    assert under.kind == "outside"
    assert await under.act() == "done"
    await _pass(5.5)
    with pytest.raises(LeaseLost):
        await under.act()
    assert outside.acts == 1


async def test_an_answer_that_comes_too_late_counts_for_nothing() -> None:
    outside, mine = Outside(), hold(8.0)
    asyncio.get_running_loop().call_later(0.5, mine.end)
    with pytest.raises(LeaseLost):
        await guarded(outside, mine).act()
    assert outside.acts == 1


async def test_the_only_control_plane_is_never_cut_off() -> None:
    only, outside = Alone().of("any"), Outside()
    assert only is not None
    assert guarded(outside, only) is outside
    async with only.under():
        await _pass(1e6)
    only.check()
