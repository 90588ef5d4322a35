"""Which headers pass, in both directions, for agents and for the API. Pure; reference: peers.md section D.

To an agent: hop-by-hop headers and those that Connection names stop here; what claims an identity or an origin is
deleted, also when spelled with underscores, then set by us; our credentials never pass. From an agent: CORS is decided
at the edge, so its own headers for that do not pass; on the path front nothing that a browser would keep for the API's
origin passes, and its pages are sandboxed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from elizacloud.relay.headers.caching import cache_control_line, is_for_shared_caches
from elizacloud.relay.headers.names import NameRule
from elizacloud.relay.http1.framing import Framing, Kind
from elizacloud.relay.http1.head import AnswerHead, Field, RequestHead, kept_with_head, tokens

ERROR_HEADER = b"elizacloud-error"
AGENT_AUTHORIZATION = b"elizacloud-agent-authorization"

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_OURS = frozenset({b"content-length", b"host", b"traceparent", b"tracestate", b"x-request-id"})
"""Set by us, never copied."""

# Whoever trusts these must have got them from us. Matched with `_` read as `-`, as CGI-like servers do.
_ORIGIN_CLAIMS = frozenset(
    {
        b"cf-connecting-ip",
        b"cf-connecting-ipv6",
        b"client-cert",
        b"client-cert-chain",
        b"client-ip",
        b"cluster-client-ip",
        b"fastly-client-ip",
        b"fly-client-ip",
        b"forwarded",
        b"front-end-https",
        b"proxy",
        b"true-client-ip",
        b"x-azure-clientip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-host",
        b"x-http-host-override",
        b"x-scheme",
        b"x-url-scheme",
    }
)
_ORIGIN_CLAIM_PREFIXES = (
    b"cf-access-",
    b"elizacloud-",
    b"remote-",
    b"ssl-client-",
    b"tailscale-",
    b"x-amzn-oidc-",
    b"x-auth-request-",
    b"x-authenticated-",
    b"x-authentik-",
    b"x-client-cert",
    b"x-envoy-",
    b"x-forwarded",
    b"x-goog-authenticated-",
    b"x-goog-iap-",
    b"x-ms-client-principal",
    b"x-original-",
    b"x-pomerium-",
    b"x-real-ip",
    b"x-remote-",
    b"x-rewrite-",
    b"x-ssl-client-",
    b"x-webauth-",
)
_CREDENTIALS = frozenset({b"authorization", b"x-eliza-auth"})

_EDGE_PREFIXES = (b"access-control-", b"elizacloud-")
# What the edge decides, what a browser does for other hosts than the agent's, and orders to a proxy in front of us.
_EDGE = frozenset(
    {
        b"alt-svc",
        b"clear-site-data",  # its "cookies" are those of the whole registrable domain: other agents' too
        b"expect-ct",
        b"location",  # see redirect.py
        b"public-key-pins",
        b"public-key-pins-report-only",
        b"strict-transport-security",
        b"x-accel-charset",
        b"x-accel-expires",
        b"x-accel-limit-rate",
        b"x-accel-redirect",
        b"x-lighttpd-send-file",
        b"x-request-id",
        b"x-reproxy-url",
        b"x-sendfile",
    }
)
# What a browser keeps or does for a whole origin; on the path front that origin is the API's.
_ORIGIN_WIDE = frozenset(
    {
        b"accept-ch",
        b"content-security-policy-report-only",
        b"critical-ch",
        b"nel",
        b"origin-agent-cluster",
        b"report-to",
        b"reporting-endpoints",
        b"service-worker-allowed",
        b"set-cookie",
        b"set-cookie2",
        b"x-content-type-options",
    }
)
_PATH_FRONT_ADDS = b"Content-Security-Policy: sandbox\r\nX-Content-Type-Options: nosniff\r\n"
_NEVER_TRAILERS = frozenset(
    {b"content-encoding", b"content-range", b"content-type", b"cookie", b"expect", b"set-cookie", b"trailer", b"vary"}
)
_REFUSED_UPGRADES = (b"h2", b"h2c", b"http/", b"tls/")
"""Inside such a connection the client would send requests that nobody cleans."""

_COOKIE_OF_OURS = re.compile(rb"[ \t=]*(?:__host-|__secure-)?elizacloud", re.IGNORECASE)
_COOKIE_DOMAIN = re.compile(rb";[ \t]*domain[ \t]*=[ \t]*[^; \t]", re.IGNORECASE)


def upgrade_of(head: RequestHead, framing: Framing) -> bytes | None:
    """The protocol that the client may switch to; None when it asks for none, or for one that is not passed on.

    A request with a body is not upgraded (RFC 9110 section 7.8 lets a server ignore Upgrade).
    """
    asked = _asked_upgrade(head)
    return None if asked is None or framing.kind is Kind.CHUNKED or framing.length else asked


@kept_with_head
def _asked_upgrade(head: RequestHead) -> bytes | None:
    if head.minor == 0:
        return None
    asked = [value for lower, _, value in head.fields if lower == b"upgrade"]
    if not asked or b"upgrade" not in tokens(head.fields, b"connection"):
        return None
    if len(asked) != 1 or not asked[0] or b"," in asked[0] or asked[0].lower().startswith(_REFUSED_UPGRADES):
        return None
    return asked[0]


def agent_request(
    head: RequestHead,
    *,
    target: bytes,
    framing: Framing,
    upgrade: bytes | None,
    host_line: bytes,
    authorization_line: bytes,
    forwarded_lines: bytes,
    by_path: bool,
) -> bytes:
    """The head to send to an agent. The three `_lines` are ready to send, each with its line end."""
    passed = _passed_by_path(head) if by_path else _passed_by_host(head)
    return b"".join(
        (
            head.method,
            b" ",
            target,
            b" HTTP/1.1\r\n",
            host_line,
            passed.lines,
            passed.authorization_line or authorization_line,
            forwarded_lines,
            _framing_lines(framing, upgrade, wants_trailers=passed.wants_trailers),
        )
    )


class _Passed(NamedTuple):
    """What a client says to an agent."""

    lines: bytes
    authorization_line: bytes
    """The client's own for the agent; empty when it has none."""
    wants_trailers: bool


