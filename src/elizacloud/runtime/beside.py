"""Calls that act, beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from elizacloud.errors import Error

T = TypeVar("T")


async def beside(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """The results of calls that run beside each other, or the first one's error.

    None is cut short when another fails: a call that was cancelled may have acted all the same.
    """
    async with asyncio.TaskGroup() as tasks:
        settling = [tasks.create_task(settled(call), name=f"call {number}") for number, call in enumerate(calls)]
    results = [each.result() for each in settling]
    for result in results:
        if isinstance(result, Error):
            raise result
    return cast(list[T], results)


async def settled(call: Coroutine[Any, Any, T]) -> T | Error:
    """What it returns, or the error of ours that it raises."""
    try:
        return await call
    except Error as error:
        return error
