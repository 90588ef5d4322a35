"""Schemathesis against a running server: whatever its document allows or forbids is answered as the document says."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings

from elizacloud.api.app import create_app, document
from elizacloud.auth.credentials import Credentials
from elizacloud.model import Scope
from tests.agents.world import World, now
from tests.fakes.runtime import FakeRuntime
from tests.fakes.store import open_memory_store


@dataclass
class Target:
    url: str = ""
    token: str = ""


class Server(threading.Thread):
    """The API on a loop of its own, since Schemathesis calls it synchronously."""

    def __init__(self) -> None:
        super().__init__(name="api")
        self.target = Target()
        self.ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self.ready.set()

    def stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(setattr, self._server, "should_exit", True)
        self.join(timeout=20)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with open_memory_store(clock=now) as store:
            world = World(store, FakeRuntime(), create_wait_seconds=5, poll_seconds=0.5)
            world.join_seconds = 0.001
            credentials = Credentials(store, world.relays, world.settings, issuer="https://cloud.example", now=now)
            await credentials.prepare()
            app = create_app(world.lifecycle, credentials, store, world.settings)
            issued = await credentials.tokens.issue(
                "platform", "schemathesis", by=None, scopes=frozenset({Scope.SERVICE})
            )
            config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="off")
            self._server = uvicorn.Server(config)
            async with world.running():
                task = asyncio.create_task(self._server._serve(), name="server")
                while not self._server.started:
                    await asyncio.sleep(0)
                port = self._server.servers[0].sockets[0].getsockname()[1]
                self.target.url = f"http://127.0.0.1:{port}"
                self.target.token = issued.value.get_secret_value()
                self.ready.set()
                await task


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    server = Server()
    server.start()
    server.ready.wait(20)
    assert server.target.url
    try:
        yield server.target
    finally:
        server.stop()


schema = schemathesis.openapi.from_dict(document())


@pytest.mark.timeout(240)
@schema.parametrize()
@settings(max_examples=6, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_every_call_does_what_the_document_says(case: Any, target: Target) -> None:
    key = (case.headers or {}).get("idempotency-key")
    if key and re.fullmatch("[!-~]{1,255}", str(key)):
        # Used again with another request it is refused, which is what it is for.
        case.headers["idempotency-key"] = uuid.uuid4().hex
    case.call_and_validate(base_url=target.url, headers={"Authorization": f"Bearer {target.token}"}, timeout=20)
