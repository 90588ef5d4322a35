"""Calls and tasks that run beside each other, for those who go on after an error.

Until Python 3.13 asyncio.TaskGroup forgets a cancellation that meets an error of a task (github.com/python/cpython, issue
116720): who catches that error and goes on then stays for ever. A group serves where an error is the end of its owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast

from elizacloud.errors import Error

T = TypeVar("T")


async def finish(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for all. The first error ends the others and is raised once they are over; so does a cancellation."""
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end(tasks)
    for task in tasks:
        if task in done:
            task.result()


async def end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel those that are not over, and wait until they are; how each ended is its own."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at: asyncio need not report it


async def beside(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """The results of calls that act, or the first one's error.

    None is cut short when another fails: a call that was cancelled may have acted all the same.
    """
    tasks = [asyncio.create_task(settled(call), name=f"call {number}") for number, call in enumerate(calls)]
    await finish(tasks)
    results = [task.result() for task in tasks]
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
