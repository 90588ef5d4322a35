"""Small pieces of concurrency: things at once, and iterators that are closed when left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from elizacloud.beside import finish

T = TypeVar("T")


async def for_each(ids: Iterable[str], act: Callable[[str], Awaitable[object]], what: str) -> None:
    """Do it for all ids at once. The first error ends the others and is raised."""

    async def one(id_: str) -> None:
        await act(id_)

    await finish([asyncio.create_task(one(id_), name=f"{what} {id_}") for id_ in ids])


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close the iterator at the end of the block, if it can be closed: what it holds is let go at once then."""
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
