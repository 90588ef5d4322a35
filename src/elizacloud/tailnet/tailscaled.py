"""The command line and environment of a tailscaled, and the files it owns. Decides only; runtime/ and app/ run it.

Userspace networking needs no privilege and no TUN device; see tunnel.py for a relay's that has one. Its SOCKS5 and HTTP
proxies stay off: they would dial the host's own network. Logs are never uploaded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as sockets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from elizacloud.errors import Misconfigured

UDP_PORT_FILE = "udp-port"
STATE_FILE = "tailscaled.state"
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
SOCKET_PATH_LIMIT_BYTES = 107
"""sun_path of unix(7), without its closing NUL."""


@dataclass(frozen=True, slots=True)
class Tailscaled:
    """One tailscaled. `state_dir` holds its node identity; `socket` must lie in a directory that is 0700."""

    binary: Path
    state_dir: Path
    socket: Path
    join_url: str
    udp_port: int
    """Fixed for the life of a node: peers trust the old address for 6.5 s after a restart, and a handshake answer to a
    dead port costs 5 s."""
    memory_limit: str = ""
    """GOMEMLIMIT, as "64MiB": less memory under bulk transfer for less throughput. Empty is no limit."""
    tun: str = "userspace-networking"
    """The name of its TUN device, which takes CAP_NET_ADMIN."""

    def prepare(self) -> None:
        """Make the directories, 0700, and an empty state. Raises Misconfigured when that cannot be done."""
        if len(os.fsencode(self.socket)) > SOCKET_PATH_LIMIT_BYTES:
            raise Misconfigured(f"cannot use the socket path {self.socket}: over 107 bytes; use a shorter directory")
        for directory in (self.state_dir, self.socket.parent):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.chmod(0o700)
            except OSError as error:
                raise _unprepared(directory, error) from error
        state = self.state_dir / STATE_FILE
        try:
            # One that cannot write its first state runs on without any and refuses every login, also when there is room
            # again (cmd/tailscaled/tailscaled.go, getLocalBackend; ipn/store.go, StateStoreHealth).
            if not (state.exists() and state.stat().st_size):
                state.touch(mode=0o600)
                state.write_bytes(b"{}")
        except OSError as error:
            raise _unprepared(state, error) from error
        # One that was killed leaves its socket behind, and a client would take it for the new one's.
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()

    def argv(self) -> tuple[str, ...]:
        return (
            str(self.binary),
            f"--tun={self.tun}",
            f"--statedir={self.state_dir}",
            f"--socket={self.socket}",
            f"--port={self.udp_port}",
            "--no-logs-no-support",
        )

    def environment(self) -> Mapping[str, str]:
        """The whole environment: nothing of ours is inherited but which certificate authorities this machine trusts."""
        chosen = {"PATH": os.defpath, "HOME": str(self.state_dir), "TS_NO_LOGS_NO_SUPPORT": "1"}
        chosen |= {name: os.environ[name] for name in AUTHORITIES if name in os.environ}
        if self.memory_limit:
            chosen["GOMEMLIMIT"] = self.memory_limit
        if urlsplit(self.join_url).scheme == "http":
            # A control server without TLS has its embedded DERP on the same plain port.
            chosen["TS_DEBUG_USE_DERP_HTTP"] = "1"
        return chosen


def _unprepared(path: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"cannot prepare {path}: {error.strerror}; check its owner and space")


def udp_port_of(state_dir: Path) -> int:
    """The WireGuard port of the node in this directory: chosen at the first call, the same ever after.

    Raises Misconfigured when there is none, or it cannot be kept.
    """
    file = state_dir / UDP_PORT_FILE
    try:
        with contextlib.suppress(FileNotFoundError, ValueError):
            port = int(file.read_text())
            if 0 < port < 65536:
                return port
        port = _free_udp_port()
        file.touch(mode=0o600)
        file.write_text(f"{port}\n")
    except OSError as error:
        raise _unprepared(file, error) from error
    return port


def _free_udp_port() -> int:
    try:
        return _free_udp_port_at(sockets.AF_INET6, "::")
    except OSError as error:
        # A kernel without IPv6 (ipv6.disable=1): tailscaled does with IPv4 alone there, too.
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _free_udp_port_at(sockets.AF_INET, "0.0.0.0")


def _free_udp_port_at(family: sockets.AddressFamily, host: str) -> int:
    with sockets.socket(family, sockets.SOCK_DGRAM) as probe:
        if family is sockets.AF_INET6:
            probe.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, 0)
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
