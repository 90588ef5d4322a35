"""Small pieces of concurrency: things at once, and iterators that are closed when left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from elizacloud.beside import finish

T = TypeVar("T")
U = TypeVar("U")


async def for_each(ids: Iterable[str], act: Callable[[str], Awaitable[object]], what: str) -> None:
    """Do it for all ids at once. The first error ends the others and is raised."""

    async def one(id_: str) -> None:
        await act(id_)

    await finish([asyncio.create_task(one(id_), name=f"{what} {id_}") for id_ in ids])


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """What each returns; they run beside each other. The first error ends the other and is raised."""
    one = asyncio.create_task(first, name="first of both")
    other = asyncio.create_task(second, name="second of both")
    await finish([one, other])
    return one.result(), other.result()


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close the iterator at the end of the block, if it can be closed: what it holds is let go at once then."""
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
