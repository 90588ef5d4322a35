"""Agents that are caught between two states when their owner wants something else, so that every move of the table is made."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from elizacloud.states import State, Step
from tests.chaos.audit import GONE, agent_of, agents_in, look
from tests.chaos.gate import Arm, Seam
from tests.chaos.proxy import Trouble
from tests.chaos.waves import PAUSED, READY, STOPPED, Waves
from tests.e2e.looking import a_moment

WITHIN_SECONDS = 20


async def change_their_minds(waves: Waves) -> None:
    """In each state that a step leaves an agent in, its owner stops or deletes it while the control plane is killed."""
    for _ in range(4):
        await waves.create()
    await waves.settled()
    begin = "begin"
    arms = [waves.cloud.gate.arm(Seam(Step.START, begin)) for _ in range(3)]
    for step in (Step.AWAIT_JOIN, Step.AWAIT_READY):
        arms += [waves.cloud.gate.arm(Seam(step, begin)) for _ in range(2)]
    for _ in arms:
        await waves.create()
    for wish, step, place in (
        *[("pause", Step.PAUSE, "after save pausing")] * 3,
        ("stop", Step.STOP, "after save stopping"),
    ):
        agent = waves.one(READY, besides=arms)
        arms.append(waves.cloud.gate.arm(Seam(step, place), agent))
        await waves.wish(agent, wish, PAUSED if wish == "pause" else STOPPED)
    await held(arms)
    minds = (None, "stop", "delete", "stop", "delete", "stop", "delete", "stop", "delete", "start", "delete")
    for arm, mind in zip(arms, minds, strict=True):
        if mind is not None:
            assert arm.agent is not None
            await waves.wish(arm.agent, mind, {"stop": STOPPED, "delete": GONE, "start": READY}[mind])
    async with waves.cloud.dead("control plane"):
        waves.cloud.gate.open()
    await waves.settled()


async def give_up_early(waves: Waves) -> None:
    """Agents that never got a key, as Headscale fails; and what was paused, stopped or thought to be gone."""
    async with waves.cloud.faulty_headscale(Trouble.FAILS):
        stopped, deleted = await waves.create(), await waves.create()
        for agent in (stopped, deleted):
            await until_stored(waves, agent, lambda row: row["failure"] not in (None, "null"))
        await waves.wish(stopped, "stop", STOPPED)
        await waves.wish(deleted, "delete", GONE)
        await until_stored(waves, stopped, lambda row: row["state"] == State.STOPPED)
    await waves.settled()
    await waves.wish(stopped, "start", READY)
    for _ in range(2):
        await waves.wish(waves.one(READY), "pause", PAUSED)
    await waves.settled()
    await waves.wish(waves.one(PAUSED), "stop", STOPPED)
    await waves.wish(waves.one(PAUSED), "delete", GONE)
    await waves.settled()
    await waves.wish(waves.one(STOPPED), "delete", GONE)
    late = waves.one(READY)
    arm = waves.cloud.gate.arm(Seam(Step.CONFIRM_GONE, "begin"), late)
    await waves.wish(late, "delete", GONE)
    await held([arm])
    await headscale(waves, "POST", "/api/v1/preauthkey", {"aclTags": ["tag:agent", f"tag:a-{late}"]})
    waves.cloud.gate.open()
    await waves.settled()


async def lose_their_nodes(waves: Waves) -> None:
    """A node whose tags somebody changed, and nodes that somebody deleted: their containers ask for a new key."""
    for _ in range(2):
        await waves.create()
    await waves.settled()
    truths = await look(waves.cloud.world, waves.wanted)
    changed = waves.one(READY)
    lost = next(agent for agent, state in waves.wanted.items() if state == READY and agent != changed)
    nodes = {agent_of(node): node["id"] for node in truths.nodes}
    await headscale(waves, "POST", f"/api/v1/node/{nodes[changed]}/tags", {"tags": ["tag:agent"]})
    await waves.cloud.ask("POST", "/api/v1/operator/sweep", {})
    await until_stored(waves, changed, lambda row: row["state"] == State.JOINED)
    for agent in (changed, lost):
        await headscale(waves, "DELETE", f"/api/v1/node/{nodes[agent]}")
        token = waves.cloud.world.data / "agents" / agent / "1" / "join-token"
        waves.cloud.gate.rekey(agent, token.read_text())
        await until_stored(waves, agent, lambda row: row["state"] == State.STARTED)
        await waves.wish(agent, "restart", READY)
    await waves.settled()


async def held(arms: list[Arm]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        for arm in arms:
            await arm.held.wait()


async def until_stored(waves: Waves, agent: str, met: Any) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not met(agents_in(waves.cloud.world.data / "store.db")[agent]):
            await a_moment()


async def headscale(waves: Waves, method: str, path: str, body: Any = None) -> None:
    world = waves.cloud.world
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {world.api_key}"}) as session,
        session.request(method, world.headscale_url + path, json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
