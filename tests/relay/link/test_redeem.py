"""Redeeming a ticket over the link: the answer of the control plane, or an honest "not now"."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.errors import Unauthenticated, Unavailable
from elizacloud.relay.link.hub import Hub
from elizacloud.upstreams import Redemption
from tests.relay.link.conftest import Following, Heard
from tests.relay.link.test_messages import AGENT, ASSERTING, ISSUER, SESSION, TOKEN

TICKET, AGENT_ID = "ab" * 32, AGENT.agent_id


async def test_a_ticket_is_redeemed_once(run_dir: Path, following: Following) -> None:
    heard = Heard()
    heard.tickets[TICKET, AGENT_ID] = given = Redemption(SESSION, SecretStr("ecs_value"))
    async with Hub("e1", heard).serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        assert await client.redeem(TICKET, AGENT_ID, session=True) == given
        with pytest.raises(Unauthenticated) as refused:
            await client.redeem(TICKET, AGENT_ID, session=True)
        assert refused.value.reason == "ticket_used"
    assert heard.asked == [(TICKET, AGENT_ID, True)] * 2


async def test_a_session_is_in_the_table_before_the_answer(run_dir: Path, following: Following) -> None:
    class Sessions(Heard):
        async def redeem(self, ticket_sha256: str, agent_id: str, *, session: bool) -> Redemption:
            hub.add_token(SESSION)
            return Redemption(SESSION, SecretStr("ecs_value"))

    hub = Hub("e1", Sessions())
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        redemption = await client.redeem(TICKET, AGENT_ID, session=True)
        assert client.table.token_ids[redemption.token.token_id] == SESSION


async def test_answers_find_their_questions(run_dir: Path, following: Following) -> None:
    heard = Heard()
    tickets = [f"{number:064x}" for number in range(20)]
    for ticket in tickets:
        heard.tickets[ticket, AGENT_ID] = Redemption(replace(SESSION, token_id=ticket))
    async with Hub("e1", heard).serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        async with asyncio.TaskGroup() as tasks:
            asking = [
                tasks.create_task(client.redeem(ticket, AGENT_ID, session=False), name=ticket) for ticket in tickets
            ]
    assert [task.result().token.token_id for task in asking] == tickets


async def test_without_a_link_nothing_is_redeemed(following: Following) -> None:
    async with following() as (client, _):
        with pytest.raises(Unavailable) as refused:
            await client.redeem(TICKET, AGENT_ID, session=True)
    assert refused.value.reason == "control_plane_unavailable"


async def test_a_link_that_breaks_meanwhile_is_said_at_once(run_dir: Path, following: Following) -> None:
    heard = Heard()
    heard.answering.clear()
    async with following() as (client, worker):
        async with Hub("e1", heard).serve(run_dir / "link"):
            await worker.until(lambda: client.linked)
            asking = asyncio.create_task(client.redeem(TICKET, AGENT_ID, session=True), name="ask")
            await heard.any.wait()
        with pytest.raises(Unavailable) as refused:
            await asking
    assert refused.value.reason == "control_plane_unavailable"


async def test_only_a_session_is_ended_and_anything_else_costs_nothing(run_dir: Path, following: Following) -> None:
    heard = Heard()
    hub = Hub("e1", heard)
    hub.load([], [], [TOKEN, SESSION])
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        for sha256 in ("ef" * 32, TOKEN.sha256, SESSION.sha256):
            client.tell_session_ended(sha256)
        await heard.any.wait()
    assert heard.ended == [SESSION.sha256]


async def test_very_many_at_one_time_are_refused_and_not_queued(run_dir: Path, following: Following) -> None:
    heard = Heard()
    heard.answering.clear()
    async with Hub("e1", heard).serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        async with asyncio.TaskGroup() as tasks:
            asking = [
                tasks.create_task(outcome(client.redeem(f"{number:064x}", AGENT_ID, session=True)), name=f"{number}")
                for number in range(70)
            ]
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            heard.answering.set()
    reasons = sorted(task.result() for task in asking)
    assert reasons == ["ticket_used"] * 64 + ["too_many"] * 6


async def outcome(redeeming: Awaitable[Redemption]) -> str:
    try:
        await redeeming
    except (Unauthenticated, Unavailable) as error:
        return error.reason
    return ""


async def test_whom_to_trust_reaches_workers_and_outlives_a_load(run_dir: Path, following: Following) -> None:
    hub = Hub("e1", Heard())
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        hub.trust([ISSUER], ASSERTING)
        await worker.until(lambda: client.table.issuers == {ISSUER.issuer: ISSUER})
        assert client.table.assertion_key == ASSERTING
        hub.load([], [], [TOKEN])
        await worker.until(lambda: bool(client.table.tokens))
        assert client.table.issuers == {ISSUER.issuer: ISSUER}
        assert client.table.assertion_key == ASSERTING


async def test_a_new_key_of_an_issuer_is_looked_for(run_dir: Path, following: Following) -> None:
    heard = Heard()
    async with Hub("e1", heard).serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        client.tell_unknown_key("https://platform.test")
        await heard.any.wait()
    assert heard.sought == ["https://platform.test"]
