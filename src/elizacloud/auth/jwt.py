"""What a JWT is good for: the claims are checked here, by the API and by every relay worker alike.

Two kinds are accepted. Ours (RFC 9068's `at+jwt`) reaches one agent or all of an owner's, at the relay, and is revoked with
the API token that asked for it. A trusted issuer's says who somebody is: its owner, with an owner's rights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elizacloud.auth import jose
from elizacloud.auth.access import checked_owner_id
from elizacloud.errors import Invalid, Unauthenticated
from elizacloud.model import OPERATOR, is_agent_id
from elizacloud.upstreams import KnownIssuer, PublicKey

TYP = "at+jwt"
ASSERTION_TYP = "elizacloud-assertion+jwt"
ALL_AGENTS = "agents"
OUR_LIFETIME_SECONDS = 3600
LONGEST_LIFETIME_SECONDS = 86400
"""Of a trusted issuer's. What lives longer could not be taken back."""
LEEWAY_SECONDS = 30
"""How far clocks may be apart. An end is not put off by it."""

_THEIR_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_CACHED = 4096


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says. `parent_id` is the API token that it is revoked with; a trusted issuer's has none."""

    issuer: str
    owner_id: str
    agent_id: str | None
    parent_id: str | None
    expires_at: datetime
    token_id: str
    own: bool


class UnknownKey(Unauthenticated):
    """Signed with a key that the issuer is not known to have: it may be a new one."""

    def __init__(self, issuer: str) -> None:
        super().__init__("cannot accept this JWT: it is signed with a key that is not known", code="invalid_token")
        self.issuer = issuer


def looks_like_jwt(text: str) -> bool:
    """Three parts with dots between, the first one a JSON object: nothing else that we take as a bearer has dots."""
    return text.startswith("ey") and text.count(".") == 2


def audience_of(agent_id: str | None) -> str:
    """The `aud` of our tokens and assertions."""
    return ALL_AGENTS if agent_id is None else f"agent:{agent_id}"


class Verifier:
    """Checks JWTs against the issuers as they are at that moment. Remembers what it verified, until that expires."""

    def __init__(self, issuers: Callable[[], Mapping[str, KnownIssuer]], now: Callable[[], datetime]) -> None:
        self._issuers = issuers
        self._now = now
        self._verified: dict[str, tuple[Claims, KnownIssuer]] = {}

    def verify(self, token: str) -> Claims:
        """Raises Unauthenticated `expired_token`, or `invalid_token` (UnknownKey among them). Whether the parent was
        revoked is for the caller to see."""
        now = self._now()
        if len(token) > jose.MAX_TOKEN_CHARACTERS:
            raise _refused("it is too long")
        digest = hashlib.sha256(token.encode()).hexdigest()
        seen = self._verified.get(digest)
        if seen is not None and self._issuers().get(seen[0].issuer) is seen[1]:
            if seen[0].expires_at <= now:
                raise _expired()
            return seen[0]
        try:
            claims, issuer = self._checked(token, digest, now)
        except (Invalid, TypeError, ValueError) as error:  # whoever made it chose what is where, of whatever type
            raise _refused("it is malformed, or says what is not accepted") from error
        if len(self._verified) >= _CACHED:
            self._verified.clear()
        self._verified[digest] = claims, issuer
        return claims

    def _checked(self, token: str, digest: str, now: datetime) -> tuple[Claims, KnownIssuer]:
        unverified = jose.read(token)
        header, claims = unverified.header, unverified.claims
        name = claims.get("iss")
        issuer = self._issuers().get(name) if isinstance(name, str) else None
        if issuer is None:
            raise _refused("its issuer is not trusted here")
        own = issuer.audience is None
        _check_typ(header.get("typ"), own=own)
        if "crit" in header:
            raise _refused("it asks for an extension that is not known")
        jose.check_signature(token, _key_of(issuer, header))
        expires_at = _checked_times(claims, now, own=own)
        if own:
            token_id, parent_id = claims.get("jti"), claims.get("tid")
            if not isinstance(token_id, str) or not isinstance(parent_id, str | None):
                raise _refused("a claim is missing")
            agent_id, owner_id = _our_audience(claims.get("aud")), claims.get("sub")
        else:
            token_id, parent_id, agent_id = f"jwt-{digest[:16]}", None, None
            _check_their_audience(claims.get("aud"), str(issuer.audience))
            owner_id = _their_owner(claims.get(issuer.owner_claim), issuer.owner_prefix)
        if not isinstance(owner_id, str):
            raise _refused("it names no owner")
        checked = Claims(issuer.issuer, checked_owner_id(owner_id), agent_id, parent_id, expires_at, token_id, own)
        return checked, issuer


def _check_typ(typ: Any, *, own: bool) -> None:
    """RFC 8725 section 3.11: an assertion, a logout token or the like is never taken for a token of access."""
    theirs = typ is None or (isinstance(typ, str) and typ.lower() in _THEIR_TYPES)
    if not (typ == TYP if own else theirs):
        raise _refused("it is of another type")


def _key_of(issuer: KnownIssuer, header: Mapping[str, Any]) -> PublicKey:
    kid = header.get("kid")
    for key in issuer.keys:
        if key.kid == kid:
            return key
    raise UnknownKey(issuer.issuer)


def _checked_times(claims: Mapping[str, Any], now: datetime, *, own: bool) -> datetime:
    """When it expires. RFC 7519 section 4.1.4 and on: seconds since 1970, fractions allowed."""
    seconds = now.timestamp()
    expires, issued, not_before = (_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None or (own and issued is None):
        raise _refused("a claim is missing")
    if expires <= seconds:
        raise _expired()
    if max(issued or 0, not_before or 0) > seconds + LEEWAY_SECONDS:
        raise _refused("it is not valid yet")
    longest = OUR_LIFETIME_SECONDS if own else LONGEST_LIFETIME_SECONDS
    if expires - min(seconds, issued if issued is not None else seconds) > longest + LEEWAY_SECONDS:
        raise _refused("it is valid for too long")
    return datetime.fromtimestamp(expires, UTC)


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
        raise _refused("a time in it is not one")
    return float(value)


def _our_audience(audience: Any) -> str | None:
    """The agent that it is for; None for all of the owner's."""
    if audience == ALL_AGENTS:
        return None
    agent_id = audience.removeprefix("agent:") if isinstance(audience, str) else ""
    if audience != audience_of(agent_id) or not is_agent_id(agent_id):
        raise _refused("it is for another audience")
    return agent_id


def _check_their_audience(audience: Any, wanted: str) -> None:
    named = audience if isinstance(audience, list) else [audience]
    if wanted not in named or not all(isinstance(each, str) for each in named):
        raise _refused("it is for another audience")


def _their_owner(name: Any, prefix: str) -> str:
    owner_id = f"{prefix}{name}" if isinstance(name, str) and name else ""
    if owner_id == OPERATOR:
        raise _refused("it names no owner")  # the operator's own tokens belong to this one
    return owner_id


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"cannot accept this JWT: {why}", code="invalid_token")


def _expired() -> Unauthenticated:
    return Unauthenticated("cannot accept this JWT: it has expired; get a new one", code="expired_token")
