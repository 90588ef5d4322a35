"""One owner's agents and the tailscaled that leads to everybody's, in one process: what relay_streams.py measures with.

    python -m bench.relay_agents LOCAL_API_SOCKET HANDED

Connections to the other owner's agents are handed over at the socket HANDED: relay_neighbour.py has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
import time
from dataclasses import dataclass
from typing import cast

import uvloop

from elizacloud.model import agent_tag

EVENTS_PER_SECOND = 10
BODY_BYTES = 64 << 20
PIECE = bytes(64 << 10)
"""Of a long body."""
_read = memoryview(bytearray(len(PIECE)))
_WANTED_FILES = 32_768

_DIALLED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n"
_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, relay"
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An owner with one agent."""

    number: int

    @property
    def agent_id(self) -> str:
        return f"kbench{self.number:010}"

    @property
    def ip(self) -> str:
        return f"100.64.0.{6 + self.number}"

    @property
    def token(self) -> str:
        return f"ec_benchbench{self.number:02}_secret"

    def request(self, path: str, headers: str = "", method: str = "GET") -> bytes:
        return (
            f"{method} /api/relay/{self.agent_id}{path} HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {self.token}\r\n{headers}\r\n"
        ).encode()


TENANTS = (Tenant(1), Tenant(2))
_OTHERS_DIAL = f"Dial-Host: {TENANTS[1].ip}".encode()


class ShortReads(asyncio.BufferedProtocol):
    """Calls `data_received` with 64 KB at most, which were read into memory that is there already.

    The relay's own may be compiled, and nothing interpreted inherits from that.
    """

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(_read[:nbytes].tobytes())

    def data_received(self, data: bytes) -> None: ...


class Agents(ShortReads):
    """Every agent, and the tailscaled that leads to them."""

    streams: list[asyncio.Transport] = []  # noqa: RUF012 - all of the process
    handed = ""
    """Where the other owner's agents are."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._held = b""
        self._swallows = False
        self._writable = asyncio.Event()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport in self.streams:
            self.streams.remove(self._transport)
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._swallows:
            return
        *heads, self._held = (self._held + data).split(_END)
        for head in heads:
            if _OTHERS_DIAL in head:
                self._hand_over()
                return
            self._answer(head.split(b" ", 2)[1].partition(b"?")[0])

    def _answer(self, path: bytes) -> None:
        if path == b"/events":
            self._transport.write(_EVENTS)
            self.streams.append(self._transport)
        elif path == b"/upload":
            self._transport.write(_EVENTS)  # an early answer that never ends: the upload goes on, and the client knows
            self._swallows = True
        elif path == b"/body":
            self._sending = asyncio.get_running_loop().create_task(self._send_body(), name="body")
        else:
            self._transport.write(_LOCAL_API.get(path, _SMALL))

    def _hand_over(self) -> None:
        self._transport.pause_reading()
        descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
        os.write(descriptor, _DIALLED)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.connect(self.handed)
            socket.send_fds(other, [b" "], [descriptor])
        os.close(descriptor)
        self._transport.abort()

    async def _send_body(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
        for _ in range(BODY_BYTES // len(PIECE)):
            self._transport.write(PIECE)
            await self._writable.wait()

    @classmethod
    async def tell_events(cls) -> None:
        """An event with the time of its sending to each stream, so many times a second, evenly spread."""
        loop, turns, turn = asyncio.get_running_loop(), 10, 0
        began = loop.time()
        while True:
            for stream in cls.streams[turn % turns :: turns]:
                event = b"data: %d\n\n" % time.monotonic_ns()
                stream.write(b"%x\r\n%b\r\n" % (len(event), event))
            turn += 1
            await asyncio.sleep(max(0.0, began + turn / (turns * EVENTS_PER_SECOND) - loop.time()))


def _json_answer(what: object) -> bytes:
    body = json.dumps(what).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


_SELF = {"BackendState": "Running", "HaveNodeKey": True, "Self": {"ID": "1"}, "TailscaleIPs": ["100.64.0.1"]}
_PEERS = {
    f"nodekey:{tenant.number}": {
        "ID": str(tenant.number),
        "PublicKey": f"nodekey:{tenant.number}",
        "TailscaleIPs": [tenant.ip],
        "Tags": ["tag:agent", agent_tag(tenant.agent_id)],
        "Online": True,
    }
    for tenant in TENANTS
}
_NETMAP = json.dumps({"State": 6, "InitialStatus": {**_SELF, "Peer": _PEERS}}).encode()
_LOCAL_API = {
    b"/ws": _UPGRADED,
    b"/localapi/v0/dial": _DIALLED,
    b"/localapi/v0/watch-ipn-bus": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + _NETMAP + b"\n",
    b"/localapi/v0/status": _json_answer(_SELF),
    b"/localapi/v0/ping": _json_answer({"LatencySeconds": 0.001}),
}


async def serve_agents(path: str, handed: str) -> None:
    raise_file_limit()
    Agents.handed = handed
    server = await asyncio.get_running_loop().create_unix_server(Agents, path, backlog=1024)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve_forever(), name="agents")
        tasks.create_task(Agents.tell_events(), name="events")


def raise_file_limit() -> int:
    """As far as this user may, also for its children; return how many files may be open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(hard, _WANTED_FILES), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


if __name__ == "__main__":
    uvloop.run(serve_agents(sys.argv[1], sys.argv[2]))
