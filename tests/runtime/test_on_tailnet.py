"""Agents of the process runtime on a real tailnet: they join, are reached by a relay's node, and come back as themselves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from aiohttp import web
from pydantic import SecretStr

from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.model import TAG_AGENT, AgentSpec
from elizacloud.runtime.protocol import Instance, Phase
from tests.contract.headscale_servers import RealMachine, RealRig, parameters, rig_of
from tests.contract.runtimes import ProcessRig, process_rig, secrets
from tests.runtime.tailnet import WITHIN_SECONDS, address_of, agent_on, ask, key_for
from tests.runtime.tailnet import _counted as _counted
from tests.runtime.tailnet import relay as relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVES_ITS_PORT = """
from http.server import SimpleHTTPRequestHandler, test
from os import environ
test(SimpleHTTPRequestHandler, port=int(environ["PORT"]), bind=environ["MILADY_API_BIND"])
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=parameters()[1:])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RealRig]:
    async with rig_of(request.param) as rig:
        assert isinstance(rig, RealRig)
        await ensure_policy(rig.headscale)
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def rig() -> AsyncIterator[ProcessRig]:
    async with process_rig() as made:
        await made.start()
        yield made


async def ended(rig: ProcessRig, ref: str) -> Instance:
    async with asyncio.timeout(WITHIN_SECONDS):
        async for instance in rig.runtime.watch():
            if instance.ref == ref and instance.phase is Phase.EXITED:
                return instance
    raise AssertionError("watch() ended")


async def test_an_agent_joins_and_only_its_token_opens_it(server: RealRig, relay: RealMachine, rig: ProcessRig) -> None:
    of = agent_on(server)
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))

    _node_id, ip = await address_of(server, of)

    assert await ask(relay, ip) == "HTTP/1.1 200 OK"
    assert " 401 " in await ask(relay, ip, path="/api/connectors", token="another")
    lines = [line async for line in rig.runtime.logs(ref, tail=100, follow=False)]
    assert any(f"on the tailnet as {ip}" in line for line in lines)


async def test_an_agent_that_needs_a_port_gets_one(server: RealRig, relay: RealMachine, rig: ProcessRig) -> None:
    command = (sys.executable, "-c", SERVES_ITS_PORT)
    of = agent_on(server, AgentSpec(command=command))
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))

    _node_id, ip = await address_of(server, of)

    assert await ask(relay, ip, path="/") == "HTTP/1.0 200 OK"


async def test_it_comes_back_as_the_same_node_without_a_key(
    server: RealRig, relay: RealMachine, rig: ProcessRig
) -> None:
    of = agent_on(server)
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == "HTTP/1.1 200 OK"

    await rig.runtime.stop(ref, grace_seconds=5)
    await rig.runtime.start(ref, secrets(preauth_key=None))
    assert await ask(relay, ip) == "HTTP/1.1 200 OK"

    await rig.kill()
    await rig.start()
    later = replace(of, labels=replace(of.labels, run=2))
    ref = await rig.runtime.create(later)
    await rig.runtime.start(ref, secrets(preauth_key=None))
    assert await ask(relay, ip) == "HTTP/1.1 200 OK"

    assert await address_of(server, of) == (node_id, ip)


async def test_a_frozen_agent_is_there_again_when_it_is_thawed(
    server: RealRig, relay: RealMachine, rig: ProcessRig
) -> None:
    of = agent_on(server)
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == "HTTP/1.1 200 OK"

    await rig.runtime.pause(ref)
    await rig.runtime.resume(ref)

    assert await ask(relay, ip) == "HTTP/1.1 200 OK"


async def test_a_dead_key_is_the_exit_code_that_asks_for_a_new_one(server: RealRig, rig: ProcessRig) -> None:
    of = agent_on(server)
    minted = await server.headscale.create_preauth_key(tags=(TAG_AGENT,), lifetime_seconds=60)
    await server.headscale.expire_preauth_key(minted.id)
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=minted.value.get_secret_value()))

    instance = await ended(rig, ref)
    assert instance.key_is_dead
    assert "pre-auth key" in instance.reason

    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    await address_of(server, of)


async def test_an_agent_that_ends_before_it_has_joined_comes_back_as_its_node(server: RealRig, rig: ProcessRig) -> None:
    of = agent_on(server, AgentSpec(command=("/bin/sh", "-c", "exit 9")))
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    first = await ended(rig, ref)
    node = await address_of(server, of)

    lives = replace(of, labels=replace(of.labels, run=2), agent=AgentSpec())
    ref = await rig.runtime.create(lives)
    await rig.runtime.start(ref, secrets(preauth_key=None))

    async with asyncio.timeout(WITHIN_SECONDS):
        async for line in rig.runtime.logs(ref, tail=100, follow=True):
            if f"on the tailnet as {node[1]}" in line:
                break
    assert (first.exit_code, first.reason) == (9, "agent: exit status 9")
    assert await address_of(server, of) == node


async def test_it_reports_the_address_that_the_server_lists(server: RealRig, rig: ProcessRig) -> None:
    reported: asyncio.Future[tuple[str, str, str]] = asyncio.get_running_loop().create_future()

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        reported.set_result((request.match_info["agent"], request.headers["Authorization"], body["headscaleIp"]))
        return web.Response(status=200)

    app = web.Application()
    app.router.add_post("/containers/{agent}/networking", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        of = agent_on(server, report_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
        ref = await rig.runtime.create(of)
        await rig.runtime.start(
            ref, replace(secrets(preauth_key=await key_for(server, of)), join_token=SecretStr("jt"))
        )
        async with asyncio.timeout(WITHIN_SECONDS):
            agent_id, authorization, ip = await reported
    finally:
        await runner.cleanup()

    assert (agent_id, authorization) == (of.labels.agent_id, "Bearer jt")
    assert (await address_of(server, of))[1] == ip
