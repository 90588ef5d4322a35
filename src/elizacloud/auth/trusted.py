"""The keys of trusted issuers: fetched from where each publishes them, kept when it does not answer, told to the relays.

Looked at every few minutes, and when a token names a key that is not known, though not more often than every 30 s, since
anybody can send such a token.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from elizacloud.auth import jose
from elizacloud.auth.kept_keys import KeptKeys
from elizacloud.errors import Error, Invalid, Misconfigured, Unavailable
from elizacloud.settings import TrustedIssuer
from elizacloud.upstreams import KnownIssuer, PublicKey, Relays

REFRESH_SECONDS = 240.0
RETRY_SECONDS = 15.0
SEEK_GAP_SECONDS = 30.0
FETCH_SECONDS = 5.0
MAX_BYTES = 128 << 10
MAX_KEYS = 64

log = structlog.get_logger()

Fetch = Callable[[str], Awaitable[bytes]]


class TrustedIssuers:
    """`ours` is our own name. Raises Misconfigured when one of them has it, as it could sign in our place."""

    def __init__(
        self,
        issuers: Sequence[TrustedIssuer],
        relays: Relays,
        *,
        ours: str,
        fetch: Fetch | None = None,
        kept: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for issuer in issuers:
            if issuer.issuer in (ours, f"{ours}/assertion"):
                raise Misconfigured(
                    f"cannot trust the issuer {issuer.issuer!r}: it is our own name; remove it from trusted_issuers"
                )
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._relays = relays
        self._fetch = fetch or fetched
        self._clock = clock
        self._kept = KeptKeys(kept)
        self._known: dict[str, KnownIssuer] = {}
        self._turns = {name: asyncio.Lock() for name in self._issuers}
        self._sought: dict[str, float] = {}

    @property
    def known(self) -> Mapping[str, KnownIssuer]:
        """Those whose keys are there, by name."""
        return self._known

    def recall(self) -> None:
        """Know the keys that were there before the last end of this control plane, until there are newer ones."""
        keys = self._kept.load()
        for name, issuer in self._issuers.items():
            if issuer.jwks_url in keys and name not in self._known:
                self._tell(issuer, keys[issuer.jwks_url])

    async def refresh(self) -> None:
        """Look at all of them, at the same time; what one does not tell stays as it is."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._issuers:
                tasks.create_task(self._look(name), name=f"keys of {name[:60]}")

    async def run(self) -> None:
        """Look every few minutes, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._issuers:
                tasks.create_task(self._follow(name), name=f"keys of {name[:60]}")

    async def seek(self, name: str) -> bool:
        """A token names a key of this issuer that is not known: look, if it was not done just now. True after a look."""
        if name not in self._issuers:
            return False
        before = self._known.get(name)
        async with self._turns[name]:
            if self._known.get(name) is not before:
                return True  # somebody else just looked
            now = self._clock()
            if now - self._sought.get(name, float("-inf")) < SEEK_GAP_SECONDS:
                return False
            self._sought[name] = now
            return await self._renew(name)

    async def _follow(self, name: str) -> None:
        good = name in self._known
        while True:
            await asyncio.sleep((REFRESH_SECONDS if good else RETRY_SECONDS) * (0.75 + random.random() / 2))
            good = await self._look(name)

    async def _look(self, name: str) -> bool:
        async with self._turns[name]:
            return await self._renew(name)

    async def _renew(self, name: str) -> bool:
        """One look. False, with nothing changed, when there was no good answer."""
        issuer = self._issuers[name]
        try:
            keys = keys_of(await self._fetch(issuer.jwks_url))
        except Error as error:
            log.warning("no keys of a trusted issuer", issuer=name, reason=str(error), kept=name in self._known)
            return False
        except Exception:  # what others publish must not end us, whatever it is
            log.exception("no keys of a trusted issuer", issuer=name, kept=name in self._known)
            return False
        if self._tell(issuer, keys):
            self._kept.save({self._issuers[name].jwks_url: known.keys for name, known in self._known.items()})
        return True

    def _tell(self, issuer: TrustedIssuer, keys: tuple[PublicKey, ...]) -> bool:
        """Know these keys, and let the relays know; False when they are what was known."""
        name = issuer.issuer
        known = KnownIssuer(name, keys, issuer.audience, issuer.owner_claim, issuer.owner_prefix)
        if known == self._known.get(name):
            return False
        self._known[name] = known
        self._relays.trust([known], None)
        log.info("keys of a trusted issuer", issuer=name, keys=[key.kid for key in keys])
        return True


def keys_of(document: bytes) -> tuple[PublicKey, ...]:
    """The keys of a JWKS that can be used; Invalid when there is none, or when it is not one."""
    try:
        found: Any = json.loads(document)
        listed = found["keys"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise Invalid("cannot read the keys: the answer is not a JWKS") from error
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise Invalid(f"cannot use the keys: a list of at most {MAX_KEYS} is accepted")
    keys: dict[str, PublicKey] = {}
    for jwk in listed:
        try:
            key = jose.public_key(jwk) if isinstance(jwk, dict) else None
        except Invalid:
            continue  # For encryption, or of a kind that is not accepted: others of the same issuer may be good.
        if key is not None:
            if key.kid in keys and keys[key.kid] != key:
                raise Invalid("cannot use the keys: two of them have the same kid")
            keys[key.kid] = key
    if not keys:
        raise Invalid("cannot use the keys: none of them is asymmetric, for signatures, and has a kid")
    return tuple(keys.values())


async def fetched(url: str) -> bytes:
    """What is there. Follows no redirect. Raises Unavailable."""
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status != 200:
                raise Unavailable(f"cannot fetch the keys: the answer is {answer.status}")
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > MAX_BYTES:
                    raise Unavailable(f"cannot fetch the keys: the answer is longer than {MAX_BYTES} bytes")
            return bytes(body)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Unavailable(f"cannot fetch the keys: {type(error).__name__}") from error
