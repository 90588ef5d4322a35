"""A blackhole for the tailnet's addresses behind tailscaled's own routes, so that none is ever sought in the host's network.

A tailscaled with a TUN device routes what it knows by rules of its own (priorities 5210 to 5270, table 52). Whatever it does
not know would go on to the host's routes: an address without a peer, and every address while tailscaled is down. The rules
here come next and drop it. They are rules rather than routes, because those of tailscaled's own packets (marked, 5210) must
not meet them, and have a priority that tailscaled neither watches nor cleans (osrouter/router_linux.go, v1.102.3).

Spoken in netlink (fib_rules.h, rtnetlink(7)), since images without iproute2 are common and it takes one kind of message.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from elizacloud.errors import Misconfigured

PREFIXES = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
PRIORITY = 5300

_NETLINK_ROUTE = 0
_ERROR, _DONE = 2, 3
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_REQUEST, _ACKNOWLEDGE, _EXCLUSIVE, _CREATE, _DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_DESTINATION, _PRIORITY = 1, 6
_BLACKHOLE = 6
_INVERTED = 0x2
_NO_CONDITIONS = frozenset({_DESTINATION, _PRIORITY, 13, 14, 15, 21})
"""Attributes that do not narrow a rule further: suppression, table, origin. Marks, interfaces, ports and users do."""

_HEADER = struct.Struct("=IHHII")
_RULE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


def install() -> None:
    """Put the rules in place; harmless when they are. Raises Misconfigured when this process may not."""
    for prefix in _prefixes():
        with contextlib.suppress(FileExistsError):
            _change(_NEW_RULE, _CREATE | _EXCLUSIVE, prefix)


def remove() -> None:
    """Take them away; harmless when they are gone. Raises Misconfigured when this process may not."""
    for prefix in _prefixes():
        with contextlib.suppress(FileNotFoundError):
            _change(_DELETE_RULE, 0, prefix)


def check() -> None:
    """Raise Misconfigured, with the commands that help, unless the rules are in place. Needs no privilege."""
    missing = [prefix for prefix in _prefixes() if _place(prefix) not in _blackholes(_family(prefix))]
    if missing:
        commands = "; ".join(
            f"ip -{prefix.version} rule add to {prefix} blackhole priority {PRIORITY}" for prefix in missing
        )
        raise Misconfigured(
            "cannot use TUN mode: packets for unknown tailnet addresses would leave by this machine's own network; "
            f"as root: {commands}"
        )


def _prefixes() -> list[Prefix]:
    """Those whose version of IP this kernel speaks."""
    return [prefix for prefix in PREFIXES if prefix.version == 4 or Path("/proc/net/if_inet6").exists()]


def _family(prefix: Prefix) -> int:
    return socket.AF_INET if prefix.version == 4 else socket.AF_INET6


def _place(prefix: Prefix) -> tuple[int, bytes]:
    return PRIORITY, prefix.network_address.packed + bytes([prefix.prefixlen])


def _body(prefix: Prefix) -> bytes:
    header = _RULE.pack(_family(prefix), prefix.prefixlen, 0, 0, 0, 0, 0, _BLACKHOLE, 0)
    address = prefix.network_address.packed
    return header + _attribute(_DESTINATION, address) + _attribute(_PRIORITY, struct.pack("=I", PRIORITY))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value  # both are multiples of 4 bytes long


def _change(kind: int, flags: int, prefix: Prefix) -> None:
    try:
        for _ in _asked(kind, flags | _ACKNOWLEDGE, _body(prefix)):
            pass
    except (FileExistsError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise Misconfigured(
            "cannot use TUN mode: this process may not change routing rules; run it as root or with CAP_NET_ADMIN "
            "(systemd: AmbientCapabilities=CAP_NET_ADMIN), or use tailnet_mode userspace"
        ) from error
    except OSError as error:
        raise Misconfigured(
            f"cannot use TUN mode: the kernel takes no routing rule for {prefix} ({error.strerror}); use tailnet_mode userspace"
        ) from error


def _blackholes(family: int) -> Iterator[tuple[int, bytes]]:
    """The priority and the destination of every rule of that family that drops all that goes there."""
    for rule in _asked(_GET_RULE, _DUMP, _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, bits, source_bits, service, _, _, _, action, flags = _RULE.unpack_from(rule)
        attributes = dict(_attributes(rule[_RULE.size :]))
        conditional = source_bits or service or flags & _INVERTED or attributes.keys() - _NO_CONDITIONS
        if action == _BLACKHOLE and not conditional:
            (priority,) = struct.unpack("=I", attributes.get(_PRIORITY, bytes(4)))
            yield priority, attributes.get(_DESTINATION, b"") + bytes([bits])


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def _asked(kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Send one request; yield the bodies of its answers. Raises OSError with the kernel's error."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        kernel.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, 1, 0) + body)
        while True:
            data = kernel.recv(1 << 16)
            while data:
                length, answer, *_ = _HEADER.unpack_from(data)
                payload, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (number,) = struct.unpack_from("=i", payload)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return
                yield payload
