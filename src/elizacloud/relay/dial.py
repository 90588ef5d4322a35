"""How a connection to an upstream is made: through tailscaled's LocalAPI, or to a unix socket.

Each dialer is a callable that returns a connection whose next byte is the upstream's, or raises one of our errors. The
caller bounds the time and, for agents, checks who answers (reach.py).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol, cast

from elizacloud.errors import Refused, TailnetUnavailable, Unavailable
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.tailnet.dialer import DialAnswer, Outcome, dial_request, parse_dial_answer


class AgentDialer(Protocol):
    async def __call__(self, ip: str, port: int) -> UpstreamConnection:
        """Raises TailnetUnavailable, Unavailable `agent_unroutable`, Refused `agent_refused`; cancelling is clean."""


class LocalApiDialer:
    """Dials peers through the tailscaled at this socket, which must lie in a directory that only we can enter."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)

    async def __call__(self, ip: str, port: int) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        try:
            transport, dialling = await loop.create_unix_connection(_Dialling, self._socket)
        except OSError as error:
            raise TailnetUnavailable(
                f"cannot reach the tailnet: tailscaled does not answer ({error.strerror}); is it running?",
                retry_after_seconds=2,
            ) from error
        transport.write(dial_request(ip, port))
        try:
            answer = await dialling.answered
        except BaseException:
            transport.abort()
            raise
        if isinstance(answer, UpstreamConnection):
            return answer
        transport.abort()
        raise _error_of(answer)


class UnixDialer:
    """Connects to a server on a unix socket: the API."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    async def __call__(self) -> UpstreamConnection:
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(UpstreamConnection, self._path)
        except OSError as error:
            raise Unavailable(
                "cannot answer: the control plane is not reachable; agents still are. Try again in a moment",
                code="control_plane_unavailable",
                retry_after_seconds=1,
            ) from error
        return connection


class _Dialling(asyncio.Protocol):
    """The dial itself: reads tailscaled's answer and, in the same step, hands the transport to the connection."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[UpstreamConnection | DialAnswer] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are, without saying so

    def data_received(self, data: bytes) -> None:
        self._held += data
        answer = parse_dial_answer(self._held)
        if answer is None or self.answered.done():
            return
        if answer.outcome is not Outcome.CONNECTED:
            self.answered.set_result(answer)
            return
        connection = UpstreamConnection()
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        if answer.rest:
            connection.data_received(answer.rest)  # it speaks before it is asked, which ends it
        self.answered.set_result(connection)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_result(DialAnswer(Outcome.FAILED, detail="tailscaled closed the connection"))


def _error_of(answer: DialAnswer) -> Refused | Unavailable:
    if answer.outcome is Outcome.REFUSED:
        return Refused(
            "cannot reach the agent: nothing listens on its port; is it still starting?", code="agent_refused"
        )
    if answer.outcome is Outcome.NOT_A_PEER:
        return Unavailable(
            "cannot reach the agent: its address is not on the tailnet; try again in a moment",
            code="agent_unroutable",
            retry_after_seconds=1,
        )
    return Unavailable(
        f"cannot reach the agent: {answer.detail or 'the dial failed'}", code="agent_unroutable", retry_after_seconds=1
    )
