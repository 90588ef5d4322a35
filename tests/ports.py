"""Ports for programs that have to be told theirs."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000


def free_port() -> int:
    """On loopback, and not of the range from which the kernel gives connections theirs: one of them would take it meanwhile."""
    above = int(_EPHEMERAL.read_text().split()[0])
    for port in random.sample(range(_LOWEST, max(above, _LOWEST + 1000)), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port of loopback is free")
