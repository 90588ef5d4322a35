"""Control planes, each with relays of its own, on one PostgreSQL, one control server and one process host."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.errors import Error, Unavailable
from elizacloud.processes import Child, LogFile, spawn
from elizacloud.settings import child_environment
from elizacloud.states import State
from tests.e2e.looking import a_moment
from tests.e2e.parts import Parts

pytestmark = [pytest.mark.postgresql, pytest.mark.timeout(240)]

WITHIN_SECONDS = 60


class Second:
    """A second control plane and its relay, beside the parts of a cloud."""

    def __init__(self, parts: Parts, settings: Mapping[str, str]) -> None:
        self._parts = parts
        self._settings = {**settings, "data_dir": str(parts.directory / "second")}
        self._stack = AsyncExitStack()
        self.url = ""
        self.serve: Child

    def log(self, name: str) -> str:
        return (self._parts.directory / f"second-{name}.log").read_text()

    async def __aenter__(self) -> Second:
        self.serve = await self._spawn("serve")
        await self._spawn("relay")
        async with asyncio.timeout(WITHIN_SECONDS):
            while '"relay started"' not in self.log("relay"):
                await a_moment()
            line = next(line for line in self.log("relay").splitlines() if '"relay started"' in line)
            self.url = line.partition('"url": "')[2].partition('"')[0]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def restart_control_plane(self) -> None:
        self.serve.kill()
        await self.serve.stop()
        self.serve = await self._spawn("serve")

    async def _spawn(self, role: str) -> Child:
        log = LogFile(self._parts.directory / f"second-{role}.log")
        self._stack.callback(log.close)
        child = spawn(
            [sys.executable, "-m", "elizacloud", role],
            name=f"second {role}",
            env=child_environment({**self._parts.chosen, **self._settings}),
            log=log.write,
        )
        self._stack.push_async_callback(child.stop, 10)
        return child


def shared_settings(database_url: str) -> dict[str, str]:
    return {
        "database_url": database_url,
        "secret_key": b64encode(secrets.token_bytes(32)).decode(),
        "operator_token": f"ecop_{secrets.token_urlsafe(32)}",
    }


@asynccontextmanager
async def two_control_planes(database_url: str) -> AsyncIterator[tuple[Parts, Second, str]]:
    """The first one, the second one, and the operator's token."""
    settings = shared_settings(database_url)
    async with Parts("devcontrol", settings) as parts:
        shared = {
            **settings,
            "process_host_socket": str(parts.data.sockets / "agents" / "host.sock"),
            "tailscaled_socket": str(parts.data.sockets / "relay" / "tailscaled.sock"),
        }
        async with Second(parts, shared) as second:
            await until_shared(database_url)
            yield parts, second, settings["operator_token"]


def holders(database_url: str) -> dict[str, str | None]:
    """Who has which lease, as PostgreSQL has it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT name, CASE WHEN until > clock_timestamp() THEN holder END FROM leases WHERE name NOT LIKE 'member%'"
        ).fetchall()
    return dict(rows)


async def until_shared(database_url: str) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            counts = Counter(holders(database_url).values())
            if None not in counts and sorted(counts.values()) == [8, 9]:
                return
            await a_moment(0.1)


async def raw(parts: Parts, path: str) -> Any:
    key = (parts.data.control_server / "api.key").read_text().strip()
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.get(parts.headscale_url + path) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json(content_type=None)


def instances(parts: Parts) -> Counter[str]:
    """By agent: how many tailscaled run for it, from the kernel."""
    found: Counter[str] = Counter()
    below = str(parts.directory / "data" / "agents") + "/"
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "tailscaled" in words[0] and any(below in word for word in words):
            found[next(word.partition(below)[2].split("/")[0] for word in words if below in word)] += 1
    return found


async def audit(parts: Parts, agents: list[str]) -> list[str]:
    """What is not as it has to be: one node, one process, one used key for each agent, and nothing else."""
    nodes = [node for node in (await raw(parts, "/api/v1/node"))["nodes"] if "tag:agent" in node["tags"]]
    keys = [key for key in (await raw(parts, "/api/v1/preauthkey"))["preAuthKeys"] if "tag:agent" in key["aclTags"]]
    tags = sorted(f"tag:a-{agent_id}" for agent_id in agents)
    wrong = []
    if (found := sorted(tag for node in nodes for tag in node["tags"] if tag.startswith("tag:a-"))) != tags:
        wrong.append(f"nodes {found}")
    if (found := sorted(tag for key in keys for tag in key["aclTags"] if tag.startswith("tag:a-"))) != tags:
        wrong.append(f"keys {found}")
    if unused := [key["id"] for key in keys if not key["used"]]:
        wrong.append(f"keys that nobody joined with {unused}")
    running = instances(parts)
    if sum(running.values()) != len(agents) or len(running) != len(agents):
        wrong.append(f"processes {running}")
    return wrong


async def until_right(parts: Parts, agents: list[str]) -> None:
    wrong = ["not looked at"]
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while wrong := await audit(parts, agents):
                await a_moment(0.5)
    except TimeoutError:
        raise AssertionError(wrong) from None


async def until_answers(client: Client, agent_id: str) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            async with client.relay("GET", agent_id, "/api/health") as answer:
                if answer.status == 200:
                    return
            await a_moment(0.1)


async def until_it_waits(client: Client) -> None:
    """For its Headscale, and says what to do."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            try:
                await client.sweep(dry_run=True)
            except Error as error:  # at first that it is starting
                if "accept it by `elizacloud sweep --accept`" in str(error):
                    return
            await a_moment(0.1)


