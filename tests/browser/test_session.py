"""From a ticket to an agent's own pages in a real Chromium, on a laptop's addresses; and what a neighbour's page gets."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import aiohttp
from playwright.async_api import BrowserContext
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.states import State
from tests.e2e.cloud import Cloud

SOCKET = """url => new Promise((done) => {
    const socket = new WebSocket(url);
    socket.onmessage = (message) => { done(JSON.parse(message.data).type); socket.close(); };
    socket.onerror = () => done("refused");
})"""
STATUS = """url => fetch(url, {credentials: "include"}).then((answer) => answer.status, () => "refused")"""


class Api:
    def __init__(self, cloud: Cloud, session: aiohttp.ClientSession) -> None:
        self._cloud = cloud
        self._session = session

    async def post(self, path: str, body: dict[str, object]) -> dict[str, str]:
        async with self._session.post(self._cloud.url + path, json=body, headers=self._cloud.headers) as answer:
            assert answer.status in (200, 201), await answer.text()
            return dict(json.loads(await answer.text()))

    async def ready_agent(self, name: str) -> str:
        agent_id = (await self.post("/api/v1/agents", {"agentName": name}))["agentId"]
        async with Client(self._cloud.url, SecretStr(self._cloud.token)) as client:
            await client.wait_until(agent_id, {State.READY}, within_seconds=60)
        return agent_id

    async def ticket_url(self, agent_id: str, following: str) -> str:
        return f"{(await self.post(f'/api/v1/agents/{agent_id}/tickets', {}))['url']}&next={following}"


async def test_a_browser_gets_in_and_a_neighbour_does_not(cloud: Cloud, browser: BrowserContext) -> None:
    await asyncio.to_thread(cloud.start)
    async with aiohttp.ClientSession() as session:
        api = Api(cloud, session)
        mine, neighbour = await api.ready_agent("mine"), await api.ready_agent("neighbour")
        page = await browser.new_page()

        url = await api.ticket_url(mine, "/api/health")
        origin = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        assert urlsplit(url).hostname == f"{mine}.localhost"
        refused = await page.goto(f"{origin}/api/health")
        assert refused is not None
        assert refused.status == 401
        assert "This agent is private" in await page.content()

        opened = await page.goto(url)
        assert opened is not None
        assert (opened.status, page.url) == (200, f"{origin}/api/health")
        (cookie,) = await browser.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
            "__Host-elizacloud",
            True,
            True,
            "None",
        )
        assert await page.evaluate("document.cookie") == ""
        assert await page.evaluate(STATUS, f"{origin}/api/health") == 200
        websocket = f"{origin.replace('http', 'ws', 1)}/ws?clientId=a&token="
        assert await page.evaluate(SOCKET, websocket) == "status"
        again = await page.goto(url)
        assert again is not None
        assert again.status == 401

        await page.goto(await api.ticket_url(neighbour, "/api/health"))
        assert neighbour in page.url
        assert await page.evaluate(SOCKET, websocket) == "refused"
        assert await page.evaluate(STATUS, f"{origin}/api/health") == "refused"
        seen = await page.goto(f"{origin}/api/health")  # a person may follow a link there
        assert seen is not None
        assert seen.status == 200

        out = "fetch('/.elizacloud/logout', {method: 'POST'}).then((answer) => answer.status)"
        assert await page.evaluate(out) == 204
        assert await page.evaluate(STATUS, f"{origin}/api/health") == 401
        stolen = {"Host": urlsplit(origin).netloc, "Cookie": f"__Host-elizacloud={cookie['value']}"}
        async with asyncio.timeout(10):
            while True:
                async with session.get(f"{cloud.url}/api/health", headers=stolen) as answer:
                    if answer.headers.get("Elizacloud-Error") == "invalid_token":
                        break
                await asyncio.sleep(0)
