"""The agent that every relay is measured with: a constant answer, as fast as one process can, so that it is never the limit.

    python -m bench.relay.upstream PORT LOCAL_API_SOCKET

It closes a connection that is idle for 5 s, as Node's server does: the agents are Node. Plain epoll, because an event loop
and a parser would cost as much as the relays that are measured. On the unix socket it plays tailscaled: a LocalAPI whose
one peer is this upstream, so that our relay can be measured without a tailnet.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time

from elizacloud.model import agent_tag

AGENT = "kbench0000000001"
IP = "100.64.0.7"
NODE_ID = "7"
BIG_PATH = "/big"
BIG_BYTES = 64 * 1024 * 1024
IDLE_SECONDS = 5

_END = b"\r\n\r\n"
_READ_BYTES = 65536
_SWEEP_SECONDS = 1.0
_CHUNK = bytes(1024 * 1024)
_PEER = {"ID": NODE_ID, "PublicKey": "nodekey:7", "TailscaleIPs": [IP], "Tags": ["tag:agent", agent_tag(AGENT)]}
_SELF = {"BackendState": "Running", "HaveNodeKey": True, "Self": {"ID": "1"}, "TailscaleIPs": ["100.64.0.1"]}
_NETMAP = {"State": 6, "InitialStatus": {**_SELF, "Peer": {"nodekey:7": {**_PEER, "Online": True}}}}


def _answer(kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


_SMALL = _answer("text/plain", b"hello, relay")
_BIG_HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {BIG_BYTES}\r\n\r\n".encode()
_DIALLED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n"
_WATCHED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(_NETMAP).encode() + b"\n"
_LOCAL_API = {
    b"/localapi/v0/dial": _DIALLED,
    b"/localapi/v0/watch-ipn-bus": _WATCHED,
    b"/localapi/v0/status": _answer("application/json", json.dumps(_SELF).encode()),
    b"/localapi/v0/ping": _answer("application/json", b'{"LatencySeconds":0.001}'),
}


class Upstream:
    """Serves on these listening sockets, until the process is ended."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._open: dict[int, socket.socket] = {}
        self._begun: dict[int, bytes] = {}
        self._used: dict[int, float] = {}
        self._now = time.monotonic()
        self._poll = select.epoll()
        for descriptor in self._listeners:
            self._poll.register(descriptor, select.EPOLLIN)

    def serve(self) -> None:
        while True:
            events = self._poll.poll(_SWEEP_SECONDS)
            if (now := time.monotonic()) > self._now + _SWEEP_SECONDS:
                self._now = now
                self._close_idle()
            for descriptor, _ in events:
                if (listener := self._listeners.get(descriptor)) is not None:
                    connection, _ = listener.accept()
                    self._take(connection)
                elif descriptor in self._open:
                    self._read(descriptor)

    def _close_idle(self) -> None:
        """Those of the LocalAPI stay: one of them follows the netmap."""
        for descriptor, used in tuple(self._used.items()):
            if used + IDLE_SECONDS < self._now:
                self._forget(descriptor).close()

    def _forget(self, descriptor: int) -> socket.socket:
        self._begun.pop(descriptor, None)
        self._used.pop(descriptor, None)
        return self._open.pop(descriptor)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[connection.fileno()] = connection
        self._poll.register(connection, select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        connection = self._open[descriptor]
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget(descriptor).close()
            return
        if self._begun:
            data = self._begun.pop(descriptor, b"") + data
        *heads, rest = data.split(_END)
        if rest:
            self._begun[descriptor] = rest
        self._used[descriptor] = self._now
        for head in heads:
            self._respond(connection, head)

    def _respond(self, connection: socket.socket, head: bytes) -> None:
        target = head[:200].split(b" ", 2)[1]
        if target == BIG_PATH.encode():
            self._poll.unregister(connection)
            self._forget(connection.fileno())
            threading.Thread(target=self._send_big, args=(connection,), daemon=True).start()
            return
        answer = _SMALL
        if target.startswith(b"/localapi/"):
            answer = _LOCAL_API.get(target.partition(b"?")[0], _SMALL)
            self._used.pop(connection.fileno(), None)
        with contextlib.suppress(OSError):  # a client that is gone is seen at the next read
            connection.send(answer)

    def _send_big(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        try:
            connection.sendall(_BIG_HEAD)
            for _ in range(BIG_BYTES // len(_CHUNK)):
                connection.sendall(_CHUNK)
        except OSError:
            connection.close()
            return
        self._take(connection)


def main() -> None:
    port, local_api = int(sys.argv[1]), sys.argv[2]
    tcp = socket.create_server(("127.0.0.1", port), backlog=1024)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(local_api)
    unix.listen(1024)
    Upstream([tcp, unix]).serve()


if __name__ == "__main__":
    main()
