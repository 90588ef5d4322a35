"""Clients that forgive nothing: they never try again, so that every request that a relay loses is counted."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.e2e.cloud import Cloud
from tests.e2e.looking import a_moment

ANSWER_SECONDS = 30


@dataclass
class Wire:
    """One connection, over TCP or to a unix socket, with or without TLS."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: int = 0

    @classmethod
    async def to(cls, url: str) -> Wire:
        parts = urlsplit(url)
        context = None
        if parts.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, ssl=context))

    async def ask(self, head: str, body: bytes = b"") -> tuple[int, bytes, bool]:
        """Status, body and whether the connection may be used again. Raises OSError, IncompleteReadError."""
        self.requests += 1
        self.writer.write(head.encode() + body)
        return await self.answer()

    async def answer(self) -> tuple[int, bytes, bool]:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if "transfer-encoding: chunked" in head:
                body = b""
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            else:
                length = head.partition("content-length: ")[2].partition("\r\n")[0]
                body = await self.reader.readexactly(int(length))
        return int(head.split(" ")[1]), body, "connection: close" not in head

    def close(self) -> None:
        # Not `close`: over TLS that would wait for the other side, and the test's loop may end before.
        self.writer.transport.abort()


@dataclass
class Load:
    """Requests to one agent, for as long as the context lasts. `outcomes` counts statuses, and errors by their name."""

    cloud: Cloud
    agent_id: str
    outcomes: Counter[str] = field(default_factory=Counter)
    told_to_go: int = 0
    _over: bool = False

    def head(self, method: str, route: str, headers: str = "") -> str:
        return (
            f"{method} /api/relay/{self.agent_id}{route} HTTP/1.1\r\nHost: relay.test\r\n"
            f"Authorization: Bearer {self.cloud.token}\r\n{headers}\r\n"
        )

    @asynccontextmanager
    async def running(self, *, keeping: int = 8, fresh: int = 2, uploads: int = 2) -> AsyncIterator[Load]:
        """Clients that keep their connection, that take a new one for each request, and that send bodies slowly."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(keeping):
                tasks.create_task(self._keep(pause_seconds=0.001 * number), name=f"keeping {number}")
            for number in range(fresh):
                tasks.create_task(self._renew(), name=f"fresh {number}")
            for number in range(uploads):
                tasks.create_task(self._upload(), name=f"upload {number}")
            yield self
            self._over = True
        await asyncio.sleep(0)  # what was aborted is let go of in the next turn of the loop

    async def _keep(self, *, pause_seconds: float) -> None:
        wire = None
        while not self._over:
            try:
                wire = wire or await Wire.to(self.cloud.url)
                status, _, again = await wire.ask(self.head("GET", "/api/health"))
                self.outcomes[str(status)] += 1
                if not again:
                    self.told_to_go += 1
            except (OSError, EOFError, TimeoutError) as error:
                self.outcomes[f"{type(error).__name__} after {wire.requests if wire else 0}"] += 1
                again = False
            if not again and wire is not None:
                wire.close()
                wire = None
            await a_moment(pause_seconds)
        if wire is not None:
            wire.close()

    async def _renew(self) -> None:
        while not self._over:
            try:
                async with wire_to(self.cloud.url) as wire:
                    status, _, _ = await wire.ask(self.head("GET", "/api/health", "Connection: close\r\n"))
                    self.outcomes[str(status)] += 1
            except (OSError, EOFError, TimeoutError) as error:
                self.outcomes[f"fresh {type(error).__name__}"] += 1

    async def _upload(self, parts: int = 20, part: bytes = b"x" * 4096) -> None:
        """Bodies that take about a second to send, and so are under way whenever a worker drains."""
        while not self._over:
            try:
                async with wire_to(self.cloud.url) as wire:
                    head = self.head("POST", "/api/echo", f"Content-Length: {parts * len(part)}\r\n")
                    wire.writer.write(head.encode())
                    for _ in range(parts):
                        wire.writer.write(part)
                        await wire.writer.drain()
                        await a_moment(0.05)
                    status, body, _ = await wire.answer()
                    whole = json.loads(body)["bodyBytes"] == parts * len(part)
                    self.outcomes[str(status) if whole else "upload cut"] += 1
            except (OSError, EOFError, TimeoutError) as error:
                self.outcomes[f"upload {type(error).__name__}"] += 1


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    wire = await Wire.to(url)
    try:
        yield wire
    finally:
        wire.close()
