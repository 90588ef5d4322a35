"""Server-sent events: the format (WHATWG HTML section 9.2.6), and following a stream across broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field

import aiohttp

from elizacloud.client.transport import TIMED_OUT, UNREACHABLE
from elizacloud.errors import Unavailable

LINE_LIMIT_BYTES = 4 * 1024 * 1024
_FIRST_RETRY_SECONDS = 0.2
_LAST_RETRY_SECONDS = 5.0
_FRUITLESS_RETRIES = 8
_LASTING_SECONDS = 5.0
"""A connection that lasted so long was not ended at once; that nothing happens for days is no reason to give up."""

Open = Callable[[str | None], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Opens the stream after the event with that id; None is from its beginning."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event; `id` is the last one that was given, also by an earlier event."""

    data: str
    name: str = "message"
    id: str | None = None


@dataclass
class Decoder:
    """Bytes in, events out. A line over LINE_LIMIT_BYTES raises ValueError."""

    last_id: str | None = None
    retry_seconds: float | None = None
    _rest: bytes = b""
    _name: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        # A chunk may end between CR and LF: the CR is held back until it is known what follows.
        text = self._rest + data
        held = text[-1:] if text.endswith(b"\r") else b""
        text = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        if len(self._rest) > LINE_LIMIT_BYTES:
            raise ValueError("a line of the event stream is too long")
        for line in lines:
            if event := self._line(line.decode("utf-8", "replace")):
                yield event

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            data, name = self._data, self._name
            self._data, self._name = [], ""
            return ServerSentEvent("\n".join(data), name or "message", self.last_id) if data else None
        field_name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field_name == "data":
            self._data.append(value)
        elif field_name == "event":
            self._name = value
        elif field_name == "id" and "\0" not in value:
            self.last_id = value
        elif field_name == "retry" and value.isdigit():
            self.retry_seconds = int(value) / 1000
        return None


async def follow(
    open_stream: Open, *, last_id: str | None = None, again: bool = True
) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of a stream, for ever: when the connection breaks, it is opened again after the last event seen.

    Ends when the server answers 204 (its way to say "do not come back") and, without `again`, when it ends the stream.
    Raises what `open_stream` raises, and Unavailable when the server stays away or ends every connection at once.
    """
    clock = asyncio.get_running_loop().time
    decoder = Decoder(last_id=last_id)
    fruitless = 0
    while True:
        try:
            async with open_stream(decoder.last_id) as answer:
                if answer.status == 204:
                    return
                opened = clock()
                try:
                    async with aclosing(_events(decoder, answer)) as events:
                        async for event in events:
                            fruitless = 0
                            yield event
                finally:
                    if clock() - opened >= _LASTING_SECONDS:
                        fruitless = 0
            if not again:
                return
        except Unavailable as error:
            if error.reason not in (UNREACHABLE, TIMED_OUT) or fruitless >= _FRUITLESS_RETRIES:
                raise
        fruitless += 1
        if fruitless > _FRUITLESS_RETRIES:
            raise Unavailable("cannot follow the events: the server ends the stream at once; try again later")
        # A half event of the broken connection must not run into the next one.
        decoder = Decoder(last_id=decoder.last_id, retry_seconds=decoder.retry_seconds)
        backoff_seconds = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** (fruitless - 1))
        await asyncio.sleep(backoff_seconds if decoder.retry_seconds is None else decoder.retry_seconds)


async def _events(decoder: Decoder, answer: aiohttp.ClientResponse) -> AsyncGenerator[ServerSentEvent, None]:
    async for data in answer.content.iter_any():
        for event in decoder.feed(data):
            yield event
