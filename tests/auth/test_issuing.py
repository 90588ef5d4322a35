"""Issuing tokens: what is stored, what relays hear, and who may give what away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from elizacloud.auth.issuing import Tokens, checked_token_name
from elizacloud.auth.tokens import token_sha256
from elizacloud.errors import Forbidden, Invalid, NotFound, Unauthenticated
from elizacloud.model import Principal, Scope
from elizacloud.store import Store
from tests.fakes.relays import FakeRelays
from tests.fakes.store import open_memory_store

OWNER = Principal("t", "ann", frozenset({Scope.OWNER}))


class Clock:
    now = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


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
    assert (await tokens.authenticate(f"Bearer {value}")).owner_id == "ann"
    await tokens.revoke(issued.token.id, "ann")
    assert relays.table.tokens == {}
    with pytest.raises(Unauthenticated):
        await tokens.authenticate(f"Bearer {value}")


async def test_a_token_ends_when_it_was_to(tokens: Tokens, clock: Clock) -> None:
    issued = await tokens.issue("ann", "laptop", by=OWNER, expires_in_seconds=60)
    bearer = f"Bearer {issued.value.get_secret_value()}"
    await tokens.authenticate(bearer)
    clock.now += timedelta(seconds=60)
    with pytest.raises(Unauthenticated) as caught:
        await tokens.authenticate(bearer)
    assert caught.value.reason == "expired_token"


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
