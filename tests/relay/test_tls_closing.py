"""How connections over TLS end. Clients here are sockets that block, in threads: those of asyncio read by themselves."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from elizacloud.relay.accepting import Acceptor, Handshakes
from elizacloud.relay.headers.forwarded import Peer
from elizacloud.relay.tls import ServerCertificate
from elizacloud.relay.tls_closing import Closings
from tests.relay.test_tls import write_pair

LONG = 16 << 20
"""Bytes: more than the buffers of two kernels."""


class Sender(asyncio.Protocol):
    """Sends as many bytes as it is asked for, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are, without saying so

    def data_received(self, data: bytes) -> None:
        self._transport.write(bytes(int(data)))
        self._transport.close()


@pytest.fixture
async def port(run_dir: Path) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    peer = Peer("127.0.0.1", True, False, b"")
    context = ServerCertificate(*write_pair(run_dir)).context
    handshakes = Handshakes(context, 20, lambda _: peer, lambda _: True, lambda _: None)
    acceptor = Acceptor(
        listener, Sender, handshakes=handshakes, on_arrived=lambda: None, closings=Closings(look_seconds=0.01)
    )
    acceptor.start()
    yield listener.getsockname()[1]
    acceptor.stop()


def ask(port: int, context: ssl.SSLContext, count: int) -> ssl.SSLSocket:
    """Ask for so many bytes, and read the first."""
    plain = socket.socket()
    plain.settimeout(20)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
    plain.connect(("127.0.0.1", port))
    client = context.wrap_socket(plain, server_hostname="relay.test")
    client.send(b"%d" % count)
    assert client.recv(1) == b"\0"
    return client


def read_all(client: ssl.SSLSocket) -> int:
    count = 0
    while data := client.recv(1 << 20):
        count += len(data)
    return count


def wait_until_cut(client: ssl.SSLSocket) -> None:
    """Never answer the goodbye, which comes as a record of its own."""
    with socket.socket(fileno=os.dup(client.fileno())) as plain, contextlib.suppress(ConnectionResetError):
        plain.settimeout(20)
        while plain.recv(1 << 16):
            pass


async def test_who_reads_late_gets_all_and_who_has_all_is_cut(run_dir: Path, port: int) -> None:
    context = ssl.create_default_context(cafile=str(run_dir / "relay.crt"))
    late = await asyncio.to_thread(ask, port, context, LONG)
    silent = await asyncio.to_thread(ask, port, context, 1)
    await asyncio.to_thread(wait_until_cut, silent)
    assert await asyncio.to_thread(read_all, late) == LONG - 1
    for client in (late, silent):
        client.close()
