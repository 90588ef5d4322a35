"""The shape of credentials: how one is made, read from a request, and turned into what is stored.

Each is `{prefix}{id}_{secret}`: a prefix that says where it counts and that secret scanners know, the id that lists and logs
may show, and 256 random bits. Only the SHA-256 is stored: a fast hash is enough for a secret that nobody can guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass

from pydantic import SecretStr

from elizacloud.errors import Unauthenticated

API_TOKEN_PREFIX = "ec_"  # noqa: S105 - a prefix, not a secret
SESSION_PREFIX = "ecs_"
"""Of a browser's cookie at one agent's host."""
TICKET_PREFIX = "ect_"
"""Of what is exchanged for a session, once."""

_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 12
_SECRET_LENGTH = 43
"""43 letters and digits hold 256 bits."""
# The b64token of RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1). A JWT may be long.
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9\-._~+/]{1,8192}=*)")


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A new credential, the only time that its value is known."""

    id: str
    value: SecretStr
    sha256: str


def mint(prefix: str = API_TOKEN_PREFIX) -> MintedToken:
    token_id = _random(_ID_LENGTH)
    value = f"{prefix}{token_id}_{_random(_SECRET_LENGTH)}"
    return MintedToken(token_id, SecretStr(value), token_sha256(value))


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def token_sha256(value: str | SecretStr) -> str:
    """The hex SHA-256 by which a token is stored and looked up."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return hashlib.sha256(text.encode()).hexdigest()


def parse_bearer(authorization: str | None) -> SecretStr:
    """The credential of an `Authorization: Bearer` header (RFC 6750 section 2.1); raise Unauthenticated without one."""
    if authorization is None or not authorization.strip():
        raise Unauthenticated(
            "cannot do this without a token: send the header `Authorization: Bearer <token>`", code="no_credential"
        )
    found = _BEARER.fullmatch(authorization.strip())
    if found is None:
        raise Unauthenticated(
            "cannot read the Authorization header: send `Authorization: Bearer <token>`", code="malformed_credential"
        )
    if found.group(1).startswith((SESSION_PREFIX, TICKET_PREFIX)):
        raise Unauthenticated(
            "cannot take a session or a ticket as a bearer token: send an API token or a JWT",
            code="misplaced_credential",
        )
    return SecretStr(found.group(1))
