"""How a connection to an upstream is made: through tailscaled's LocalAPI or its TUN device, or to a unix socket.

Each dialer is a callable that returns a connection whose next byte is the upstream's, or raises one of our errors. The
caller bounds the time and, for agents, checks who answers (reach.py).
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Protocol, cast

from elizacloud.errors import Refused, TailnetUnavailable, Unavailable
from elizacloud.relay.reading import BoundedReads
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.tailnet.dialer import DialAnswer, Outcome, dial_request, parse_dial_answer
from elizacloud.tailnet.tunnel import Tunnel


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


class TcpDialer:
    """Dials peers by plain sockets that are bound to the TUN device of the relay's tailscaled: TUN mode.

    Give `device_changed` to whoever hears of changes of this machine's devices.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._index: int | None = None
        self._connections: set[UpstreamConnection] = set()

    async def __call__(self, ip: str, port: int) -> UpstreamConnection:
        try:
            return await self._dial(ip, port)
        except OSError as error:
            raise _error_of(_answer_of(error)) from error

    async def _dial(self, ip: str, port: int) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        made = socket.socket(
            socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        )
        try:
            self._tunnel.bind(made)
            self._index = self._tunnel.index
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(made, (ip, port))
            _, connection = await loop.create_connection(lambda: _Tunnelled(self._connections), sock=made)
        except BaseException:
            made.close()
            raise
        return connection

    def device_changed(self) -> None:
        """End every connection when the device that they are bound to is gone: nothing would come from it any more."""
        index = self._tunnel.index
        if index != self._index:
            for connection in tuple(self._connections):
                connection.kill("tailscaled's device is gone")


class _Tunnelled(UpstreamConnection):
    """One that its dialer knows of as long as it lives."""

    __slots__ = ("_siblings",)

    def __init__(self, siblings: set[UpstreamConnection]) -> None:
        super().__init__()
        self._siblings = siblings

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._siblings.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._siblings.discard(self)
        super().connection_lost(error)


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


class _Dialling(BoundedReads):
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


def _answer_of(error: OSError) -> DialAnswer:
    if isinstance(error, ConnectionRefusedError):
        return DialAnswer(Outcome.REFUSED)
    return DialAnswer(Outcome.FAILED, detail=f"the dial failed ({error.strerror})")


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
