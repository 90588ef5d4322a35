"""What is dead is forgotten: in the store, and at the relays."""

from __future__ import annotations

import pytest

from elizacloud.auth import pruning
from elizacloud.auth.issuing import Tokens
from elizacloud.auth.pruning import Pruner
from elizacloud.auth.signing_keys import SigningKeys
from elizacloud.auth.tickets import Tickets
from elizacloud.auth.tokens import token_sha256
from elizacloud.model import Principal, Scope
from elizacloud.store import Store
from tests.auth.conftest import OUR_NAME, Clock
from tests.fakes.relays import FakeRelays
from tests.fakes.store import created


async def test_what_has_expired_is_forgotten(store: Store, relays: FakeRelays, clock: Clock) -> None:
    pruner, tokens = Pruner(store, relays, clock), Tokens(store, relays, clock)
    tickets = Tickets(store, relays, clock, ticket_seconds=60, session_seconds=600)
    keys = SigningKeys(store, relays, clock, issuer=OUR_NAME, key_seconds=60)
    await keys.refresh()
    agent = await created(store)
    kept = await tokens.issue(agent.owner_id, "kept", by=None)
    by = Principal(kept.token.id, agent.owner_id, frozenset({Scope.OWNER}))
    short = await tokens.issue(agent.owner_id, "short", by=None, expires_in_seconds=60)
    redeemed = await tickets.issue(agent.id, agent.owner_id, by=by)
    session = await tickets.redeem(token_sha256(redeemed.value), agent.id, session=True)
    assert set(relays.table.token_ids) == {kept.token.id, short.token.id, session.token.token_id}
    clock.pass_seconds(599)
    await pruner.prune()
    assert set(relays.table.token_ids) == {kept.token.id, session.token.token_id}
    clock.pass_seconds(1)
    await pruner.prune()
    assert set(relays.table.token_ids) == {kept.token.id}
    assert await store.tokens.by_sha256(session.token.sha256) is None
    assert await store.tokens.by_sha256(short.token.sha256) is not None  # still listed, so that its end is seen
    assert await store.tickets.prune(batch=9) == 0
    clock.pass_seconds(3_600)
    await pruner.prune()
    assert await store.signing_keys.list() == []


async def test_very_many_go_in_batches(
    store: Store, relays: FakeRelays, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH", 2)
    tickets = Tickets(store, relays, clock, ticket_seconds=60, session_seconds=600)
    agent = await created(store)
    by = Principal("t", agent.owner_id, frozenset({Scope.OWNER}), issuer="x")
    for _ in range(5):
        await tickets.issue(agent.id, agent.owner_id, by=by)
    clock.pass_seconds(60)
    await Pruner(store, relays, clock).prune()
    assert await store.tickets.prune(batch=9) == 0