@kept_with_head
def _passed_by_path(head: RequestHead) -> _Passed:
    return _passed(head, by_path=True)


@kept_with_head
def _passed_by_host(head: RequestHead) -> _Passed:
    return _passed(head, by_path=False)


def _passed(head: RequestHead, *, by_path: bool) -> _Passed:
    lines: list[bytes] = []
    authorization_line = b""
    named = _named(head.fields)
    for lower, name, value in head.fields:
        if _stops_before_agent[lower] or lower in named:
            if lower == AGENT_AUTHORIZATION:
                authorization_line = b"Authorization: " + value + b"\r\n"
            continue
        if lower == b"cookie":
            value = b"" if by_path else _foreign_cookies(value)
            if not value:
                continue
        elif lower == b"x-api-key" and value.startswith((b"ec_", b"ecs_", b"ect_")):
            continue
        lines += (name, b": ", value, b"\r\n")
    wants_trailers = any(lower == b"te" and b"trailers" in value.lower() for lower, _, value in head.fields)
    return _Passed(b"".join(lines), authorization_line, wants_trailers)


def api_request(
    head: RequestHead, *, target: bytes, framing: Framing, upgrade: bytes | None, forwarded_lines: bytes
) -> bytes:
    """The head to send to the API: its own credentials and owner header pass, claims of origin do not."""
    lines = [head.method, b" ", target, b" HTTP/1.1\r\nHost: ", head.host or b"localhost", b"\r\n"]
    named = _named(head.fields)
    for lower, name, value in head.fields:
        if lower in _HOP_BY_HOP or lower in _OURS or lower in named:
            continue
        if _claims_origin[lower] and lower != b"elizacloud-owner":
            continue
        lines += (name, b": ", value, b"\r\n")
    lines.append(forwarded_lines)
    lines.append(_framing_lines(framing, upgrade, wants_trailers=False))
    return b"".join(lines)


@kept_with_head
def agent_answer_by_path(head: AnswerHead) -> bytes:
    """The end-to-end header lines of an agent's answer that may pass; framing is the caller's."""
    return _answered(head, by_path=True)


