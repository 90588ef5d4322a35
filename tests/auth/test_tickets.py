"""Tickets and what they give: never more than the credential that asked had, and never for longer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr

from elizacloud.auth.access import principal_of
from elizacloud.auth.issuing import Tokens
from elizacloud.auth.tickets import Tickets
from elizacloud.auth.tokens import MintedToken, token_sha256
from elizacloud.errors import Conflict, NotFound, Unauthenticated
from elizacloud.model import Principal, Scope, TokenKind
from elizacloud.store import Store
from tests.auth.conftest import Clock
from tests.fakes.relays import FakeRelays
from tests.fakes.store import created

OWNER = "owner-1"


@pytest.fixture
def tickets(store: Store, relays: FakeRelays, clock: Clock) -> Tickets:
    return Tickets(store, relays, clock, ticket_seconds=60, session_seconds=43_200)


@pytest.fixture
def tokens(store: Store, relays: FakeRelays, clock: Clock) -> Tokens:
    return Tokens(store, relays, clock)


@pytest.fixture
async def agent_id(store: Store) -> str:
    return (await created(store)).id


async def holder(tokens: Tokens, clock: Clock, *, seconds: float | None = None) -> Principal:
    issued = await tokens.issue(OWNER, "laptop", by=None, expires_in_seconds=seconds)
    return principal_of(issued.token, clock())


async def test_a_ticket_gives_a_session_that_relays_know(
    tickets: Tickets, tokens: Tokens, store: Store, relays: FakeRelays, clock: Clock, agent_id: str
) -> None:
    by = await holder(tokens, clock)
    ticket = await tickets.issue(agent_id, OWNER, by=by)
    value = ticket.value.get_secret_value()
    assert value.startswith("ect_")
    assert ticket.expires_at == clock() + timedelta(seconds=60)
    redemption = await tickets.redeem(token_sha256(value), agent_id, session=True)
    assert redemption.value is not None
    session = redemption.value.get_secret_value()
    assert session.startswith("ecs_")
    known = relays.table.tokens[token_sha256(session)]
    assert known == redemption.token
    assert (known.kind, known.parent_id, known.agent_id) == (TokenKind.SESSION, by.token_id, agent_id)
    assert (known.owner_id, known.scopes) == (OWNER, frozenset({Scope.RELAY}))
    assert known.expires_at == clock() + timedelta(hours=12)
    assert not any(secret in repr((ticket, redemption)) for secret in (value, session))
    stored = await store.tokens.by_sha256(token_sha256(session))
    assert stored is not None
    assert session not in repr(stored)


async def test_a_connections_ticket_makes_no_session(
    tickets: Tickets, tokens: Tokens, store: Store, relays: FakeRelays, clock: Clock, agent_id: str
) -> None:
    by = await holder(tokens, clock)
    ticket = await tickets.issue(agent_id, OWNER, by=by)
    redemption = await tickets.redeem(token_sha256(ticket.value), agent_id, session=False)
    assert redemption.value is None
    assert (redemption.token.parent_id, redemption.token.owner_id) == (by.token_id, OWNER)
    assert [token.id for token in await store.tokens.list_live()] == [by.token_id]
    assert list(relays.table.token_ids) == [by.token_id]


@pytest.mark.parametrize("session", [True, False])
async def test_twice_is_once(
    tickets: Tickets, tokens: Tokens, relays: FakeRelays, clock: Clock, agent_id: str, session: bool
) -> None:
    ticket = await tickets.issue(agent_id, OWNER, by=await holder(tokens, clock))
    await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)
    known = dict(relays.table.tokens)
    with pytest.raises(Unauthenticated) as refused:
        await tickets.redeem(token_sha256(ticket.value), agent_id, session=session)
    assert refused.value.reason == "ticket_used"
    assert relays.table.tokens == known


@pytest.mark.parametrize("other", ["kagent0000000009", "", "../x", "a\x00b", "x" * 10_000])
async def test_at_another_agent_it_is_nothing_and_stays_good(
    tickets: Tickets, tokens: Tokens, clock: Clock, agent_id: str, other: str
) -> None:
    ticket = await tickets.issue(agent_id, OWNER, by=await holder(tokens, clock))
    with pytest.raises(Unauthenticated):
        await tickets.redeem(token_sha256(ticket.value), other, session=True)
    await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)


async def test_after_its_parent_was_revoked_it_is_nothing(
    tickets: Tickets, tokens: Tokens, clock: Clock, agent_id: str
) -> None:
    by = await holder(tokens, clock)
    ticket = await tickets.issue(agent_id, OWNER, by=by)
    await tokens.revoke(by.token_id, OWNER)
    with pytest.raises(Unauthenticated):
        await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)


async def test_revoking_the_parent_ends_its_sessions_everywhere(
    tickets: Tickets, tokens: Tokens, store: Store, relays: FakeRelays, clock: Clock, agent_id: str
) -> None:
    by, other = await holder(tokens, clock), await holder(tokens, clock)
    for each in (by, other):
        ticket = await tickets.issue(agent_id, OWNER, by=each)
        await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)
    await tokens.revoke(by.token_id, OWNER)
    left = {other.token_id, *(token.token_id for token in relays.table.tokens.values() if token.parent_id)}
    assert set(relays.table.token_ids) == left
    assert {token.parent_id for token in relays.table.tokens.values()} == {None, other.token_id}
    assert {token.id for token in await store.tokens.list_live()} == left


async def test_a_revocation_at_the_same_time_leaves_nothing_at_the_relays(
    tickets: Tickets, tokens: Tokens, relays: FakeRelays, clock: Clock, agent_id: str
) -> None:
    by = await holder(tokens, clock)
    values = [(await tickets.issue(agent_id, OWNER, by=by)).value for _ in range(10)]

    async def redeem(value: SecretStr) -> bool:
        try:
            await tickets.redeem(token_sha256(value), agent_id, session=True)
        except Unauthenticated:
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        redeeming = [tasks.create_task(redeem(value), name=f"{number}") for number, value in enumerate(values)]
        await asyncio.wait(redeeming, return_when=asyncio.FIRST_COMPLETED)
        tasks.create_task(tokens.revoke(by.token_id, OWNER), name="revoke")
    assert any(task.result() for task in redeeming)
    assert relays.table.tokens == relays.table.token_ids == {}


async def test_nothing_outlives_the_token_that_asked(
    tickets: Tickets, tokens: Tokens, clock: Clock, agent_id: str
) -> None:
    by = await holder(tokens, clock, seconds=30)
    ticket = await tickets.issue(agent_id, OWNER, by=by)
    assert ticket.expires_at == by.expires_at
    redemption = await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)
    assert redemption.token.expires_at == by.expires_at


async def test_a_trusted_issuers_caller_has_no_token_behind_it(tickets: Tickets, clock: Clock, agent_id: str) -> None:
    end = clock() + timedelta(seconds=300)
    by = Principal("jwt-1", OWNER, frozenset({Scope.OWNER}), expires_at=end, issuer="https://platform.example")
    ticket = await tickets.issue(agent_id, OWNER, by=by)
    redemption = await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)
    assert (redemption.token.parent_id, redemption.token.expires_at) == (None, end)


async def test_a_session_that_could_not_be_stored_is_at_no_relay(
    tickets: Tickets, tokens: Tokens, relays: FakeRelays, clock: Clock, agent_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = await tickets.issue(agent_id, OWNER, by=await holder(tokens, clock))
    known = dict(relays.table.tokens)
    taken = (await tokens.issue(OWNER, "other", by=None)).token
    known[taken.sha256] = relays.table.tokens[taken.sha256]
    monkeypatch.setattr("elizacloud.auth.tickets.mint", lambda prefix: _minted(taken.sha256))
    with pytest.raises(Conflict):
        await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)
    assert "new" not in relays.table.token_ids


def _minted(sha256: str) -> object:
    return MintedToken("new", SecretStr("ecs_new"), sha256)


async def test_an_agent_that_is_not_there_has_no_tickets(tickets: Tickets, tokens: Tokens, clock: Clock) -> None:
    with pytest.raises(NotFound):
        await tickets.issue("kagent0000000009", OWNER, by=await holder(tokens, clock))


async def test_logging_out_ends_the_session_and_nothing_else(
    tickets: Tickets, tokens: Tokens, relays: FakeRelays, clock: Clock, agent_id: str
) -> None:
    issued = await tokens.issue(OWNER, "laptop", by=None)
    ticket = await tickets.issue(agent_id, OWNER, by=principal_of(issued.token, clock()))
    session = (await tickets.redeem(token_sha256(ticket.value), agent_id, session=True)).token
    await tokens.end_session(issued.token.sha256)
    assert {issued.token.id, session.token_id} <= set(relays.table.token_ids)
    for _ in range(2):
        await tokens.end_session(session.sha256)
        assert set(relays.table.token_ids) == {issued.token.id}
    await tokens.end_session("ab" * 32)