async def accept(client: Client) -> None:
    """As an operator does, who is told to try again on a machine that is too busy to begin within some seconds."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            try:
                await client.sweep(accept=True)
            except Unavailable:
                await a_moment(0.1)
            else:
                return


async def test_one_that_is_stopped_past_its_lease_while_agents_are_created(postgresql_url: str) -> None:
    async with two_control_planes(postgresql_url) as (parts, second, token):
        first_pid = parts.child("control plane").pid
        async with Client(parts.url, SecretStr(token)) as one, Client(second.url, SecretStr(token)) as two:
            ids = []
            for number in range(6):
                client = one if number % 2 else two
                ids.append((await client.create_agent(f"agent-{number}", wait_seconds=0)).agent_id)
            os.kill(first_pid, signal.SIGSTOP)
            try:
                for agent_id in ids:
                    await two.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
                assert len(set(holders(postgresql_url).values())) == 1
            finally:
                os.kill(first_pid, signal.SIGCONT)
            await until_shared(postgresql_url)
            await until_right(parts, ids)
            for agent_id in ids:
                await until_answers(one, agent_id)
                await until_answers(two, agent_id)
            for number, agent_id in enumerate(ids):
                await (two if number % 2 else one).delete_agent(agent_id)
            await until_right(parts, [])


async def test_a_leader_that_dies_is_followed_within_ten_seconds(postgresql_url: str) -> None:
    async with two_control_planes(postgresql_url) as (parts, second, token):
        async with Client(parts.url, SecretStr(token)) as one:
            agent_id = (await one.create_agent("ada")).agent_id
            await one.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        leader = holders(postgresql_url)["sweeps"]
        async with Client(second.url, SecretStr(token)) as two:
            assert (await two.sweep(dry_run=True)).findings == (), "the leader sweeps for the other one"
            assert holders(postgresql_url)["sweeps"] == leader
        await parts.kill("control plane")
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(10):
            while holders(postgresql_url)["sweeps"] in (leader, None):
                await a_moment(0.05)
        assert loop.time() - began < 10
        async with Client(second.url, SecretStr(token)) as two:
            assert (await two.sweep()).held_because is None
            await until_answers(two, agent_id)
            await two.delete_agent(agent_id)
            await until_right(parts, [])


async def test_another_headscale_is_accepted_at_a_control_plane_that_waits_for_it(postgresql_url: str) -> None:
    settings = shared_settings(postgresql_url)
    async with (
        Parts("devcontrol", settings) as parts,
        Client(parts.url, SecretStr(settings["operator_token"])) as client,
    ):
        agent_id = (await client.create_agent("ada")).agent_id
        await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        await parts.kill("control plane")
        await parts.replace_control_server()
        await parts.start("control plane")
        await until_it_waits(client)
        await accept(client)
        await until_right(parts, [agent_id])
        await parts.join_relay()
        await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)


async def test_another_headscale_is_accepted_at_one_for_all(postgresql_url: str) -> None:
    async with two_control_planes(postgresql_url) as (parts, second, token):
        async with Client(parts.url, SecretStr(token)) as one, Client(second.url, SecretStr(token)) as two:
            ids = [(await one.create_agent(f"agent-{number}")).agent_id for number in range(4)]
            for agent_id in ids:
                await one.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            await parts.kill("control plane")
            await parts.replace_control_server()
            await parts.start("control plane")
            await second.restart_control_plane()
            for waiting in (one, two):
                await until_it_waits(waiting)
            await accept(two)
        await until_shared(postgresql_url)
        await until_right(parts, ids)
