"""An agent's answer belongs to whoever asked: their browser may keep it, a cache that others share may not. Pure.

Without this a proxy or CDN in front could hand one caller's answer to the next one: caches do not look at cookies (RFC 9111
section 4.1), and an agent's `public` or `s-maxage` lets them keep even what needed a token (section 3.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SHARED_CACHES_ONLY = frozenset({b"edge-control", b"surrogate-control"})
_TARGETED = b"cdn-cache-control"
"""RFC 9213, and the vendors' own: Cloudflare-CDN-Cache-Control, Vercel-CDN-Cache-Control and so on."""
_DIRECTIVE = re.compile(rb'(?:[^,"]|"[^"]*"?)+')
"""A comma inside quotes ends nothing: `no-cache="set-cookie, x"`."""
_FOR_SHARED = (b"public", b"private", b"s-maxage", b"proxy-revalidate")


def is_for_shared_caches(lower: bytes) -> bool:
    return lower.endswith(_TARGETED) or lower in _SHARED_CACHES_ONLY


def cache_control_line(values: Iterable[bytes]) -> bytes:
    """The one Cache-Control line that goes to the client; `values` are those that the agent sent, if any."""
    kept = [b"private"]
    for directive in _DIRECTIVE.findall(b",".join(values)):
        name = directive.partition(b"=")[0].strip().lower()
        if name and name not in _FOR_SHARED:
            kept.append(directive.strip())
    return b"Cache-Control: " + b", ".join(kept) + b"\r\n"
