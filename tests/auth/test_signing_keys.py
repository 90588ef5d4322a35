"""Signing keys over time: who has read the JWKS once has the key that signs, and what was signed stays checkable."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from elizacloud.auth import jose
from elizacloud.auth.jwt import Verifier
from elizacloud.auth.signing_keys import SigningKeys, missing_periods
from elizacloud.errors import StoreUnavailable
from elizacloud.store import Purpose, Store
from tests.auth.conftest import AGENT_ID, OUR_NAME, Clock
from tests.fakes.relays import FakeRelays

STEP = 3600.0


@pytest.fixture
def keys(store: Store, relays: FakeRelays, clock: Clock) -> SigningKeys:
    return SigningKeys(store, relays, clock, issuer=OUR_NAME, key_seconds=STEP)


def claims(clock: Clock, seconds: int = 900) -> dict[str, Any]:
    now = int(clock().timestamp())
    return {"sub": "ann", "aud": f"agent:{AGENT_ID}", "iat": now, "exp": now + seconds, "jti": "j"}


def published(keys: SigningKeys) -> set[str]:
    return {key["kid"] for key in keys.jwks()["keys"]}


def signing_kid(keys: SigningKeys, clock: Clock) -> str:
    return str(jose.read(keys.sign(claims(clock))).header["kid"])


async def test_without_keys_nothing_is_signed(keys: SigningKeys, clock: Clock) -> None:
    with pytest.raises(StoreUnavailable):
        keys.sign(claims(clock))


async def test_relays_can_check_what_was_signed(keys: SigningKeys, relays: FakeRelays, clock: Clock) -> None:
    await keys.refresh()
    assert Verifier(lambda: relays.table.issuers, clock).verify(keys.sign(claims(clock))).agent_id == AGENT_ID
    assertion = relays.table.assertion_key
    assert assertion is not None
    assert assertion.issuer == f"{OUR_NAME}/assertion"
    assert assertion.kid in published(keys)
    assert assertion.kid not in {key.kid for key in relays.table.issuers[OUR_NAME].keys}


async def test_the_jwks_holds_public_parts_only(keys: SigningKeys) -> None:
    await keys.refresh()
    for key in keys.jwks()["keys"]:
        assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}
    assert '"d"' not in json.dumps(keys.jwks())


async def test_a_key_is_published_a_step_before_it_signs_and_as_long_as_what_it_signed_is_valid(
    keys: SigningKeys, relays: FakeRelays, clock: Clock
) -> None:
    first_published: dict[str, float] = {}
    signed: list[tuple[str, float]] = []
    begin = clock()
    await keys.refresh()
    for _ in range(60):
        elapsed = (clock() - begin).total_seconds()
        for kid in published(keys):
            first_published.setdefault(kid, elapsed)
        token = keys.sign(claims(clock, 3600))
        signed.append((token, elapsed))
        kid = str(jose.read(token).header["kid"])
        assert elapsed == 0 or elapsed < STEP or elapsed - first_published[kid] >= STEP - 300
        verifier = Verifier(lambda: relays.table.issuers, clock)
        for earlier, at in signed:
            if elapsed - at < 3600:
                verifier.verify(earlier)
        clock.pass_seconds(300)
        await keys.refresh()
    kids = [str(jose.read(token).header["kid"]) for token, _ in signed]
    assert sum(before != after for before, after in pairwise(kids)) == 4
    assert len(relays.table.issuers[OUR_NAME].keys) <= 4


async def test_another_control_plane_uses_the_same_keys(
    store: Store, keys: SigningKeys, relays: FakeRelays, clock: Clock
) -> None:
    other = SigningKeys(store, relays, clock, issuer=OUR_NAME, key_seconds=STEP)
    await keys.refresh()
    await other.refresh()
    assert other.jwks() == keys.jwks()
    assert signing_kid(other, clock) == signing_kid(keys, clock)


async def test_after_a_long_outage_there_is_a_key_at_once(
    store: Store, keys: SigningKeys, relays: FakeRelays, clock: Clock
) -> None:
    await keys.refresh()
    clock.pass_seconds(50 * STEP)
    restarted = SigningKeys(store, relays, clock, issuer=OUR_NAME, key_seconds=STEP)
    await restarted.refresh()
    Verifier(lambda: relays.table.issuers, clock).verify(restarted.sign(claims(clock)))


async def test_relays_are_told_only_what_is_new(keys: SigningKeys, relays: FakeRelays) -> None:
    await keys.refresh()
    revision = relays.table.revision
    await keys.refresh()
    assert relays.table.revision == revision


async def test_a_private_part_never_shows(keys: SigningKeys, store: Store, relays: FakeRelays) -> None:
    await keys.refresh()
    kept = await store.signing_keys.list()
    private = [json.loads(key.private_jwk.get_secret_value())["d"] for key in kept]
    shown = f"{kept!r} {relays.table!r} {keys.jwks()}"
    assert not any(each in shown for each in private)


async def test_a_clock_that_was_put_back_makes_a_key_for_now(keys: SigningKeys, store: Store, clock: Clock) -> None:
    await keys.refresh()
    clock.pass_seconds(-600)
    present = await store.signing_keys.list()
    begin, end = missing_periods(present, Purpose.ACCESS, clock(), timedelta(seconds=STEP))[0]
    assert (begin, end) == (clock(), clock() + timedelta(seconds=600))


def test_tokens_and_assertions_share_no_key(clock: Clock) -> None:
    for purpose in Purpose:
        assert len(missing_periods([], purpose, clock(), timedelta(days=1))) == 2
