"""/docs in a real Chromium, below a path that a proxy puts before it, with nothing else in reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.async_api import BrowserContext, expect

from elizacloud.api.app import _whole_app


@pytest.fixture
async def url() -> AsyncIterator[str]:
    outer = FastAPI(openapi_url=None)
    outer.mount("/some/where", _whole_app())
    server = uvicorn.Server(uvicorn.Config(outer, port=0, log_config=None, lifespan="off"))
    task = asyncio.create_task(server._serve(), name="server")
    while not server.started:
        await asyncio.sleep(0)
    (socket,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/some/where"
    server.should_exit = True
    await task


async def test_the_page_shows_every_call_and_loads_nothing_from_elsewhere(browser: BrowserContext, url: str) -> None:
    page = await browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(f"{url}/docs")
    await expect(page.locator("#operations-agents-create_agent_api_v1_agents_post")).to_be_visible(timeout=30_000)
    assert await page.locator(".opblock").count() > 20
    assert [address for address in asked if not address.startswith((url, "data:"))] == []
    assert said == []
