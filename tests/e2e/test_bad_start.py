"""Machines and Headscales on which nothing can start: a clear sentence, nothing left running, and nothing lost."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest
from aiohttp import web
from pydantic import SecretStr

from elizacloud.client import Agent, Client
from elizacloud.errors import StoreUnavailable
from elizacloud.processes import spawn
from elizacloud.settings import child_environment
from elizacloud.states import State
from tests.e2e.cloud import Cloud
from tests.e2e.raw import nodes, nodes_of
from tests.e2e.test_bad_input import delete_for_good

WITHIN_SECONDS = 40
MS_RDONLY = 1
KEY = "the-key-of-the-pretended-headscale"


async def said_by(cloud: Cloud, *arguments: str, code: int = 1, settings: Mapping[str, str] | None = None) -> str:
    """What a command says that ends with `code`; beside it our own event loop goes on."""
    lines: list[str] = []
    environment = child_environment({"data_dir": str(cloud.data_dir / "data"), "port": "0", **(settings or {})})
    command = spawn(
        cloud.command(*arguments),
        name=" ".join(arguments),
        env=environment,
        log=lambda line: lines.append(line.decode()),
    )
    async with command:
        ended = await command.wait()
    assert ended.code == code, (ended, lines)
    assert not cloud.processes()
    assert not [line for line in lines if "Traceback" in line], lines
    return "\n".join(lines)


@pytest.fixture
def fresh() -> Iterator[Cloud]:
    """A data dir that nothing started in, on no control server in particular."""
    made = Cloud("devcontrol")
    (made.data_dir / "data").mkdir(mode=0o700)
    yield made
    made.remove()


def mount(kind: str, target: Path, options: str = "", flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    source = os.fsencode(target)
    if libc.mount(source, source, kind.encode(), flags, options.encode()) != 0:
        pytest.skip(f"needs to mount a file system: {os.strerror(ctypes.get_errno())}")


def unmount(target: Path) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(target), 2)


async def test_a_data_dir_that_cannot_be_written_is_refused(fresh: Cloud) -> None:
    data = fresh.data_dir / "data"
    data.chmod(0o755)
    mount("tmpfs", data, flags=MS_RDONLY)
    try:
        said = await said_by(fresh, "up", "--headscale", "devcontrol")
        assert f"cannot use the directory {data}: Read-only file system; choose another or correct it" in said
    finally:
        unmount(data)
    data.rmdir()
    data.touch()
    said = await said_by(fresh, "up", "--headscale", "devcontrol")
    assert f"cannot use the directory {data}: it is not a directory" in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"format": 99, "installationId": "0badcafe"}', "made by a newer version (format 99, not 1); upgrade"),
        ('{"format": 1, "instal', "installation.json is damaged; restore it from a backup"),
    ],
)
async def test_a_data_dir_that_is_newer_or_half_written_is_refused_and_left_alone(
    fresh: Cloud, content: str, why: str
) -> None:
    file = fresh.data_dir / "data" / "installation.json"
    file.write_text(content)
    assert why in await said_by(fresh, "up", "--headscale", "devcontrol")
    assert file.read_text() == content
    assert list(file.parent.iterdir()) == [file]


async def test_a_store_that_is_damaged_or_gone_is_refused_and_comes_back_with_its_agents(own_cloud: Cloud) -> None:
    own_cloud.start()
    agent = await ready_agent(own_cloud)
    (node,) = await nodes_of(own_cloud, agent.agent_id)
    own_cloud.stop()
    store = own_cloud.data_dir / "data" / "store.db"
    backup = store.read_bytes()

    store.write_bytes(backup[: len(backup) // 2])
    said = await said_by(own_cloud, "up")
    assert f"cannot open the store {store}: it is damaged or was written only in part; restore it from a backup" in said
    store.unlink()
    said = await said_by(own_cloud, "up")
    assert "cannot use an empty store" in said
    assert "restore it from a backup, or begin anew in another data dir" in said

    store.write_bytes(backup)
    # A key that Headscale does not take is no loss: the server is ours, so another is made.
    (own_cloud.data_dir / "data" / "control-server" / "api.key").write_text("wrong\n")
    own_cloud.start()
    async with Client(own_cloud.url, SecretStr(own_cloud.token)) as client:
        await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        assert [found["id"] for found in await nodes_of(own_cloud, agent.agent_id)] == [node["id"]]


async def ready_agent(cloud: Cloud) -> Agent:
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        agent = await client.create_agent("kept")
        return await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)


@pytest.mark.parametrize("version", ["0.22.3", "0.31.0"])
async def test_a_headscale_binary_of_a_version_that_we_do_not_support_is_refused(fresh: Cloud, version: str) -> None:
    binary = fresh.data_dir / "headscale"
    binary.write_text(f"#!/bin/sh\necho headscale version v{version}\n")
    binary.chmod(0o755)
    said = await said_by(fresh, "up", "--headscale", str(binary))
    assert f"cannot use {binary}: it is headscale {version}; use 0.27 or newer, below 0.31" in said
    assert "--headscale" in said


class Pretended:
    """A Headscale that only tells its version, its health and its time."""

    def __init__(self, version: str | None, *, ahead_seconds: float = 0) -> None:
        self._version = version
        self._ahead_seconds = ahead_seconds
        self.written: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        headers = {"Date": formatdate(time() + self._ahead_seconds, usegmt=True)}
        if request.method != "GET":
            self.written.append(f"{request.method} {request.path}")
        if request.path == "/health":
            return web.json_response({"status": "pass"}, headers=headers)
        if request.path == "/version" and self._version is not None:
            return web.json_response({"version": self._version}, headers=headers)
        if request.path.startswith("/api/v1/") and request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.Response(status=401, text="Unauthorized", headers=headers)
        return web.Response(status=404, text="404 page not found", headers=headers)

    async def serve(self) -> AsyncIterator[Pretended]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield self
        await runner.cleanup()


@pytest.fixture(params=[None, "v0.31.0"], ids=["0.22", "0.31"])
async def unsupported(request: pytest.FixtureRequest) -> AsyncIterator[Pretended]:
    # Versions up to 0.26 have no /version at all.
    async for pretended in Pretended(request.param).serve():
        yield pretended


@pytest.fixture
async def ahead() -> AsyncIterator[Pretended]:
    async for pretended in Pretended("v0.29.2", ahead_seconds=7200).serve():
        yield pretended


def remote(url: str, key: str = KEY) -> Mapping[str, str]:
    return {"headscale_api_url": url, "headscale_api_key": key}


async def test_a_headscale_elsewhere_of_such_a_version_is_refused_and_not_written_to(
    fresh: Cloud, unsupported: Pretended
) -> None:
    sentence = f"cannot use Headscale at {unsupported.url}: its version is v0.31.0, supported are 0.27 to 0.30"
    if unsupported._version is None:
        sentence = f"cannot use Headscale at {unsupported.url}: it tells no version"
    assert sentence in await said_by(fresh, "up", "--headscale", unsupported.url, settings={"headscale_api_key": KEY})
    assert sentence in await said_by(fresh, "serve", settings=remote(unsupported.url))
    found = json.loads(await said_by(fresh, "doctor", "--json", settings=remote(unsupported.url)))["findings"]
    (finding,) = [finding for finding in found if finding["verdict"] == "fail"]
    assert sentence in finding["cause"]
    assert finding["fix"] == "install a supported version"
    assert unsupported.written == []


async def test_doctor_finds_a_clock_that_is_far_off(fresh: Cloud, ahead: Pretended) -> None:
    found = json.loads(await said_by(fresh, "doctor", "--json", settings=remote(ahead.url)))["findings"]
    (clock,) = [finding for finding in found if finding["check"] == "clock"]
    assert clock["verdict"] == "fail"
    assert clock["cause"].endswith("s behind Headscale's")
    assert "NTP" in clock["fix"]


async def test_a_wrong_api_key_is_refused(cloud: Cloud, fresh: Cloud) -> None:
    before = [node["id"] for node in await nodes(cloud)]
    url = cloud.facts["headscale"]["url"]
    wrong = "hskey-api-000000000000-" + "0" * 64
    for arguments, settings in (
        (("up", "--headscale", url), {"headscale_api_key": wrong}),
        (("serve",), remote(url, wrong)),
    ):
        said = await said_by(fresh, *arguments, settings=settings)
        assert "API key" in said
        assert "headscale apikeys create" in said
        assert wrong not in said
    found = json.loads(await said_by(fresh, "doctor", "--json", settings=remote(url, wrong)))["findings"]
    (finding,) = [finding for finding in found if finding["verdict"] == "fail"]
    assert finding["check"] == "headscale API key"
    assert "cannot use a remote Headscale without its API key" in await said_by(fresh, "up", "--headscale", url)
    assert [node["id"] for node in await nodes(cloud)] == before


async def test_a_full_disk_refuses_creations_and_keeps_what_there_is(own_cloud: Cloud) -> None:
    data = own_cloud.data_dir / "data"
    data.mkdir(mode=0o700)
    mount("tmpfs", data, "size=8m,mode=700")
    try:
        own_cloud.start()
        kept = await ready_agent(own_cloud)
        async with Client(own_cloud.url, SecretStr(own_cloud.token)) as client:
            fill(data / "filler")
            with pytest.raises(StoreUnavailable, match="its disk is full; free some space, nothing was changed"):
                await client.create_agent("too-much")
            async with client.relay("GET", kept.agent_id, "/api/health") as answer:
                assert answer.status == 200
            assert [agent.agent_name async for agent in client.agents()] == ["kept"]
            (data / "filler").unlink()
            created = await client.create_agent("too-much")
            await client.wait_until(created.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            await delete_for_good(own_cloud, client, created.agent_id)
            assert (await client.get_agent(kept.agent_id)).status == "ready"
        assert own_cloud.stop() == 0
        assert not own_cloud.processes()
    finally:
        unmount(data)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        for size in (65536, 4096, 1):
            try:
                while True:
                    filler.write(b"x" * size)
            except OSError:
                pass
