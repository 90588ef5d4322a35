"""A cloud for the end-to-end tests, on devcontrol and on each real Headscale that was given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.client import Agent, Client
from elizacloud.states import State
from tests.conftest import CONTROL_SERVER, configured_headscales
from tests.e2e.cloud import Cloud

READY_SECONDS = 40

SERVERS = ["devcontrol", *configured_headscales()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(180))


def server_name(headscale: str) -> str:
    return headscale if headscale == "devcontrol" else f"headscale {Path(headscale).name}"


@pytest.fixture(params=SERVERS, ids=server_name)
def headscale(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> str:
    """The control server that this test runs on, as `--headscale` takes it."""
    record_property(CONTROL_SERVER, server_name(request.param))
    return str(request.param)


@pytest.fixture(scope="session")
def clouds() -> Iterator[dict[str, Cloud]]:
    """The clouds that tests share, one a control server."""
    made: dict[str, Cloud] = {}
    yield made
    for cloud in made.values():
        cloud.remove()


@pytest.fixture
def cloud(headscale: str, clouds: dict[str, Cloud]) -> Cloud:
    """A running cloud that other tests use, too: leave it as it was."""
    if headscale not in clouds:
        clouds[headscale] = Cloud(headscale)
    if clouds[headscale].process is None:
        clouds[headscale].start()
    return clouds[headscale]


@pytest.fixture
def own_cloud(headscale: str) -> Iterator[Cloud]:
    """A cloud for this test alone, not started."""
    made = Cloud(headscale)
    yield made
    made.remove()


@pytest.fixture
async def client(cloud: Cloud) -> AsyncIterator[Client]:
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        yield client


@pytest.fixture
async def agent(client: Client, request: pytest.FixtureRequest) -> AsyncIterator[Agent]:
    """A ready agent of the test's own."""
    created = await client.create_agent(request.node.name[:100])
    yield await client.wait_until(created.agent_id, {State.READY}, within_seconds=READY_SECONDS)
    await client.delete_agent(created.agent_id)
