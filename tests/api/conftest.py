"""The real API on a real server (uvicorn on a unix socket), over a lifecycle whose outside is made of fakes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import BytesIO
from json import dumps
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from elizacloud.api.app import close_streams, create_app, create_containers_app
from elizacloud.auth.credentials import Credentials
from elizacloud.client import Client
from elizacloud.model import Scope
from elizacloud.store import Store
from tests.agents.world import World, now
from tests.fakes.runtime import FakeRuntime
from tests.fakes.store import open_memory_store

ANN, BOB, PLATFORM = "ann", "bob", "platform"


@dataclass
class Answer:
    status: int
    headers: Any
    body: Any


@dataclass
class Served:
    """An app on a socket, and a token each for two owners and a platform."""

    world: World
    app: FastAPI
    credentials: Credentials
    socket: Path
    server: uvicorn.Server
    tokens: dict[str, str] = field(default_factory=dict)
    session: aiohttp.ClientSession = field(init=False)

    async def call(
        self, method: str, path: str, *, token: str | None = ANN, json: Any = None, data: Any = None, **headers: str
    ) -> Answer:
        """One request; `token` is an owner's name or a token, header names are written with _ for -."""
        if json is not None:
            data, headers = BytesIO(dumps(json).encode()), {"Content_Type": "application/json", **headers}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
        async with self.session.request(method, f"http://api{path}", data=data, headers=sent) as answer:
            text = await answer.text()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return Answer(answer.status, answer.headers, await answer.json(content_type=None) if is_json else text)

    def stream(self, path: str, *, token: str = ANN, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"Authorization": f"Bearer {self.tokens.get(token, token)}", "Accept": "text/event-stream"}
        return self.session.get(f"http://api{path}", headers=sent)

    async def create(self, name: str = "ada", **more: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/api/v1/agents", json={"agentName": name, **more})
        assert answer.status == 201, answer.body
        body: dict[str, Any] = answer.body
        return body

    def client(self, token: str = ANN) -> Client:
        return Client("http://api", SecretStr(self.tokens[token]), socket=self.socket)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_memory_store(clock=now) as store:
        yield store


@pytest.fixture
async def world(store: Store) -> World:
    return World(store, FakeRuntime(), create_wait_seconds=5, poll_seconds=0.5)


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    credentials = Credentials(world.store, world.relays, world.settings, issuer="https://cloud.example", now=now)
    await credentials.prepare()
    app = create_app(world.lifecycle, credentials, world.store, world.settings)
    async for served in _serve(world, app, credentials):
        issued = credentials.tokens
        for owner in (ANN, BOB):
            token = await issued.issue(owner, "test", by=None)
            served.tokens[owner] = token.value.get_secret_value()
        token = await issued.issue(PLATFORM, "test", by=None, scopes=frozenset({Scope.SERVICE}))
        served.tokens[PLATFORM] = token.value.get_secret_value()
        async with world.running():
            yield served


@pytest.fixture
async def served_containers(world: World) -> AsyncIterator[Served]:
    credentials = Credentials(world.store, world.relays, world.settings, issuer="https://cloud.example", now=now)
    async for served in _serve(world, create_containers_app(world.lifecycle.containers), credentials):
        async with world.running():
            yield served


async def _serve(world: World, app: FastAPI, credentials: Credentials) -> AsyncIterator[Served]:
    directory = Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))
    socket = directory / "api.sock"
    server = uvicorn.Server(
        uvicorn.Config(app, uds=str(socket), log_config=None, access_log=False, lifespan="off", timeout_keep_alive=1)
    )
    served = Served(world, app, credentials, socket, server)
    task = asyncio.create_task(server._serve(), name="server")
    while not server.started:
        await asyncio.sleep(0)
    served.session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)))
    try:
        yield served
    finally:
        await served.session.close()
        close_streams(app)
        server.should_exit = True
        await task
        shutil.rmtree(directory)
