"""Our own JWTs: what they say, how long they last, and that nothing gives away more than it has."""

from __future__ import annotations

from datetime import timedelta

import pytest

from elizacloud.auth import jose
from elizacloud.auth.jwt import Verifier
from elizacloud.auth.jwts import Jwts
from elizacloud.auth.signing_keys import SigningKeys
from elizacloud.errors import Invalid
from elizacloud.model import Principal, Scope
from elizacloud.store import Store
from tests.auth.conftest import AGENT_ID, OUR_NAME, Clock
from tests.fakes.relays import FakeRelays

OWNER = Principal("t1", "ann", frozenset({Scope.OWNER}))


@pytest.fixture
async def jwts(store: Store, relays: FakeRelays, clock: Clock) -> Jwts:
    keys = SigningKeys(store, relays, clock, issuer=OUR_NAME, key_seconds=86_400)
    await keys.refresh()
    return Jwts(keys, clock)


@pytest.mark.parametrize("agent_id", [None, AGENT_ID])
async def test_relays_see_what_was_issued(jwts: Jwts, relays: FakeRelays, clock: Clock, agent_id: str | None) -> None:
    issued = jwts.issue("ann", by=OWNER, agent_id=agent_id)
    value = issued.value.get_secret_value()
    claims = Verifier(lambda: relays.table.issuers, clock).verify(value)
    assert (claims.owner_id, claims.agent_id, claims.parent_id, claims.token_id) == ("ann", agent_id, "t1", issued.id)
    assert claims.expires_at == issued.expires_at == clock() + timedelta(seconds=900)
    assert set(jose.read(value).claims) == {"iss", "sub", "aud", "iat", "exp", "jti", "tid"}
    assert value not in repr(issued)


async def test_it_does_not_outlive_the_credential_that_asked(jwts: Jwts, clock: Clock) -> None:
    end = clock() + timedelta(seconds=100)
    by = Principal("jwt-1", "ann", frozenset({Scope.OWNER}), expires_at=end, issuer="https://platform.example")
    issued = jwts.issue("ann", by=by, expires_in_seconds=3600)
    assert issued.expires_at == end
    assert "tid" not in jose.read(issued.value.get_secret_value()).claims


@pytest.mark.parametrize("seconds", [0, -1, 3600.1, float("nan"), float("inf")])
async def test_a_time_that_is_too_long_is_refused(jwts: Jwts, seconds: float) -> None:
    with pytest.raises(Invalid):
        jwts.issue("ann", by=OWNER, expires_in_seconds=seconds)
