"""The page of docs/browser.md, opened in a real Chromium on an origin of its own, against a real cloud."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aiohttp import web
from playwright.async_api import BrowserContext

from tests.e2e.cloud import Cloud

PAGE = re.search(r"```html\n(.*?)```", (Path(__file__).parents[2] / "docs" / "browser.md").read_text(), re.DOTALL)
WITHIN_MILLISECONDS = 60_000


async def _serve(html: dict[str, str]) -> tuple[web.AppRunner, str]:
    """A site of somebody's own that serves `html["page"]`, and its origin."""

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=html["page"], content_type="text/html")

    app = web.Application()
    app.router.add_get("/", index)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_the_page_of_the_docs_works_as_it_stands(cloud: Cloud, browser: BrowserContext) -> None:
    assert PAGE is not None
    page = await browser.new_page()
    html: dict[str, str] = {}
    runner, origin = await _serve(html)
    try:
        cloud.environment = {"ELIZACLOUD_CORS_ORIGINS": origin}
        await asyncio.to_thread(cloud.start)
        html["page"] = PAGE[1].replace("http://127.0.0.1:8420", cloud.url).replace("ec_...", cloud.token)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(origin)
        closed = page.locator("#log", has_text="socket closed")
        try:
            await closed.wait_for(timeout=WITHIN_MILLISECONDS)
        finally:
            log = await page.locator("#log").inner_text()
            assert not errors, (errors, log)
    finally:
        await runner.cleanup()
    assert "state joined" in log
    assert "state ready" in log
    assert "discord connected" in log
    assert "agent said You said: Hello from a browser" in log
    assert "agent is status" in log
    assert "socket closed 1000" in log


async def test_a_page_of_another_origin_learns_nothing(cloud: Cloud, browser: BrowserContext) -> None:
    page = await browser.new_page()
    html = {"page": "<!doctype html><title>not let in</title>"}
    runner, origin = await _serve(html)
    try:
        cloud.environment = {"ELIZACLOUD_CORS_ORIGINS": "https://app.example.com"}
        await asyncio.to_thread(cloud.start)
        await page.goto(origin)
        seen = await page.evaluate(
            """([url, token]) => fetch(url, {headers: {Authorization: `Bearer ${token}`}})
                .then((answer) => answer.status, (error) => error.name)""",
            [f"{cloud.url}/api/v1/agents", cloud.token],
        )
    finally:
        await runner.cleanup()
    assert seen == "TypeError"
