"""Our own signing keys: made at first need, renewed before their time is over, known to relays and to whoever asks.

A key signs for one step. The next one is published a whole step before it signs, so that whoever keeps a copy of the JWKS has
it by then; the one before stays published until everything that it signed has expired. Tokens and assertions have keys
of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from elizacloud.auth import jose
from elizacloud.auth.jwt import LEEWAY_SECONDS, OUR_LIFETIME_SECONDS, TYP
from elizacloud.errors import Error, StoreUnavailable
from elizacloud.store import Purpose, SigningKey, Store
from elizacloud.upstreams import AssertionKey, KnownIssuer, Relays

ASSERTION_SECONDS = 60
LOOK_SECONDS = 30.0
"""How often a control plane looks for what another one made, and makes what is due."""

_LIFETIMES = {Purpose.ACCESS: OUR_LIFETIME_SECONDS, Purpose.ASSERTION: ASSERTION_SECONDS}

log = structlog.get_logger()


def missing_periods(
    keys: Sequence[SigningKey], purpose: Purpose, now: datetime, step: timedelta
) -> Sequence[tuple[datetime, datetime]]:
    """From when until when new keys have to sign, so that one signs now and the next one is published."""
    mine = [key for key in keys if key.purpose is purpose]
    signing_until = max((key.signs_until for key in mine if key.signs_from <= now < key.signs_until), default=None)
    later = min((key.signs_from for key in mine if key.signs_from > now), default=None)
    periods = []
    if signing_until is None:
        # Nothing signs: the first start, a long outage, or a clock that was put back.
        signing_until = min(later, now + step) if later is not None else now + step
        periods.append((now, signing_until))
    if later is None:
        periods.append((signing_until, signing_until + step))
    return periods


class SigningKeys:
    """`issuer` is our name in `iss`; assertions have `{issuer}/assertion`."""

    def __init__(
        self, store: Store, relays: Relays, now: Callable[[], datetime], *, issuer: str, key_seconds: float
    ) -> None:
        self.issuer = issuer
        self._store = store
        self._relays = relays
        self._now = now
        self._step = timedelta(seconds=key_seconds)
        self._keys: Sequence[SigningKey] = ()
        self._signers: dict[str, jose.Signer] = {}
        self._known = KnownIssuer(issuer, ())

    @property
    def known(self) -> KnownIssuer:
        """Ourselves, as relays and API check our tokens."""
        return self._known

    @property
    def fresh_seconds(self) -> int:
        """How long a copy of the JWKS may be used: long before the next key signs."""
        return max(1, min(300, int(self._step.total_seconds() / 4)))

    def jwks(self) -> Mapping[str, Any]:
        """Every key with which something that is valid may be signed, and the next ones (RFC 7517)."""
        return {"keys": [json.loads(jose.public_part(key.private_jwk).jwk) | {"use": "sig"} for key in self._keys]}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT of ours with these claims and our name. Raises StoreUnavailable when no key could be had yet."""
        key = self._signing(Purpose.ACCESS)
        if key is None:
            raise StoreUnavailable("cannot sign a JWT: the signing keys are not there yet; try again")
        signer = self._signers.get(key.kid)
        if signer is None:
            signer = self._signers[key.kid] = jose.Signer(key.kid, key.private_jwk)
        return signer.sign({"iss": self.issuer, **claims}, typ=TYP)

    async def run(self) -> None:
        """Renew them in time, until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self._step.total_seconds() / 4))
            try:
                await self.refresh()
            except Error as error:
                log.warning("cannot renew the signing keys", reason=str(error))

    async def refresh(self) -> None:
        """Make what is due, and tell relays what is new to them. Raises StoreUnavailable."""
        keys = await self._store.signing_keys.list()
        if self._due(keys):
            keys = await self._store.signing_keys.complete(self._made)
        before = self._signing(Purpose.ASSERTION)
        self._keys = keys
        self._signers = {kid: signer for kid, signer in self._signers.items() if kid in {key.kid for key in keys}}
        public = tuple(jose.public_part(key.private_jwk) for key in keys if key.purpose is Purpose.ACCESS)
        asserting = self._signing(Purpose.ASSERTION)
        if public == self._known.keys and asserting == before:
            return
        self._known = KnownIssuer(self.issuer, public)
        log.info("signing keys", published=len(keys))
        self._relays.trust(
            [self._known],
            None
            if asserting is None
            else AssertionKey(f"{self.issuer}/assertion", asserting.kid, asserting.private_jwk),
        )

    def _signing(self, purpose: Purpose) -> SigningKey | None:
        """The key that signs now. A last one goes on past its time while no other can be had."""
        now = self._now()
        begun = [key for key in self._keys if key.purpose is purpose and key.signs_from <= now < key.published_until]
        return max(begun, key=lambda key: (key.signs_from, key.kid), default=None)

    def _due(self, keys: Sequence[SigningKey]) -> bool:
        return any(missing_periods(keys, purpose, self._now(), self._step) for purpose in Purpose)

    def _made(self, keys: Sequence[SigningKey]) -> Iterable[SigningKey]:
        for purpose in Purpose:
            for begin, end in missing_periods(keys, purpose, self._now(), self._step):
                kid, private = jose.new_private_key()
                published_until = end + timedelta(seconds=_LIFETIMES[purpose] + LEEWAY_SECONDS)
                yield SigningKey(kid, purpose, private, begin, end, published_until)
