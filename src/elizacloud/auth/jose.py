"""JSON Web Signatures as we take and make them: compact form, asymmetric, one algorithm a key, strict JSON.

The signature itself is joserfc's work. Around it: a key is only ever used with its own `alg` (RFC 8725 section 3.1), so
that a public key is never taken for an HMAC secret, and JSON with a name twice is refused, since two readers of it might see
two different tokens.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key, OKPKey, import_key
from pydantic import SecretStr

from elizacloud.errors import Invalid
from elizacloud.upstreams import PublicKey

MAX_TOKEN_CHARACTERS = 8192
ALGORITHM = "EdDSA"
"""Ours. RFC 9864 calls it Ed25519, which most libraries do not know yet."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]{2,1024})\.([A-Za-z0-9_-]{2,})\.[A-Za-z0-9_-]{2,}")
_CURVES = {"EdDSA": "Ed25519", "Ed25519": "Ed25519", "ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_RSA_BITS = (2048, 8192)
_IMPLIED = {"Ed25519": "EdDSA", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
"""Many publish keys without `alg`. A curve has one; for RSA it is RS256, as in OpenID Connect Core section 3.1.3.7."""
_PUBLIC_MEMBERS = {"OKP": ("crv", "x"), "EC": ("crv", "x", "y"), "RSA": ("n", "e")}


class _OneAlgorithm(jws.JWSRegistry):
    """Allows one algorithm, whatever joserfc recommends: it warns of the name EdDSA."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        self.max_header_length = self.max_payload_length = self.max_signature_length = MAX_TOKEN_CHARACTERS

    def get_alg(self, name: str) -> Any:
        if self.allowed is None or name not in self.allowed:
            raise Invalid("cannot use this key with another algorithm than its own")
        return self.algorithms[name]


_REGISTRIES = {algorithm: _OneAlgorithm(algorithm) for algorithm in (*_CURVES, *_RSA)}


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token says, before anyone knows that it is true."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]


def read(token: str) -> Unverified:
    """The header and the claims of a compact token; Invalid when it is malformed."""
    found = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN_CHARACTERS else None
    if found is None:
        raise Invalid("cannot read the JWT: it is not of the compact form")
    return Unverified(_object(found[1]), _object(found[2]))


def check_signature(token: str, key: PublicKey) -> None:
    """Raise Invalid unless the token was signed with this key and the one algorithm that the key is for."""
    imported, algorithm = _imported(key.jwk)
    try:
        jws.deserialize_compact(token, imported, registry=_REGISTRIES[algorithm])
    except (JoseError, ValueError) as error:
        raise Invalid("cannot accept the JWT: its signature is not right") from error


def public_key(jwk: Mapping[str, Any]) -> PublicKey:
    """The key of a JWKS without what nobody needs, pinned to its algorithm; Invalid when it cannot check signatures."""
    kid, kind, operations = _text(jwk, "kid"), _text(jwk, "kty"), jwk.get("key_ops", ["verify"])
    if not 0 < len(kid) <= 256 or kind not in _PUBLIC_MEMBERS:
        raise Invalid("cannot use this key: it has no kid, or is not an asymmetric one")
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise Invalid("cannot use this key: it is not for signatures")
    algorithm = _text(jwk, "alg", _IMPLIED.get(str(jwk.get("crv")), "RS256"))
    fits = algorithm in _RSA if kind == "RSA" else algorithm in _CURVES and _CURVES[algorithm] == jwk.get("crv")
    if not fits:
        raise Invalid("cannot use this key: its algorithm is not one that is accepted, or not for this kind of key")
    public = {name: _text(jwk, name) for name in _PUBLIC_MEMBERS[kind]} | {"kty": kind, "kid": kid, "alg": algorithm}
    text = json.dumps(public, sort_keys=True)
    _imported(text)
    return PublicKey(kid, text)


class Signer:
    """Signs with one private key."""

    def __init__(self, kid: str, private_jwk: SecretStr) -> None:
        self._kid = kid
        self._key = OKPKey.import_key(json.loads(private_jwk.get_secret_value()))

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        header = {"alg": ALGORITHM, "kid": self._kid, "typ": typ}
        payload = json.dumps(claims, separators=(",", ":"))
        return jws.serialize_compact(header, payload, self._key, registry=_REGISTRIES[ALGORITHM])


def new_private_key() -> tuple[str, SecretStr]:
    """A fresh Ed25519 key: its id, which is its thumbprint (RFC 7638), and the private JWK."""
    key = OKPKey.generate_key("Ed25519")
    kid = key.thumbprint()
    return kid, SecretStr(json.dumps(key.as_dict(private=True) | {"kid": kid, "alg": ALGORITHM}, sort_keys=True))


def public_part(private_jwk: SecretStr) -> PublicKey:
    return public_key(json.loads(private_jwk.get_secret_value()))


def _text(jwk: Mapping[str, Any], name: str, default: str = "") -> str:
    """A member of a key that is text. Visible ASCII only: JSON may hold half a surrogate pair, which nobody can encode."""
    found = jwk.get(name, default)
    if not isinstance(found, str) or not found.isascii() or not found.isprintable():
        raise Invalid(f"cannot use this key: its {name} is not plain text")
    return found


@lru_cache(maxsize=512)
def _imported(jwk: str) -> tuple[Key, str]:
    """A public key and its algorithm; Invalid for one that is broken or weak."""
    members = json.loads(jwk)
    try:
        if members["kty"] == "RSA":
            bits = int.from_bytes(urlsafe_b64decode(f"{members['n']}==")).bit_length()
            if not _RSA_BITS[0] <= bits <= _RSA_BITS[1]:
                raise Invalid(f"cannot use an RSA key of {bits} bits: {_RSA_BITS[0]} to {_RSA_BITS[1]} are accepted")
        key = import_key(members)
        key.get_op_key("verify")
    except (JoseError, ValueError, TypeError) as error:
        raise Invalid("cannot use this key: it is malformed") from error
    return key, str(members["alg"])


def _object(segment: str) -> Mapping[str, Any]:
    try:
        text = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        found = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise Invalid("cannot read the JWT: its parts are not JSON objects in base64url") from error
    if not isinstance(found, dict):
        raise Invalid("cannot read the JWT: its parts are not JSON objects in base64url")
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
