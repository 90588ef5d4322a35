"""Who gets an agent woken, and how often."""

from __future__ import annotations

import asyncio

import pytest

from elizacloud.agents.idle.waking import OnlyPolled, Waking
from elizacloud.agents.quota import check_counts
from elizacloud.errors import Conflict, Error, NotFound, StoreUnavailable, TooMany
from elizacloud.states import Wanted
from tests.fakes.relays import FakeRelays
from tests.virtual_time import pass_seconds


@pytest.mark.looptime
async def test_a_refusal_is_told_to_the_relays_and_trouble_is_not() -> None:
    relays, woken = FakeRelays(), asyncio.Queue[str]()

    async def wake(agent_id: str, poll_gap_seconds: float | None) -> None:
        woken.put_nowait(agent_id)
        if poll_gap_seconds is not None:
            raise OnlyPolled
        if agent_id == "full":
            raise TooMany("cannot wake the agent: no room", code="quota_running")
        if agent_id == "broken":
            raise StoreUnavailable("the database is down")

    waking = Waking(wake, relays)
    for agent_id in ("full", "broken", "full", "fine"):
        waking.ask(agent_id)
    task = asyncio.create_task(waking.run(), name="waking")
    async with asyncio.timeout(20):
        assert [await woken.get() for _ in range(3)] == ["full", "broken", "fine"]
        waking.ask("fine")
        assert await woken.get() == "fine"
        waking.ask("polled", 5.0)
        assert await woken.get() == "polled"
        for gap in (5.0, None, 5.0):  # one request among polls is a request
            waking.ask("asked", gap)
        assert await woken.get() == "asked"
    task.cancel()
    told = [(refusal.agent_id, refusal.code) for refusal in relays.refusals]
    assert told == [("full", "quota_running"), ("polled", "agent_asleep")]


DOWN = StoreUnavailable("the database is down")


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("errors", "tries"),
    [
        ([], 1),
        ([DOWN, Conflict("it changes too fast", code="stale")], 3),
        ([DOWN] * 9, 5),
        ([DOWN, NotFound("it is gone")], 2),
        ([DOWN, TooMany("no room", code="quota_running")], 2),
    ],
)
async def test_what_fails_by_trouble_is_tried_again_for_as_long_as_a_request_is_held(
    errors: list[Error], tries: int
) -> None:
    left, tried = iter(errors), list[tuple[str, float | None]]()

    async def wake(agent_id: str, poll_gap_seconds: float | None) -> None:
        tried.append((agent_id, poll_gap_seconds))
        if error := next(left, None):
            raise error

    waking = Waking(wake, FakeRelays())
    task = asyncio.create_task(waking.run(), name="waking")
    waking.ask("a", 5.0)
    await pass_seconds(60)
    assert tried == [("a", 5.0)] * tries
    task.cancel()


@pytest.mark.looptime
async def test_one_that_is_asked_for_meanwhile_is_not_tried_twice_as_often() -> None:
    tried = []

    async def wake(agent_id: str, poll_gap_seconds: float | None) -> None:
        tried.append(asyncio.get_running_loop().time())
        raise DOWN

    waking = Waking(wake, FakeRelays())
    task = asyncio.create_task(waking.run(), name="waking")
    began = asyncio.get_running_loop().time()
    waking.ask("a")
    await pass_seconds(1)
    waking.ask("a")
    await pass_seconds(60)
    assert [at - began for at in tried] == pytest.approx([0, 1, 3, 5, 7])
    task.cancel()


@pytest.mark.parametrize(
    ("counts", "agents", "running", "code"),
    [
        ({Wanted.RUNNING: 2, Wanted.STOPPED: 1}, 3, None, "quota_agents"),
        ({Wanted.RUNNING: 2, Wanted.DELETED: 9}, 3, 3, None),
        ({Wanted.RUNNING: 2, Wanted.ASLEEP: 5, Wanted.PAUSED: 5}, None, 2, "quota_running"),
        ({Wanted.ASLEEP: 5}, None, 1, None),
        ({}, 1, 1, None),
    ],
)
def test_the_gate(counts: dict[Wanted, int], agents: int | None, running: int | None, code: str | None) -> None:
    if code is None:
        check_counts(counts, agents, running)
        return
    with pytest.raises(TooMany) as caught:
        check_counts(counts, agents, running)
    assert caught.value.reason == code
