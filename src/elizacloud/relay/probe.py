"""Can this worker reach an agent over its own path, and what does its health path say: "ready" rests on this answer.

A probe uses a connection of its own, so that it proves a dial and not an old connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from elizacloud.errors import Error
from elizacloud.relay.http1.framing import Framing
from elizacloud.relay.http1.head import AnswerHead, Field
from elizacloud.relay.reach import Reach
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.upstreams import Probe, Upstream

_BODY_LIMIT_BYTES = 64 << 10
_PATH_CHARACTERS = "/?&=%:@!$'()*+,;~"
"""All else in an owner's health path is percent-encoded: it must not end the request line."""


FindPath = Callable[[str], Awaitable[None]]
"""Returns when packets get through to this tailnet address; raises TailnetUnavailable when they do not."""


async def no_wait(_: str) -> None:
    """For a dialer that needs no path."""


async def probe(reach: Reach, upstream: Upstream, *, within_seconds: float, find_path: FindPath = no_wait) -> Probe:
    """Ask once. Waits for the agent's node to appear in the netmap, all within the time; never raises an Error."""
    try:
        async with asyncio.timeout(within_seconds):
            await reach.until_peer(upstream)
            await find_path(upstream.ip)
            return await _ask(await reach.dial(upstream), upstream)
    except TimeoutError:
        return Probe(None, error=f"no answer in {within_seconds:g} s")
    except Error as error:
        return Probe(None, error=str(error))
    except OSError as error:  # the worker has no descriptor left, or the like: a probe must not end the link
        return Probe(None, error=f"cannot ask the agent: {error.strerror}")


async def _ask(connection: UpstreamConnection, upstream: Upstream) -> Probe:
    # No await between the dial's look at the netmap and these bytes.
    health = _HealthAnswer()
    connection.begin(health, b"GET", upgrade=False)
    if connection.closed:
        return Probe(None, error="the agent closed the connection: nothing listens on its port yet")
    connection.write(
        f"GET {quote(upstream.health_path, safe=_PATH_CHARACTERS)} HTTP/1.1\r\nHost: {upstream.ip}:{upstream.port}\r\n"
        f"Authorization: Bearer {upstream.agent_token.get_secret_value()}\r\nAccept: application/json\r\n"
        f"User-Agent: elizacloud-relay\r\nConnection: close\r\n\r\n".encode("ascii")
    )
    try:
        return await health.done
    finally:
        connection.abort()


class _HealthAnswer:
    """Collects a small answer (a taker of upstream.py)."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Probe] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = b""

    def alone(self) -> bool:
        return False

    def now(self, size: int, take: Callable[[int], None]) -> int:
        return size

    def answer(self, head: AnswerHead, framing: Framing, data: bytes) -> None:
        self._status = head.status
        self.answer_data(data)

    def answer_data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > _BODY_LIMIT_BYTES:
            self._finish(Probe(self._status))

    def answer_end(self, trailers: list[Field]) -> None:
        self._finish(Probe(self._status, _ready_flag(self._body)))

    def upstream_lost(self, reason: str) -> None:
        self._finish(Probe(None, error=reason))

    def answer_late(self) -> None:
        self._finish(Probe(None, error="no answer in time"))

    def upgraded(self, head: AnswerHead, data: bytes) -> None:
        self._finish(Probe(head.status))

    def informational(self, head: AnswerHead) -> None:
        pass

    def piped(self, data: bytes) -> None:
        pass

    def upstream_writable(self, writable: bool) -> None:
        pass

    def upstream_full(self) -> None:
        pass

    def _finish(self, probe: Probe) -> None:
        if not self.done.done():
            self.done.set_result(probe)


def _ready_flag(body: bytes) -> bool | None:
    """The agent's own `ready`; None when it does not say."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    ready = answer.get("ready") if isinstance(answer, dict) else None
    return ready if isinstance(ready, bool) else None
