"""Small pieces of concurrency: things at once with one error of ours, and iterators that are closed when left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from elizacloud.errors import Error

T = TypeVar("T")
U = TypeVar("U")


async def for_each(ids: Iterable[str], act: Callable[[str], Awaitable[object]], what: str) -> None:
    """Do it for all ids at once. The first error ends the others and is raised."""

    async def one(id_: str) -> None:
        await act(id_)

    try:
        async with asyncio.TaskGroup() as tasks:
            for id_ in ids:
                tasks.create_task(one(id_), name=f"{what} {id_}")
    except* Error as errors:
        raise first_error(errors) from errors


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """What each returns; they run beside each other. The first error ends the other and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(first, name="first of both")
            other = tasks.create_task(second, name="second of both")
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
    return one.result(), other.result()


def first_error(group: BaseExceptionGroup[Error]) -> Error:
    """One of a group's errors, to be raised alone."""
    for error in group.exceptions:
        return first_error(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close the iterator at the end of the block, if it can be closed: what it holds is let go at once then."""
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
