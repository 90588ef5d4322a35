"""Tickets and JWTs in a running cloud: a platform's users, a browser's one chance, a revocation, and outages of all kinds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.states import State
from tests.auth.conftest import Forge, a_forge
from tests.e2e.cloud import Cloud

WITHIN_SECONDS = 40
ISSUER = "https://platform.example"


class Platform:
    """Publishes its keys on loopback, and signs its users in."""

    def __init__(self) -> None:
        self.forges = [a_forge("first", "ES256")]
        self.url = ""

    def jwt(self, user: str = "owner", forge: Forge | None = None) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user, "aud": "cloud", "iat": now, "exp": now + 300}
        return (forge or self.forges[-1]).signed(claims, typ="JWT")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"keys": [forge.jwk for forge in self.forges]})

        app = web.Application()
        app.router.add_get("/jwks", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = "http://{}:{}/jwks".format(*runner.addresses[0][:2])
            yield
        finally:
            await runner.cleanup()


async def test_credentials_of_a_platform_a_browser_and_an_owner(own_cloud: Cloud) -> None:
    platform = Platform()
    async with platform.running():
        setting = [{"issuer": ISSUER, "jwks_url": platform.url, "audience": "cloud"}]
        own_cloud.environment = {"ELIZACLOUD_TRUSTED_ISSUERS": json.dumps(setting)}
        await asyncio.to_thread(own_cloud.start)
        async with Client(own_cloud.url, SecretStr(platform.jwt())) as user:
            agent_id = (await user.create_agent("ada")).agent_id
            await user.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            assert await reached(own_cloud, agent_id, platform.jwt()) == 200
            assert await reached(own_cloud, agent_id, platform.jwt("mallory")) == 404
            assert await reached(own_cloud, agent_id, platform.jwt(forge=a_forge("first", "ES256"))) == 401
            await a_new_key_is_found(own_cloud, platform, agent_id)
            await a_ticket_is_good_once(own_cloud, user, agent_id)
        await a_revocation_ends_what_was_made_with_it(own_cloud, agent_id)
    os.kill(own_cloud.pid_of("elizacloud serve"), signal.SIGKILL)
    assert await reached(own_cloud, agent_id, platform.jwt()) == 200
    async with Client(own_cloud.url, SecretStr(platform.jwt())) as user, asyncio.timeout(WITHIN_SECONDS):
        while not await is_ready(user):
            pass
        # The platform is away, and the control plane is another one than that which fetched its keys.
        assert (await user.get_agent(agent_id)).agent_id == agent_id
        assert await reached(own_cloud, agent_id, platform.jwt()) == 200


async def a_new_key_is_found(cloud: Cloud, platform: Platform, agent_id: str) -> None:
    """By a relay that asks the control plane, and by the API."""
    platform.forges.append(a_forge("second", "ES256"))
    assert await becomes(cloud, agent_id, platform.jwt(), 200)
    async with Client(cloud.url, SecretStr(platform.jwt())) as user:
        assert (await user.get_agent(agent_id)).agent_id == agent_id


async def a_ticket_is_good_once(cloud: Cloud, user: Client, agent_id: str) -> None:
    ticket = await user.create_ticket(agent_id)
    path = ticket.url.get_secret_value().partition(".localhost")[2].partition("/")[2]
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        tried = [tasks.create_task(opened(session, cloud, agent_id, path), name=f"{number}") for number in range(8)]
        await asyncio.wait(tried)
    assert sorted(task.result() for task in tried) == [303] + [401] * 7


async def opened(session: aiohttp.ClientSession, cloud: Cloud, agent_id: str, path: str) -> int:
    host = {"Host": f"{agent_id}.localhost"}
    async with session.get(f"{cloud.url}/{path}", headers=host, allow_redirects=False) as answer:
        return answer.status


async def a_revocation_ends_what_was_made_with_it(cloud: Cloud, agent_id: str) -> None:
    async with Client(cloud.url, SecretStr(cloud.token)) as owner:
        parent = await owner.create_token("phone")
        async with Client(cloud.url, parent.token) as phone:
            jwt = (await phone.create_jwt(agent_id=agent_id)).token.get_secret_value()
            ticket = await phone.create_ticket(agent_id)
        assert await reached(cloud, agent_id, jwt) == 200
        await owner.revoke_token(parent.token_id)
        assert await becomes(cloud, agent_id, jwt, 401)
        path = ticket.url.get_secret_value().partition(".localhost")[2].partition("/")[2]
        async with aiohttp.ClientSession() as session:
            assert await opened(session, cloud, agent_id, path) == 401


async def reached(cloud: Cloud, agent_id: str, bearer: str) -> int:
    headers = {"Authorization": f"Bearer {bearer}"}
    async with aiohttp.request("GET", f"{cloud.url}/api/relay/{agent_id}/api/health", headers=headers) as answer:
        return answer.status


async def becomes(cloud: Cloud, agent_id: str, bearer: str, status: int) -> bool:
    """Ask until the relay, which hears of it a moment later, answers so."""
    async with asyncio.timeout(20):
        while await reached(cloud, agent_id, bearer) != status:
            pass
    return True


async def is_ready(client: Client) -> Any:
    try:
        return await client.ready()
    except Exception:
        return False
