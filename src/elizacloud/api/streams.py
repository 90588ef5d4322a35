"""Answers that go on: server-sent events (WHATWG HTML section 9.2) and lines of text.

They end when the source ends, when the client leaves, and when the server is about to stop. A comment now and then keeps
proxies from closing a quiet stream, and finds out that a client has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from fastapi.responses import StreamingResponse

T = TypeVar("T")

HEARTBEAT_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Source(Generic[T]):
    """An iterator that can be waited for with a deadline, without losing what comes after it."""

    def __init__(self, iterator: AsyncIterator[T], closing: asyncio.Event) -> None:
        self._iterator = iterator
        self._closing = closing
        self._next: asyncio.Task[T] | None = None
        self._end: asyncio.Task[bool] | None = None

    async def peek(self, seconds: float) -> None:
        """Wait a little for the first item; raises what the iterator raises, while an error can still be answered."""
        task = self._begin()
        await asyncio.wait([task], timeout=seconds)
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, StopAsyncIteration):
                raise error

    async def items(self, heartbeat_seconds: float) -> AsyncIterator[T | None]:
        """The items, and None whenever there was none for so long."""
        self._end = asyncio.create_task(self._closing.wait(), name="stream: wait for the end")
        try:
            while True:
                task = self._begin()
                await asyncio.wait([task, self._end], timeout=heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    self._next = None
                    try:
                        yield task.result()
                    except StopAsyncIteration:
                        return
                elif self._end.done():
                    return
                else:
                    yield None
        finally:
            await self.close()

    async def close(self) -> None:
        for task in (self._next, self._end):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
        self._next = self._end = None
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    def _begin(self) -> asyncio.Task[T]:
        if self._next is None:
            self._next = asyncio.create_task(_next(self._iterator), name="stream: next item")
        return self._next


async def _next(iterator: AsyncIterator[T]) -> T:
    """`anext` as a coroutine, which is what a task can be made of."""
    return await anext(iterator)


def sse_answer(
    source: Source[T], frame: Callable[[T], str], *, last: Callable[[T], bool] = lambda item: False
) -> StreamingResponse:
    """Items as events; ends after an item that is the last."""

    async def body() -> AsyncIterator[str]:
        yield f"retry: {RETRY_MILLISECONDS}\n\n"
        items = source.items(HEARTBEAT_SECONDS)
        try:
            async for item in items:
                yield ": still here\n\n" if item is None else frame(item)
                if item is not None and last(item):
                    return
        finally:
            await items.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(body(), media_type="text/event-stream", headers=_HEADERS)


def text_answer(source: Source[str]) -> StreamingResponse:
    """Items as lines."""

    async def body() -> AsyncIterator[str]:
        items = source.items(HEARTBEAT_SECONDS)
        try:
            async for item in items:
                if item is not None:
                    yield item + "\n"
        finally:
            await items.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(body(), media_type="text/plain; charset=utf-8", headers=_HEADERS)


def sse_frame(data: str, *, id_: str | None = None) -> str:
    """One event; each line of the data gets its own field."""
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    head = f"id: {id_}\n" if id_ is not None else ""
    return head + "".join(f"data: {line}\n" for line in lines) + "\n"
