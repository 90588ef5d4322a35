from collections.abc import AsyncIterator

import pytest

from tests.headscale.scripted import Scripted, serving


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    async with serving() as server:
        yield server
