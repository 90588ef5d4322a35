"""One world a test, on a store of its own. Time is virtual in tests that ask for `looptime`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import structlog

from elizacloud.store import Store
from tests.agents.world import World, now
from tests.fakes.inline_sqlite import use_inline_sqlite
from tests.fakes.runtime import FakeRuntime
from tests.fakes.store import open_memory_store


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    use_inline_sqlite(monkeypatch)
    async with open_memory_store(clock=now) as store:
        yield store


@pytest.fixture
async def world(store: Store) -> World:
    return World(store, FakeRuntime())


@pytest.fixture
def silence() -> None:
    """For tests in which thousands of things go wrong on purpose."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
