"""A real Chromium and a whole cloud for it; tests are skipped where there is no Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, async_playwright

from tests.e2e.cloud import Cloud

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(180))
            item.add_marker(pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"))


@pytest.fixture
async def browser() -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        # Chromium has no sandbox for root, and CI machines are containers with a small /dev/shm.
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield await chromium.new_context()
        await chromium.close()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud("devcontrol")
    yield cloud
    cloud.remove()
