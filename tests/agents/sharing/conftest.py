"""Several control planes on one PostgreSQL, in real time, whose sweeps come soon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from elizacloud.agents.reconcile import sweep
from elizacloud.agents.steps import ending
from tests.agents.sharing.several import ControlPlane, SharedWorld, Stop, shared_world


@pytest.fixture
async def world(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SharedWorld]:
    monkeypatch.setattr(sweep, "CONFIRM_SECONDS", 0.2)
    monkeypatch.setattr(sweep, "SOON_SECONDS", 0.3)
    monkeypatch.setattr(sweep, "SWEEP_SECONDS", 1.0)
    monkeypatch.setattr(ending, "CLEAN_GAP_SECONDS", 0.2)
    async with shared_world(postgresql_url) as world:
        yield world


@pytest.fixture
async def start(world: SharedWorld) -> AsyncIterator[Callable[..., object]]:
    """Starts control planes, which run until the end of the test."""
    async with AsyncExitStack() as stack:

        async def start_one(stop: Stop | None = None, *, blind: bool = False) -> ControlPlane:
            return await stack.enter_async_context(world.control_plane(stop, blind=blind))

        yield start_one
