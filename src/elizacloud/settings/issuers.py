"""The setting `trusted_issuers`: platforms whose JWTs say who somebody is."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from elizacloud.settings.kinds import is_loopback


def _checked_jwks_url(url: str) -> str:
    parts = urlsplit(url)
    good = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not good or not parts.hostname or parts.username or parts.password or parts.fragment:
        raise ValueError(f"{url[:200]!r} is not a URL of keys: use https://host/path (plain http only to loopback)")
    return url


def _parsed(value: object) -> object:
    """A variable holds JSON; TOML has a list of tables."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError('it is not JSON: use [{"issuer": "...", "jwks_url": "...", "audience": "..."}]') from error


def _checked_issuers(issuers: tuple[TrustedIssuer, ...]) -> tuple[TrustedIssuer, ...]:
    names = [issuer.issuer for issuer in issuers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the issuer {min(twice)!r} is there twice: give it once")
    return issuers


class TrustedIssuer(BaseModel):
    """Whose JWTs are accepted, where their keys are, and how they name an owner: `owner_prefix` and the claim's value.

    Give each issuer a prefix of its own when there are several: without one they can name each other's owners.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, max_length=512)
    jwks_url: Annotated[str, AfterValidator(_checked_jwks_url)]
    audience: str = Field(min_length=1, max_length=512)
    owner_claim: str = Field("sub", min_length=1, max_length=128)
    owner_prefix: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._:@|+-]{0,63})?$")

    def __str__(self) -> str:
        return self.issuer


TrustedIssuers = Annotated[
    tuple[TrustedIssuer, ...], NoDecode, BeforeValidator(_parsed), AfterValidator(_checked_issuers)
]
