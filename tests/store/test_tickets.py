"""Tickets: consumed once, whoever comes at the same time from wherever, and worth nothing without what stands behind them."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from elizacloud.errors import NotFound
from elizacloud.model import ApiToken, Scope, TokenKind
from elizacloud.states import Wanted
from elizacloud.store import Store, Ticket
from tests.fakes.store import an_agent, created
from tests.store.conftest import Clock, Open
from tests.store.test_tokens import a_token

PARENT = "token-1"


@pytest.fixture
async def ticket(store: Store, clock: Clock) -> Ticket:
    agent = await created(store)
    await store.tokens.create(a_token(1))
    now = clock()
    made = Ticket(
        "a" * 64, "t1", agent.id, "owner-1", PARENT, now, now + timedelta(seconds=60), now + timedelta(hours=12)
    )
    await store.tickets.create(made)
    return made


def session_of(ticket: Ticket) -> ApiToken:
    return replace(
        a_token(2),
        id=f"session-{ticket.id}",
        sha256=f"f{ticket.sha256[1:]}",
        owner_id=ticket.owner_id,
        scopes=frozenset({Scope.RELAY}),
        agent_id=ticket.agent_id,
        kind=TokenKind.SESSION,
        parent_id=ticket.parent_id,
        expires_at=ticket.session_expires_at,
    )


async def test_a_ticket_becomes_a_session_once(store: Store, clock: Clock, ticket: Ticket) -> None:
    redeemed = await store.tickets.redeem(ticket.sha256, ticket.agent_id, session_of)
    assert redeemed == (replace(ticket, redeemed_at=clock()), session_of(ticket))
    assert await store.tokens.by_sha256(session_of(ticket).sha256) == session_of(ticket)
    assert await store.tickets.redeem(ticket.sha256, ticket.agent_id, session_of) is None
    assert await store.tickets.redeem(ticket.sha256, ticket.agent_id) is None


async def test_of_many_at_once_at_two_control_planes_one_is_let_in(
    store: Store, open_store: Open, url: str, ticket: Ticket
) -> None:
    stores = (store, await open_store(url))
    async with asyncio.TaskGroup() as tasks:
        tried = [
            tasks.create_task(stores[number % 2].tickets.redeem(ticket.sha256, ticket.agent_id), name=f"{number}")
            for number in range(16)
        ]
    assert len([task for task in tried if task.result() is not None]) == 1


@pytest.mark.parametrize("attack", ["unknown", "another agent", "expired", "revoked", "parent expired", "deleted"])
async def test_a_ticket_that_is_not_good_gives_nothing(store: Store, clock: Clock, ticket: Ticket, attack: str) -> None:
    sha256, agent_id = ticket.sha256, ticket.agent_id
    match attack:
        case "unknown":
            sha256 = "b" * 64
        case "another agent":
            agent_id = (await created(store, replace(an_agent(), name="other"))).id
        case "expired":
            clock.pass_seconds(60)
        case "revoked":
            await store.tokens.revoke(PARENT)
        case "parent expired":
            short = a_token(2, expires_at=clock() + timedelta(seconds=5))
            await store.tokens.create(short)
            sha256 = "c" * 64
            await store.tickets.create(replace(ticket, sha256=sha256, parent_id=short.id))
            clock.pass_seconds(5)
        case "deleted":
            agent = await store.agents.get(agent_id)
            await store.agents.save(replace(agent, wanted=Wanted.DELETED), step="delete")
    assert await store.tickets.redeem(sha256, agent_id, session_of) is None
    assert not [token for token in await store.tokens.list_live() if token.kind is TokenKind.SESSION]


async def test_a_revocation_at_the_same_time_leaves_no_session(store: Store, ticket: Ticket) -> None:
    """Whichever comes first: no ticket is good any more, or the session is revoked with the rest."""
    tickets = [replace(ticket, sha256=f"{number:02x}" * 32, id=f"t{number}") for number in range(20)]
    for each in tickets:
        await store.tickets.create(each)
    async with asyncio.TaskGroup() as tasks:
        tried = [
            tasks.create_task(store.tickets.redeem(each.sha256, each.agent_id, session_of), name=each.id)
            for each in tickets
        ]
        await asyncio.wait(tried, return_when=asyncio.FIRST_COMPLETED)
        tasks.create_task(store.tokens.revoke(PARENT), name="revoke")
    assert any(task.result() for task in tried)
    assert await store.tokens.list_live() == []


async def test_a_trusted_issuers_ticket_has_no_token_behind_it(store: Store, ticket: Ticket) -> None:
    await store.tickets.create(replace(ticket, sha256="d" * 64, parent_id=None))
    await store.tokens.revoke(PARENT)
    redeemed = await store.tickets.redeem("d" * 64, ticket.agent_id)
    assert redeemed is not None
    assert redeemed[1] is None


async def test_a_ticket_of_no_agent_is_refused(store: Store, ticket: Ticket) -> None:
    with pytest.raises(NotFound):
        await store.tickets.create(replace(ticket, sha256="e" * 64, agent_id="nothing"))


async def test_expired_tickets_are_forgotten_in_batches(store: Store, clock: Clock, ticket: Ticket) -> None:
    for number in range(4):
        await store.tickets.create(replace(ticket, sha256=f"{number}" * 64))
    assert await store.tickets.prune(batch=3) == 0
    clock.pass_seconds(60)
    assert [await store.tickets.prune(batch=3) for _ in range(3)] == [3, 2, 0]
