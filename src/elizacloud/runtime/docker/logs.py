"""Lines out of a container's output, which Docker sends in pieces of any size."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

from elizacloud.errors import NotFound
from elizacloud.runtime.docker.engine import Engine, unix_time

LINE_MAX = 256 * 1024


class Lines:
    """Feed it pieces, take whole lines without their newline; a line without an end is cut at LINE_MAX characters."""

    def __init__(self) -> None:
        self._begun = ""

    def feed(self, piece: str) -> Iterator[str]:
        *whole, self._begun = (self._begun + piece).split("\n")
        yield from (line.removesuffix("\r") for line in whole)
        while len(self._begun) >= LINE_MAX:
            line, self._begun = self._begun[:LINE_MAX], self._begun[LINE_MAX:]
            yield line

    def rest(self) -> Iterator[str]:
        """What was begun and has no end, when there is any."""
        if self._begun:
            yield self._begun
        self._begun = ""


def lines_of(pieces: Iterable[str]) -> list[str]:
    lines = Lines()
    return [line for piece in pieces for line in lines.feed(piece)] + list(lines.rest())


async def _as_they_come(pieces: AsyncIterable[str]) -> AsyncGenerator[str, None]:
    lines = Lines()
    async for piece in pieces:
        for line in lines.feed(piece):
            yield line
    for line in lines.rest():
        yield line


async def follow(engine: Engine, container_id: str, tail: int) -> AsyncGenerator[str, None]:
    """The last lines, then new ones, also of later starts, until the container is removed. NotFound when it never was."""
    wanted: dict[str, Any] = {"tail": tail}
    begun = False
    while True:
        try:
            async with engine.streaming("follow the log") as docker:
                container = docker.containers.container(container_id)
                pieces = container.log(stdout=True, stderr=True, follow=True, **wanted)
                async with aclosing(_as_they_come(pieces)) as lines:
                    async for line in lines:
                        yield line
                begun = True
                # Docker ends the stream with the container; the next start goes on from there.
                ended = unix_time((await container.show())["State"]["FinishedAt"])
                wanted = {"since": ended}
                news = docker.events.subscribe(
                    since=ended, filters={"container": [container_id], "event": ["start", "destroy"]}
                )
                event = await news.get()
        except NotFound:
            if begun:
                return
            raise
        if event is None or event["Action"] == "destroy":
            return
