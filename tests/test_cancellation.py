"""Cancellations that meet an error are not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import pytest

from elizacloud.cancellation import raise_if_cancelled
from elizacloud.errors import Unavailable


async def _fails_when_cancelled() -> NoReturn:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise Unavailable("it went at the same moment") from None
    raise AssertionError


async def _group() -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_fails_when_cancelled(), name="fails")
    except* Unavailable:
        raise_if_cancelled()


@pytest.mark.parametrize("work", [_group])
async def test_who_catches_the_error_of_a_group_and_goes_on_ends_all_the_same(
    work: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    begun = asyncio.Event()

    async def for_ever() -> NoReturn:
        while True:
            begun.set()
            try:
                await work()
            except Unavailable:
                await asyncio.Event().wait()

    task = asyncio.create_task(for_ever())
    await begun.wait()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([task])
    assert task.cancelled()


async def test_who_was_not_cancelled_goes_on() -> None:
    raise_if_cancelled()
