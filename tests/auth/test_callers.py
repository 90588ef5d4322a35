"""Who the API lets in, and as whom."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from elizacloud.auth.credentials import Credentials
from elizacloud.auth.jose import Signer
from elizacloud.auth.jwt import ASSERTION_TYP
from elizacloud.auth.tokens import SESSION_PREFIX, mint
from elizacloud.errors import Error, Forbidden, Unauthenticated
from elizacloud.model import ApiToken, Principal, Scope, TokenKind
from elizacloud.settings import Settings, TrustedIssuer
from elizacloud.store import Store
from tests.auth.conftest import AGENT_ID, OUR_NAME, THEIR_NAME, THEIRS, Clock, Forge, a_forge
from tests.fakes.relays import FakeRelays

PLATFORM = TrustedIssuer(
    issuer=THEIR_NAME, jwks_url="https://platform.example/keys", audience="cloud", owner_prefix="p|"
)


class Published:
    """What the platform has at its JWKS URL."""

    def __init__(self) -> None:
        self.forges = [THEIRS]
        self.asked = 0

    async def __call__(self, url: str) -> bytes:
        self.asked += 1
        assert url == PLATFORM.jwks_url
        return json.dumps({"keys": [forge.jwk for forge in self.forges]}).encode()


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
async def credentials(store: Store, relays: FakeRelays, clock: Clock, published: Published) -> Credentials:
    settings = Settings(trusted_issuers=(PLATFORM,))
    made = Credentials(store, relays, settings, issuer=OUR_NAME, now=clock, fetch=published)
    await made.prepare()
    return made


def theirs(clock: Clock, forge: Forge = THEIRS, **changes: Any) -> str:
    now = int(clock().timestamp())
    claims = {"iss": THEIR_NAME, "sub": "ann", "aud": "cloud", "iat": now, "exp": now + 300} | changes
    return forge.signed(claims)


async def refused(credentials: Credentials, bearer: str) -> Error:
    with pytest.raises((Unauthenticated, Forbidden)) as caught:
        await credentials.callers.authenticate(f"Bearer {bearer}")
    assert bearer not in str(caught.value)
    return caught.value


async def test_an_api_token_lets_its_owner_in_until_it_is_revoked(credentials: Credentials, clock: Clock) -> None:
    issued = await credentials.tokens.issue("ann", "laptop", by=None, expires_in_seconds=60)
    bearer = issued.value.get_secret_value()
    principal = await credentials.callers.authenticate(f"Bearer {bearer}")
    assert (principal.owner_id, principal.parent_id) == ("ann", issued.token.id)
    clock.pass_seconds(60)
    assert (await refused(credentials, bearer)).reason == "expired_token"
    other = await credentials.tokens.issue("ann", "laptop", by=None)
    await credentials.tokens.revoke(other.token.id, "ann")
    assert (await refused(credentials, other.value.get_secret_value())).reason == "invalid_token"


async def test_a_trusted_issuers_jwt_lets_its_owner_in(credentials: Credentials, clock: Clock) -> None:
    principal = await credentials.callers.authenticate(f"Bearer {theirs(clock)}")
    assert (principal.owner_id, principal.scopes) == ("p|ann", frozenset({Scope.OWNER}))
    assert (principal.issuer, principal.parent_id) == (THEIR_NAME, None)
    assert principal.expires_at == clock() + timedelta(seconds=300)


async def test_a_new_key_is_found_when_it_is_first_used(
    credentials: Credentials, published: Published, clock: Clock
) -> None:
    following = a_forge("next", "ES256")
    published.forges.append(following)
    assert (await credentials.callers.authenticate(f"Bearer {theirs(clock, following)}")).owner_id == "p|ann"
    assert published.asked == 2
    for _ in range(5):
        await refused(credentials, theirs(clock, a_forge("thief", "ES256")))
    assert published.asked == 2


async def test_our_own_jwts_manage_nothing(credentials: Credentials) -> None:
    by = Principal("t1", "ann", frozenset({Scope.OWNER}))
    for agent_id in (None, AGENT_ID):
        value = credentials.jwts.issue("ann", by=by, agent_id=agent_id).value.get_secret_value()
        error = await refused(credentials, value)
        assert (type(error), error.reason) == (Forbidden, "scope")


async def test_an_assertion_is_no_credential(credentials: Credentials, relays: FakeRelays, clock: Clock) -> None:
    """Signed with the key that relays really have, in every disguise."""
    key = relays.table.assertion_key
    assert key is not None
    now = int(clock().timestamp())
    claims = {"iss": key.issuer, "sub": "ann", "aud": f"agent:{AGENT_ID}", "iat": now, "exp": now + 60, "jti": "j"}
    for issuer in (key.issuer, OUR_NAME, THEIR_NAME):
        for typ in (ASSERTION_TYP, "at+jwt", "JWT"):
            value = Signer(key.kid, key.private_jwk).sign(claims | {"iss": issuer, "aud": "cloud"}, typ=typ)
            assert (await refused(credentials, value)).reason == "invalid_token"


async def test_a_session_is_no_bearer(credentials: Credentials, store: Store, clock: Clock) -> None:
    """Not with its prefix, and not if its hash were found all the same."""
    minted = mint(SESSION_PREFIX)
    assert (await refused(credentials, minted.value.get_secret_value())).reason == "misplaced_credential"
    disguised = mint()
    await store.tokens.create(
        ApiToken(
            "s1", "ann", "session", frozenset({Scope.OWNER}), None, disguised.sha256, clock(), kind=TokenKind.SESSION
        )
    )
    assert (await refused(credentials, disguised.value.get_secret_value())).reason == "invalid_token"


@pytest.mark.parametrize("bearer", ["eyJ.eyJ.AA", "ey" + "A" * 8000 + ".AA.AA", "ey..", "eyJhbGciOiJub25lIn0.e30."])
async def test_rubbish_is_refused(credentials: Credentials, bearer: str) -> None:
    assert (await refused(credentials, bearer)).reason == "invalid_token"
