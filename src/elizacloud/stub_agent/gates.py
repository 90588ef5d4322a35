"""Who may pass: the agent's Host, Origin and token gates, as pure functions.

Behaviour of `@elizaos/agent` 2.0.0-beta.2, api/server.js:944-1000 and api/server-helpers-auth.js. The trap for a relay:
a request from loopback that names a loopback Host passes *without* a token unless the agent is cloud-provisioned.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from elizacloud.stub_agent.config import Config

Header = Callable[[str], str | None]

_LOOPBACK = {"localhost", "127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"}
_WILDCARD = {"0.0.0.0", "::", "0:0:0:0:0:0:0:0"}
_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\]|\[0:0:0:0:0:0:0:1\])(:\d+)?", re.IGNORECASE)
_APP_ORIGIN = re.compile(r"(capacitor|capacitor-electron|app|tauri|file|electrobun)://.*", re.IGNORECASE)
_APP_SCHEMES = {"file", "app", "tauri", "capacitor", "capacitor-electron", "electrobun"}
_TOKEN_HEADERS = ("X-Milady-Token", "X-Eliza-Token", "X-Api-Key")
_CLIENT_ADDRESS_HEADERS = (
    "X-Forwarded-For",
    "Forwarded-For",
    "X-Forwarded",
    "X-Original-Forwarded-For",
    "X-Real-Ip",
    "X-Client-Ip",
    "X-Forwarded-Client-Ip",
    "X-Cluster-Client-Ip",
    "Cf-Connecting-Ip",
    "True-Client-Ip",
    "Fastly-Client-Ip",
)


def host_allowed(config: Config, host: str | None) -> bool:
    """The guard against DNS rebinding: a loopback name, the bind address or an ALLOWED_HOSTS name; any on a wildcard."""
    name = _without_port((host or "").strip().lower())
    if not name or _without_port(config.bind_host) in _WILDCARD:
        return True
    allowed = {_without_port(host.lower()) for host in (config.bind_host, *config.allowed_hosts)}
    return name in allowed or name in _LOOPBACK


def allowed_origin(config: Config, origin: str | None) -> str | None:
    """The origin to answer in Access-Control-Allow-Origin, or None when there is none or it may not call."""
    trimmed = (origin or "").strip()
    if not trimmed:
        return None
    if config.cloud_provisioned or _without_port(config.bind_host) in _WILDCARD:
        return trimmed
    if trimmed in config.allowed_origins or _LOCAL_ORIGIN.fullmatch(trimmed) or _APP_ORIGIN.fullmatch(trimmed):
        return trimmed
    return None


def authorized(config: Config, header: Header, *, local_peer: bool) -> bool:
    """A trusted local request, or the API token in one of the headers that carry it."""
    return trusted_local(config, header, local_peer=local_peer) or token_matches(config, token_of(header))


def token_of(header: Header) -> str | None:
    scheme, _, value = (header("Authorization") or "").strip().partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return next((given.strip() for name in _TOKEN_HEADERS if (given := header(name)) and given.strip()), None)


def token_matches(config: Config, token: str | None) -> bool:
    """False without a configured token: then nobody but a trusted local caller gets in."""
    if config.api_token is None or token is None:
        return False
    return hmac.compare_digest(config.api_token.encode(), token.encode("latin-1", "replace"))


def trusted_local(config: Config, header: Header, *, local_peer: bool) -> bool:
    """Loopback peer, loopback Host, nothing that tells of a client elsewhere, and not cloud-provisioned."""
    if cloud_mode(config) or not local_peer:
        return False
    host = header("Host")
    if host and _without_port(host.strip().lower()) not in _LOOPBACK:
        return False
    if (header("Sec-Fetch-Site") or "").lower() == "cross-site" or _names_remote_client(header):
        return False
    page = header("Origin") or header("Referer")
    return page is None or _is_local_page(page.strip())


def cloud_mode(config: Config) -> bool:
    """Provisioned by a cloud and given a token: the agent then skips onboarding and trusts no local caller."""
    return config.cloud_provisioned and config.api_token is not None


def websocket_refusal(config: Config, header: Header, query: Callable[[str], list[str]]) -> tuple[int, str] | None:
    """Why an upgrade of `/ws` is refused, as status and reason; None when it may go on."""
    if header("Origin") and not allowed_origin(config, header("Origin")):
        return 403, "Origin not allowed"
    if config.api_token is None:
        return (401, "Unauthorized") if config.cloud_provisioned else None
    in_query = any(query(name) for name in _QUERY_TOKENS)
    if in_query and not config.allow_ws_query_token:
        return 401, "Unauthorized"
    token = websocket_token(config, header, query)
    if (token and not token_matches(config, token)) or (not token and config.cloud_provisioned):
        return 401, "Unauthorized"
    return None


def websocket_token(config: Config, header: Header, query: Callable[[str], list[str]]) -> str | None:
    """The token of the handshake: a header's, or with ALLOW_WS_QUERY_TOKEN=1 the query's."""
    if token := token_of(header):
        return token
    if not config.allow_ws_query_token:
        return None
    return next((value.strip() for name in _QUERY_TOKENS for value in query(name) if value.strip()), None)


_QUERY_TOKENS = ("token", "apiKey", "api_key")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") >= 2 else host.partition(":")[0]


def _is_local_page(url: str) -> bool:
    if not url or url == "null":
        return True
    try:
        parts = urlsplit(url)
        name = (parts.hostname or "").lower()
    except ValueError:
        return False
    return parts.scheme in _APP_SCHEMES or name in _LOOPBACK


def _names_remote_client(header: Header) -> bool:
    for name in _CLIENT_ADDRESS_HEADERS:
        for candidate in (header(name) or "").split(","):
            text = candidate.strip().strip("\"'").lower()
            if text in ("", "unknown", "null") or text.startswith("_"):
                continue
            try:
                if not ipaddress.ip_address(_without_port(text)).is_loopback:
                    return True
            except ValueError:
                return True
    forwarded = re.findall(r"for=\"?([^\";,]*)", (header("Forwarded") or "").lower())
    return any(_without_port(address.strip()) not in _LOOPBACK for address in forwarded)
