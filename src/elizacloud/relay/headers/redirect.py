"""Where an agent's `Location` may send a client. Pure.

The agent sees itself at its tailnet address, so what it builds of that is led back to the front that the client used; no
client is ever sent to another address of the tailnet. On the path front, which lies on the API's origin, a redirect within
that origin stays below the agent's own path: a client follows it with its `Authorization`, so `308 /api/v1/agents/other`
in answer to a DELETE would make the caller delete another agent. Read as browsers do (WHATWG URL): with backslashes as
slashes, `%2e` as a dot, and an IPv4 address in any of its spellings.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from elizacloud.relay.http1.head import AnswerHead, kept_with_head, value_of
from elizacloud.tailnet.blackhole import PREFIXES

_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_AUTHORITY = re.compile(rb"[/\\]{2}([^/\\?#]+)(.*)", re.DOTALL)
_FORWARDED_HOST = re.compile(rb"^X-Forwarded-Host: ([^\r]*)\r$", re.MULTILINE)
_PATH = re.compile(rb"([^?#]*)(.*)", re.DOTALL)


class Front(NamedTuple):
    """How the client came to the agent."""

    own: bytes
    """The agent's address and port, as in the Host header that it is sent."""
    hosts: tuple[bytes, ...]
    """The names that the client may have used for us, with or without a port."""
    prefix: bytes
    """The path under which the agent lies at them; empty at a host of its own."""
    target: bytes
    """What the agent was asked for."""


@kept_with_head
def location_of(head: AnswerHead) -> bytes | None:
    return value_of(head.fields, b"location")


def forwarded_hosts(forwarded_lines: bytes) -> list[bytes]:
    """The hosts that these header lines name to the agent."""
    return _FORWARDED_HOST.findall(forwarded_lines)


def location(value: bytes, front: Front) -> bytes | None:
    """What the client is sent instead; None when it must not be sent there."""
    value = value.replace(b"\t", b"").strip(b" ")
    rest = value
    if found := _SCHEME.fullmatch(value):
        if found[1].lower() not in (b"http", b"https"):
            return value
        rest = found[2]
        if not _AUTHORITY.fullmatch(rest):
            return None  # as in `http:/x`, which every client reads in a way of its own
    if found := _AUTHORITY.fullmatch(rest):
        authority, rest = found.groups()
        hostport = authority.rpartition(b"@")[2].lower()
        if hostport != front.own:
            name = _name(hostport)
            if name is None or _on_tailnet(name):
                return None
            if not front.prefix or name not in map(_name, front.hosts):
                return value
        elif not front.prefix:
            return (b"/." if rest[:2] in (b"//", b"/\\") else b"" if rest[:1] == b"/" else b"/") + rest
        rest = rest if rest[:1] in (b"/", b"\\") else b"/" + rest
    elif not front.prefix:
        return value
    return _below(rest, front)


def _below(reference: bytes, front: Front) -> bytes:
    """The reference, resolved within the agent's own paths, as one within the origin that the client used."""
    found = _PATH.fullmatch(reference)
    assert found is not None  # it matches anything
    path, onward = found.groups()
    asked = front.target.partition(b"?")[0]
    if not path:
        return front.prefix + asked + onward if asked[:1] == b"/" else front.prefix + b"/" + onward
    if path[:1] not in (b"/", b"\\"):
        path = asked.rpartition(b"/")[0] + b"/" + path
    segments = _resolved(path)
    within = front.prefix.split(b"/")[1:]
    if segments[: len(within)] == within:
        segments = segments[len(within) :]
    return front.prefix + b"/" + b"/".join(segments) + onward


def _resolved(path: bytes) -> list[bytes]:
    """Its segments, without `.` and `..` in any spelling; the last one is empty when it ends with a slash."""
    segments: list[bytes] = []
    parts = path.replace(b"\\", b"/").split(b"/")[1:]
    for number, part in enumerate(parts):
        dots = re.sub(rb"%2e", b".", part, flags=re.IGNORECASE)
        if dots == b"..":
            del segments[-1:]
        if dots not in (b".", b".."):
            segments.append(part)
        elif number == len(parts) - 1:
            segments.append(b"")
    return segments


def _name(hostport: bytes) -> bytes | None:
    """The host without its port, decoded; None for one that is not ASCII, which clients would map to another."""
    host = hostport if hostport.endswith(b"]") or b":" not in hostport else hostport.rpartition(b":")[0]
    name = unquote_to_bytes(host).lower().removesuffix(b".")
    return name if name.isascii() else None


def _on_tailnet(name: bytes) -> bool:
    text = name.decode("ascii").strip("[]")
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        address = ipaddress.ip_address(text) if ":" in text else ipaddress.IPv4Address(socket.inet_aton(text))
    except (ValueError, OSError):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in PREFIXES)
