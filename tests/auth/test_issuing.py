"""Issuing tokens: what is stored, what relays hear, and who may give what away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from elizacloud.auth.issuing import Tokens, checked_token_name
from elizacloud.auth.tokens import token_sha256
from elizacloud.errors import Forbidden, Invalid, NotFound
from elizacloud.model import Principal, Scope
from elizacloud.store import Store
from tests.auth.conftest import Clock
from tests.fakes.relays import FakeRelays

OWNER = Principal("t", "ann", frozenset({Scope.OWNER}))


@pytest.fixture
def tokens(store: Store, relays: FakeRelays, clock: Clock) -> Tokens:
    return Tokens(store, relays, clock)


async def test_only_the_hash_is_kept_and_relays_know_it_at_once(
    tokens: Tokens, store: Store, relays: FakeRelays
) -> None:
    issued = await tokens.issue("ann", "laptop", by=OWNER)
    value = issued.value.get_secret_value()
    assert await store.tokens.by_sha256(token_sha256(value)) == issued.token
    assert relays.table.tokens[token_sha256(value)].owner_id == "ann"
    assert value not in repr(issued)
    await tokens.revoke(issued.token.id, "ann")
    assert relays.table.tokens == {}


async def test_a_token_ends_when_it_was_to(tokens: Tokens, relays: FakeRelays, clock: Clock) -> None:
    issued = await tokens.issue("ann", "laptop", by=OWNER, expires_in_seconds=60)
    assert issued.token.expires_at == clock() + timedelta(seconds=60)
    assert relays.table.token_ids[issued.token.id].expires_at == issued.token.expires_at


async def test_nobody_gives_away_more_than_they_have(tokens: Tokens) -> None:
    with pytest.raises(Forbidden):
        await tokens.issue("ann", "x", by=OWNER, scopes=frozenset({Scope.SERVICE}))
    with pytest.raises(Invalid):
        await tokens.issue("ann", "x", by=OWNER, scopes=frozenset())
    with pytest.raises(Invalid):
        await tokens.issue("ann", "x", by=OWNER, scopes=frozenset({Scope.OWNER}), agent_id="a")
    with pytest.raises(NotFound):
        await tokens.issue("ann", "x", by=OWNER, scopes=frozenset({Scope.RELAY}), agent_id="nobody")
    with pytest.raises(NotFound):
        await tokens.revoke("nothing", "ann")


@pytest.mark.parametrize("name", ["", " ", " a", "a\n", "a\u200bb", "x" * 101])
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(Invalid):
        checked_token_name(name)


@pytest.mark.parametrize("name", ["a", "Ádám's laptop 🦀", "x" * 100])
def test_names_that_can(name: str) -> None:
    assert checked_token_name(name) == name
