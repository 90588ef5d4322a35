"""Who the client is: the other end of the connection, or whom a trusted proxy names there. Pure.

X-Forwarded-* of anybody else is a claim and is thrown away (hygiene.py); what an agent or the API reads there is ours.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from elizacloud.relay.http1.head import Field, RequestHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
_MOST_HOPS = 32
_LONGEST_ADDRESS = 80
"""39 characters, brackets, a port, and a scope as long as an interface's name; a claim may be as long as a head."""


class Peer(NamedTuple):
    """The other end of a connection. `lines` say of it what a request's X-Forwarded-* say, but for the host."""

    address: str
    secure: bool
    trusted: bool
    lines: bytes


class Proxies:
    """`trusted` are the networks of proxies whose word counts."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in trusted)

    def peer(self, peername: object, *, secure: bool) -> Peer:
        """`peername` is the transport's; a unix socket has none, and only this machine reaches it."""
        address = str(peername[0]).partition("%")[0] if isinstance(peername, tuple) else "127.0.0.1"
        parsed = _address(address)
        if parsed is not None:
            address = str(parsed)
        proto = "https" if secure else "http"
        lines = f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: {proto}\r\n".encode("ascii")
        return Peer(address, secure, parsed is not None and self._trusts(parsed), lines)

    def client(self, peer: Peer, head: RequestHead) -> tuple[str, bytes]:
        """The client's address, and the X-Forwarded-For, -Proto and -Host lines of its request."""
        if not peer.trusted:
            return peer.address, peer.lines + host_line(head)
        hops = self._hops(peer, _values(head.fields, b"x-forwarded-for"))
        proto = _values(head.fields, b"x-forwarded-proto")[-1:]
        host = _values(head.fields, b"x-forwarded-host")[-1:]
        if proto not in (["http"], ["https"]):
            proto = ["https" if peer.secure else "http"]
        named = host[0].encode("latin-1") if host else b""
        if not _HOST.fullmatch(named):
            named = head.host
        lines = f"X-Forwarded-For: {', '.join(hops)}\r\nX-Forwarded-Proto: {proto[0]}\r\n".encode("ascii")
        return hops[0], lines + (b"X-Forwarded-Host: " + named + b"\r\n" if named else b"")

    def _hops(self, peer: Peer, claimed: list[str]) -> list[str]:
        """The client and the trusted proxies behind it. Whatever stands left of the client is its own word: dropped."""
        hops = [peer.address]
        for text in reversed(claimed[-_MOST_HOPS:]):
            address = _address(text)
            if address is None:
                break
            hops.insert(0, str(address))
            if not self._trusts(address):
                break
        return hops

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def host_line(head: RequestHead) -> bytes:
    return b"X-Forwarded-Host: " + head.host + b"\r\n" if head.host else b""


def _values(fields: list[Field], name: bytes) -> list[str]:
    """The members of a list field, over all its lines, in order."""
    joined = b",".join(value for lower, _, value in fields if lower == name)
    return [member for part in joined.decode("latin-1").split(",") if (member := part.strip())]


def _address(text: str) -> Address | None:
    """An address, also as proxies write it: with a port, in brackets, an IPv4 one inside IPv6. None when it is none."""
    return _read_address(text) if len(text) <= _LONGEST_ADDRESS else None


@lru_cache(maxsize=4096)
def _read_address(text: str) -> Address | None:
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
