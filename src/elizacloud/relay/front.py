"""Which front a request came in by: an agent's path, an agent's host, or the API. Pure.

The raw target decides, byte for byte and undecoded: `/api/%72elay/...` is no relay path, and the API does not know it
either. What lies below `/.elizacloud/` of an agent is the relay's own, however it is spelled. Nothing here looks at who
is calling.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from elizacloud.relay.http1.head import BadMessage, RequestHead

PATH_PREFIX = b"/api/relay/"
_OWN = b".elizacloud"
_PATH = re.compile(PATH_PREFIX + rb"([^/?#]*)(.*)", re.DOTALL)


class ToAgent(NamedTuple):
    """`by_path`: on the API's own origin, so nothing that a browser would keep for an origin may pass."""

    agent_id: str
    target: bytes
    by_path: bool


class ToOwn(NamedTuple):
    """Something that the relay itself answers at an agent's front."""

    agent_id: str
    target: bytes
    by_path: bool


class ToApi(NamedTuple):
    target: bytes


class Fronts:
    """`relay_domain` is where agents have hosts of their own: {agentId}.{relay_domain}."""

    def __init__(self, relay_domain: str) -> None:
        self._suffix = b"." + relay_domain.lower().encode("idna" if not relay_domain.isascii() else "ascii")

    def find(self, head: RequestHead) -> ToAgent | ToOwn | ToApi:
        """Raises BadMessage for a method or a target that no front takes."""
        front: ToAgent | ToOwn | ToApi | None = head.kept.get(self)
        if front is None:
            front = head.kept[self] = self._find(head)
        return front

    def _find(self, head: RequestHead) -> ToAgent | ToOwn | ToApi:
        if head.method == b"TRACE":
            raise BadMessage(
                "TRACE would show the agent's own token to the caller", status=405, code="method_not_allowed"
            )
        target, host = head.target, head.host
        if not target.startswith(b"/"):
            target, host = _origin_form(head)
        agent = self._agent_of_host(host)
        if agent is not None:
            return _to(agent, target, by_path=False)
        if target.startswith(PATH_PREFIX):
            return _by_path(target)
        return ToApi(target)

    def is_agents_host(self, host: bytes) -> bool:
        return self._agent_of_host(host) is not None

    def _agent_of_host(self, host: bytes) -> str | None:
        """The whole label before the relay domain, known or not: an unknown one must never fall through to the API."""
        if not host:
            return None
        name = host.lower()
        if not name.endswith(self._suffix):
            name = name.rpartition(b":")[0].rstrip(b".") if b":" in name else name.rstrip(b".")
            if not name.endswith(self._suffix):
                return None
        return name[: -len(self._suffix)].decode("ascii")


def _to(agent_id: str, target: bytes, *, by_path: bool) -> ToAgent | ToOwn:
    front = ToOwn if (b"%" in target or _OWN in target) and _is_own(target) else ToAgent
    return front(agent_id, target, by_path)


def _is_own(target: bytes) -> bool:
    """Also for a server that decodes and resolves a path before it looks."""
    segments: list[bytes] = []
    for segment in unquote_to_bytes(target.partition(b"?")[0]).replace(b"\\", b"/").split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment.partition(b";")[0])
    return segments[:1] == [_OWN]


def _by_path(target: bytes) -> ToAgent | ToOwn:
    found = _PATH.fullmatch(target)
    assert found is not None  # the caller saw the prefix, and the rest matches anything
    agent, onward = found.groups()
    return _to(agent.decode("ascii"), onward if onward.startswith(b"/") else b"/" + onward, by_path=True)


def _origin_form(head: RequestHead) -> tuple[bytes, bytes]:
    """The path and host of an absolute target, which a server must accept (RFC 9112 section 3.2.2); `*` of OPTIONS."""
    if head.target == b"*" and head.method == b"OPTIONS":
        return head.target, head.host
    scheme, separator, rest = head.target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise BadMessage("the target of the request is malformed")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    host, onward = rest[:end], rest[end:]
    # RFC 9112 lets the target win; a request that names two hosts is an attack on whoever reads the other one.
    if host.lower() != head.host.lower():
        raise BadMessage("the target and the Host header name different hosts")
    return onward if onward.startswith(b"/") else b"/" + onward, host
