"""Calls beside each other: what ends them, and that a cancellation is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from elizacloud.agents.together import for_each
from elizacloud.beside import beside, end, finish
from elizacloud.errors import Conflict, Error, Unavailable


class Calls:
    """Calls that tell how they ended."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.go = asyncio.Event()

    async def fails(self, name: str = "fails") -> None:
        await self.go.wait()
        self.ended[name] = "failed"
        raise Unavailable(f"cannot do {name}")

    async def stays(self, name: str = "stays") -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended[name] = "ended"

    async def works(self, name: str = "works") -> str:
        await self.go.wait()
        await asyncio.sleep(0)
        self.ended[name] = "worked"
        return name


def tasks(*calls: Coroutine[Any, Any, object]) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(call, name=f"call {number}") for number, call in enumerate(calls)]


async def test_the_first_error_ends_the_others_and_is_raised_once_they_are_over() -> None:
    calls = Calls()
    calls.go.set()
    with pytest.raises(Unavailable, match="cannot do fails"):
        await finish(tasks(calls.stays(), calls.fails()))
    assert calls.ended == {"fails": "failed", "stays": "ended"}


async def test_an_error_on_the_way_out_does_not_hide_the_first() -> None:
    calls = Calls()
    calls.go.set()

    async def fails_to_end() -> None:
        try:
            await calls.stays()
        except asyncio.CancelledError:
            raise Conflict("cannot end") from None

    with pytest.raises(Unavailable, match="cannot do fails"):
        await finish(tasks(fails_to_end(), calls.fails()))


async def test_without_tasks_there_is_nothing_to_wait_for() -> None:
    await finish([])
    await end([])
    assert await beside() == []


async def test_none_of_the_calls_that_act_is_cut_short() -> None:
    calls = Calls()
    calls.go.set()
    with pytest.raises(Unavailable, match="cannot do fails"):
        await beside(calls.fails(), calls.works())
    assert calls.ended == {"fails": "failed", "works": "worked"}


async def test_results_come_in_the_order_of_the_calls() -> None:
    calls = Calls()
    calls.go.set()
    assert await beside(calls.works("first"), calls.works("second")) == ["first", "second"]


async def _finish(calls: Calls) -> None:
    await finish(tasks(calls.stays(), calls.fails()))


async def _for_each(calls: Calls) -> None:
    await for_each(["fails", "stays"], lambda id_: calls.fails() if id_ == "fails" else calls.stays(), "try")


async def _beside(calls: Calls) -> None:
    await beside(calls.fails(), calls.works())


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("act", [_finish, _for_each, _beside])
async def test_a_cancellation_that_meets_an_error_is_not_lost(
    act: Callable[[Calls], Awaitable[None]], turns: int
) -> None:
    calls = Calls()

    async def goes_on() -> None:
        while True:
            try:
                await act(calls)
            except Error:
                calls.go.clear()

    owner = asyncio.create_task(goes_on(), name="goes on")
    await asyncio.sleep(0)
    calls.go.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    owner.cancel()
    done, _ = await asyncio.wait([owner], timeout=20)
    assert done, "the cancellation was forgotten"
    assert owner.cancelled()


async def test_a_cancellation_ends_all_before_it_goes_on() -> None:
    calls = Calls()
    owner = asyncio.create_task(finish(tasks(calls.stays("one"), calls.stays("other"))), name="finish")
    await asyncio.sleep(0)
    owner.cancel()
    await asyncio.wait([owner])
    assert owner.cancelled()
    assert calls.ended == {"one": "ended", "other": "ended"}
