"""A database or a Headscale from yesterday, and another Headscale at the same address: found, said, and nothing guessed."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.errors import Error
from elizacloud.states import State
from tests.chaos.audit import World, agent_of, agents_in, look, processes_below
from tests.conftest import CONTROL_SERVER
from tests.e2e.conftest import SERVERS
from tests.e2e.looking import WITHIN_SECONDS, a_moment
from tests.e2e.parts import Parts

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS, ids=lambda server: Path(server).name)
async def parts(request: pytest.FixtureRequest) -> AsyncIterator[Parts]:
    async with Parts(request.param) as parts:
        yield parts


@pytest.fixture(autouse=True)
def said(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    name = Path(request.node.callspec.params["parts"]).name
    record_property(CONTROL_SERVER, name if name == "devcontrol" else f"headscale {name}")


def operator(parts: Parts) -> Client:
    return Client(parts.url, SecretStr(parts.operator_token))


async def ready(parts: Parts, name: str) -> str:
    async with operator(parts) as client:
        agent = await client.create_agent(name)
        await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        return agent.agent_id


async def answers(parts: Parts, agent_id: str) -> bool:
    async with operator(parts) as client:
        try:
            async with client.relay("GET", agent_id, "/api/health") as answer:
                return answer.status == 200
        except Error:
            return False


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not await met():
            await a_moment(0.1)


async def nodes_of(parts: Parts) -> dict[str, Any]:
    """By agent: its node, as Headscale has it."""
    world = World(parts.data.path, parts.headscale_url, parts.url, parts.operator_token)
    return {agent_of(node) or "": node for node in (await look(world, {})).nodes}


@asynccontextmanager
async def without(parts: Parts, part: str) -> AsyncIterator[None]:
    await parts.kill(part)
    yield
    await parts.start(part)
    await parts.until_ready()


async def test_a_database_from_yesterday(parts: Parts, tmp_path: Path) -> None:
    kept = await ready(parts, "kept")
    database = parts.data.database
    async with without(parts, "control plane"):
        for file in database.parent.glob("store.db*"):
            shutil.copy2(file, tmp_path)
    later = await ready(parts, "came later")
    async with operator(parts) as client:
        await client.sweep()
        run = agents_in(database)[kept]["run"]
        async with without(parts, "control plane"):
            for file in database.parent.glob("store.db*"):
                file.unlink()
            for file in tmp_path.iterdir():
                shutil.copy2(file, database.parent)

        async def held() -> bool:
            return "backup" in ((await client.sweep(dry_run=True)).held_because or "")

        await until(held)
        assert {process.agent for process in processes_below(parts.data.path)} == {kept, later}
        assert later in await nodes_of(parts)
        assert await answers(parts, kept)
        assert agents_in(database)[kept]["run"] == run

        async def gone() -> bool:
            # What an agent made is found when its instance is gone, and has to be accepted by itself.
            await client.sweep(accept=True)
            alive = any(process.agent == later for process in processes_below(parts.data.path))
            return (
                not alive and later not in await nodes_of(parts) and not (parts.data.path / "agents" / later).exists()
            )

        await until(gone)
        assert await answers(parts, kept)
        await client.delete_agent(kept)


async def test_a_headscale_from_yesterday(parts: Parts, tmp_path: Path) -> None:
    kept, directory = await ready(parts, "stays"), parts.data.control_server
    async with without(parts, "control server"):
        shutil.copytree(directory, tmp_path / "yesterday")
    later = await ready(parts, "forgotten")
    before = agents_in(parts.data.database)
    async with without(parts, "control server"):
        shutil.rmtree(directory)
        shutil.copytree(tmp_path / "yesterday", directory)
    assert later not in await nodes_of(parts)
    async with operator(parts) as client:
        await client.sweep()

        async def joined_again() -> bool:
            return later in await nodes_of(parts) and await answers(parts, later)

        await until(joined_again)
        assert await answers(parts, kept)
        after = agents_in(parts.data.database)
        assert (after[kept]["run"], after[kept]["node_id"]) == (before[kept]["run"], before[kept]["node_id"])
        assert (after[later]["generation"], after[later]["run"]) == (1, before[later]["run"] + 1)
        nodes = await nodes_of(parts)
        assert (nodes[kept]["id"], nodes[later]["id"]) == (after[kept]["node_id"], after[later]["node_id"])
        for agent in (kept, later):
            await client.delete_agent(agent)


def another_one(directory: Path) -> None:
    """It has the same API keys and even the same nodes; only by its noise key it is known as another one."""
    noise, state = directory / "noise_private.key", directory / "state.json"
    if noise.exists():
        noise.unlink()
        return
    kept = json.loads(state.read_text())
    kept["NoiseKey"] = re.sub(r"[0-9a-f]{64}$", secrets.token_hex(32), kept["NoiseKey"])
    state.write_text(json.dumps(kept))


async def test_another_headscale_at_the_same_address(parts: Parts, tmp_path: Path) -> None:
    agent, directory = await ready(parts, "ours"), parts.data.control_server
    before = agents_in(parts.data.database)[agent]
    await parts.kill("control server")
    shutil.copytree(directory, tmp_path / "ours")
    another_one(directory)
    await parts.start("control server")
    async with operator(parts) as client:
        for _ in range(2):
            with pytest.raises(Error, match="is not the one that this installation was begun with"):
                await client.sweep()
        with pytest.raises(Error):
            await client.ready()
        now = agents_in(parts.data.database)[agent]
        assert (now["generation"], now["run"], now["node_id"]) == (
            before["generation"],
            before["run"],
            before["node_id"],
        ), "it was given up"
        async with without(parts, "control server"):
            shutil.rmtree(directory)
            shutil.copytree(tmp_path / "ours", directory)
        await until(lambda: answers(parts, agent))
        assert agents_in(parts.data.database)[agent]["node_id"] == before["node_id"]
        await client.delete_agent(agent)
