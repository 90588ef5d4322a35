"""The other owner at full speed: its agents and its clients, in a process that yields to everything else on its core.

    python -m bench.relay_neighbour HANDED READY PORT CONNECTIONS [--bodies | --uploads]

What is measured beside it is what the relay makes of it, so it takes no part in anything but the relay: connections to
its agents are handed over at the socket HANDED (by relay_agents.py), and its calls are short, since a kernel may not
interrupt one for who is measured on the same core. It listens at READY when all clients are busy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from pathlib import Path

import uvloop

from bench.relay_agents import PIECE, TENANTS, Agents
from bench.relay_streams import Client, again_at_the_end, open_all

_, OTHER = TENANTS


class Upload(Client):
    """It never ends."""

    def __init__(self) -> None:
        super().__init__(OTHER.request("/upload", f"Content-Length: {1 << 50}\r\n", "POST"))
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._send()

    def _send(self) -> None:
        while self._writable and not self.transport.is_closing():
            self.transport.write(PIECE)


class Handed:
    """Takes the connections that are handed over."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._taking: set[asyncio.Task[object]] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            taking = self._loop.create_task(self._loop.connect_accepted_socket(Agents, connection), name="handed")
            self._taking.add(taking)
            taking.add_done_callback(self._taking.discard)


async def be_greedy(handed: Path, ready: Path, port: int, connections: int, *, bodies: bool, uploads: bool) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    Handed(handed)

    def make() -> Client:
        if uploads:
            return Upload()
        return Client(OTHER.request("/body" if bodies else "/"), again_at_the_end() if bodies else lambda data: True)

    await open_all(port, connections, make, b"HTTP/1.1 200 ")
    async with await asyncio.start_unix_server(lambda reader, writer: None, ready) as server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("handed", type=Path)
    parser.add_argument("ready", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--bodies", action="store_true")
    kinds.add_argument("--uploads", action="store_true")
    given = parser.parse_args()
    uvloop.run(be_greedy(**vars(given)))