@kept_with_head
def agent_answer_by_host(head: AnswerHead) -> bytes:
    """The same for the agent's own origin."""
    return _answered(head, by_path=False)


def _answered(head: AnswerHead, *, by_path: bool) -> bytes:
    lines: list[bytes] = []
    cache_control: list[bytes] = []
    named = _named(head.fields)
    for lower, name, value in head.fields:
        if _stops_after_agent[lower] or lower in named:
            continue
        if lower == b"cache-control":
            cache_control.append(value)
            continue
        if by_path:
            if lower in _ORIGIN_WIDE:
                continue
        elif lower == b"set-cookie" and (_COOKIE_DOMAIN.search(value) or _COOKIE_OF_OURS.match(value)):
            continue
        lines += (name, b": ", value, b"\r\n")
    lines.append(cache_control_line(cache_control))
    if by_path:
        lines.append(_PATH_FRONT_ADDS)
    return b"".join(lines)


@kept_with_head
def api_answer(head: AnswerHead) -> bytes:
    """The end-to-end header lines of the API's answer; CORS is the edge's here too."""
    lines: list[bytes] = []
    named = _named(head.fields)
    for lower, name, value in head.fields:
        if not _stops_after_api[lower] and lower not in named:
            lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)


def trailer_lines(trailers: Iterable[Field], *, to_agent: bool) -> bytes:
    """The trailers that may pass, ready to send: nothing that frames, routes, authorises or describes the body."""
    stops = _stops_before_agent if to_agent else _stops_after_agent
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in trailers
        if not (stops[lower] or lower in _NEVER_TRAILERS or lower in _ORIGIN_WIDE)
    )


def upgrade_lines(head: AnswerHead, upgrade: bytes) -> bytes:
    """The hop-by-hop lines of a 101, which are ours to write."""
    named = next((value for lower, _, value in head.fields if lower == b"upgrade"), upgrade)
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % named


def _framing_lines(framing: Framing, upgrade: bytes | None, *, wants_trailers: bool) -> bytes:
    if framing.kind is Kind.NONE and upgrade is None and not wants_trailers:
        return b"\r\n"
    if upgrade is not None:
        return b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
    te = b"TE: trailers\r\nConnection: TE\r\n" if wants_trailers else b""
    if framing.kind is Kind.CHUNKED:
        return te + b"Transfer-Encoding: chunked\r\n\r\n"
    if framing.kind is Kind.LENGTH:
        return te + b"Content-Length: %d\r\n\r\n" % framing.length
    return te + b"\r\n"


def _named(fields: list[Field]) -> frozenset[bytes]:
    """What Connection names (RFC 9110 section 7.6.1)."""
    for field in fields:
        if field[0] == b"connection":
            value = field[2]
            if value in (b"keep-alive", b"close", b"Keep-Alive", b"Upgrade", b"upgrade"):
                continue
            return tokens(fields, b"connection")
    return frozenset()


@NameRule
def _claims_origin(lower: bytes) -> bool:
    plain = lower.replace(b"_", b"-")
    return plain in _ORIGIN_CLAIMS or plain.startswith(_ORIGIN_CLAIM_PREFIXES)


@NameRule
def _stops_before_agent(lower: bytes) -> bool:
    plain = lower.replace(b"_", b"-")
    return plain in _HOP_BY_HOP or plain in _OURS or plain in _CREDENTIALS or _claims_origin[lower]


@NameRule
def _stops_after_agent(lower: bytes) -> bool:
    if lower in _HOP_BY_HOP or lower == b"content-length" or lower in _EDGE:
        return True
    return lower.startswith(_EDGE_PREFIXES) or is_for_shared_caches(lower)


@NameRule
def _stops_after_api(lower: bytes) -> bool:
    return lower in _HOP_BY_HOP or lower in (b"content-length", b"x-request-id") or lower.startswith(b"access-control-")


def _foreign_cookies(value: bytes) -> bytes:
    """The cookies that are not ours."""
    if b"elizacloud" not in value.lower():
        return value
    return b"; ".join(
        cookie for part in value.split(b";") if (cookie := part.strip()) and not _COOKIE_OF_OURS.match(cookie)
    )
