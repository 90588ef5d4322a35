"""A clock, a store and relays in memory, and issuers that sign whatever a test wants signed."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from elizacloud.auth.jose import public_key
from elizacloud.store import Store
from elizacloud.upstreams import KnownIssuer, PublicKey
from tests.fakes.relays import FakeRelays
from tests.fakes.store import open_memory_store

OUR_NAME, THEIR_NAME = "https://cloud.example", "https://platform.example"
AGENT_ID = "kagent0000000001"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[Store]:
    async with open_memory_store(clock=clock) as store:
        yield store


@pytest.fixture
def relays() -> FakeRelays:
    return FakeRelays()


def encoded(part: Mapping[str, Any] | bytes) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(text).rstrip(b"=").decode()


@dataclass
class Forge:
    """Holds a private key and signs anything with it, as an attacker with that key would."""

    key: Key
    kid: str
    algorithm: str

    @property
    def public(self) -> PublicKey:
        return public_key(self.jwk)

    @property
    def jwk(self) -> dict[str, Any]:
        return {**self.key.as_dict(private=False), "kid": self.kid, "alg": self.algorithm}

    def signed(self, claims: Mapping[str, Any] | bytes, **header: Any) -> str:
        """The compact token. Claims may be raw bytes; a header of None leaves that one out."""
        whole = {"alg": self.algorithm, "kid": self.kid, "typ": "at+jwt", **header}
        first = encoded({name: value for name, value in whole.items() if value is not None})
        signing_input = f"{first}.{encoded(claims)}"
        signature = jws.JWSRegistry.algorithms[self.algorithm].sign(signing_input.encode(), self.key)
        return f"{signing_input}.{encoded(signature)}"


def a_forge(kid: str, algorithm: str = "EdDSA") -> Forge:
    if algorithm == "EdDSA":
        return Forge(OKPKey.generate_key("Ed25519"), kid, algorithm)
    if algorithm == "ES256":
        return Forge(ECKey.generate_key("P-256"), kid, algorithm)
    return Forge(RSAKey.generate_key(2048), kid, algorithm)


OURS, THEIRS = a_forge("our-key"), a_forge("their-key", "ES256")


def issuers(*more: KnownIssuer) -> dict[str, KnownIssuer]:
    known = (
        KnownIssuer(OUR_NAME, (OURS.public,)),
        KnownIssuer(THEIR_NAME, (THEIRS.public,), audience="cloud", owner_prefix="p|"),
        *more,
    )
    return {issuer.issuer: issuer for issuer in known}
