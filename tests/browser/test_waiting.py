"""Somebody opens the page of an agent that sleeps, in a real Chromium: it turns into the agent's page by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from urllib.parse import urlsplit

import aiohttp
from playwright.async_api import BrowserContext
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.states import State
from tests.browser.test_session import Api
from tests.e2e.cloud import Cloud

WITHIN_SECONDS = 60


async def test_the_waiting_page_turns_into_the_agents(cloud: Cloud, browser: BrowserContext) -> None:
    await asyncio.to_thread(cloud.start)
    host = cloud.pid_of("runtime.process.host")
    async with aiohttp.ClientSession() as session, Client(cloud.url, SecretStr(cloud.token)) as client:
        api = Api(cloud, session)
        agent_id = await api.ready_agent("sleeper")
        page = await browser.new_page()
        await page.goto(await api.ticket_url(agent_id, "/?opened"))  # it names its icon: no request follows
        await client.sleep_agent(agent_id)
        await client.wait_until(agent_id, {State.STOPPED}, within_seconds=WITHIN_SECONDS)
        os.kill(host, signal.SIGSTOP)  # so that it does not wake before somebody has seen the page
        try:
            waiting = await page.goto(f"{page.url.removesuffix('/?opened')}/#chat")
            assert waiting is not None
            assert waiting.status == 503
            assert "Waking up" in await page.inner_text("h1")
        finally:
            os.kill(host, signal.SIGCONT)
        await page.wait_for_selector("text=Milady", timeout=WITHIN_SECONDS * 1000)
        assert (urlsplit(page.url).path, urlsplit(page.url).fragment) == ("/", "chat")
