"""Agents in containers on a real tailnet: they join, are reached by a relay's node and by nobody else, and come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiodocker import Docker
from aiohttp import web
from pydantic import SecretStr

from elizacloud.errors import RuntimeRefused
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.model import AGENT_PORT, TAG_AGENT, AgentSpec
from elizacloud.runtime.docker.building import wrap
from elizacloud.runtime.docker.labels import Role, name_of, network_name
from elizacloud.runtime.protocol import STOPPED, Instance, InstanceSpec, Phase
from elizacloud.tailnet import dial
from tests.contract.docker_runtime import EMBEDDED, DockerRig, docker_rig
from tests.contract.headscale_servers import RealMachine, RealRig, parameters, rig_of
from tests.contract.runtimes import secrets
from tests.docker_engine import AGENT_IMAGE, DockerEngine
from tests.runtime.tailnet import WITHIN_SECONDS, address_of, agent_on, ask, key_for, way_to
from tests.runtime.tailnet import _counted as _counted
from tests.runtime.tailnet import relay as relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = "HTTP/1.1 200 OK"


@pytest.fixture(scope="module")
def gateway(docker_engine: DockerEngine) -> str:
    """An address of this machine that containers reach, too."""
    return docker_engine.gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=parameters()[1:])
async def server(request: pytest.FixtureRequest, gateway: str) -> AsyncIterator[RealRig]:
    async with rig_of(request.param, listen_host=gateway) as rig:
        assert isinstance(rig, RealRig)
        await ensure_policy(rig.headscale)
        yield rig


@pytest_asyncio.fixture(loop_scope="module", params=[{}, EMBEDDED], ids=["sidecar", "embedded"])
async def rig(request: pytest.FixtureRequest, docker_engine: DockerEngine) -> AsyncIterator[DockerRig]:
    """Both ways of a container onto a tailnet."""
    async with docker_rig(docker_engine, **request.param) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def sidecar_rig(docker_engine: DockerEngine) -> AsyncIterator[DockerRig]:
    async with docker_rig(docker_engine) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def embedded_rig(docker_engine: DockerEngine) -> AsyncIterator[DockerRig]:
    async with docker_rig(docker_engine, **EMBEDDED) as made:
        yield made


async def started(server: RealRig, rig: DockerRig, of: InstanceSpec) -> str:
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    return ref


async def ended(rig: DockerRig, ref: str) -> Instance:
    async with asyncio.timeout(WITHIN_SECONDS):
        async for instance in rig.runtime.watch():
            if instance.ref == ref and instance.phase is Phase.EXITED:
                return instance
    raise AssertionError("watch() ended")


async def kill(rig: DockerRig, of: InstanceSpec, role: Role) -> None:
    """As somebody on the host would."""
    async with Docker(rig.engine.url) as docker:
        name = name_of((of.labels.agent_id, of.labels.generation), role)
        await docker.containers.container(name).kill(signal="SIGKILL")


async def test_an_image_that_knows_nothing_of_a_tailnet_is_reached_through_it(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    of = agent_on(server)

    await started(server, rig, of)

    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK


async def test_an_agent_on_another_port_is_reached_on_the_same_one(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    command = ("/bin/httpd", "-f", "-p", "127.0.0.1:3000", "-h", "/www")
    of = agent_on(server, AgentSpec(command=command, port=3000))

    await started(server, rig, of)

    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK


async def test_it_comes_back_as_the_same_node_without_a_key(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await rig.runtime.stop(ref, grace_seconds=5)
    await rig.runtime.start(ref, secrets(preauth_key=None))
    assert await ask(relay, ip) == OK

    await rig.runtime.stop(ref, grace_seconds=5)
    ref = await rig.runtime.create(replace(of, labels=replace(of.labels, run=2)))
    await rig.runtime.start(ref, secrets(preauth_key=None))
    assert await ask(relay, ip) == OK
    assert await address_of(server, of) == (node_id, ip)


async def test_a_frozen_agent_is_there_again_when_it_is_thawed(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await rig.runtime.pause(ref)
    await rig.runtime.resume(ref)

    assert await ask(relay, ip) == OK


@pytest.mark.parametrize("role", list(Role))
async def test_an_agent_ends_as_a_whole_when_any_container_of_it_is_killed_and_comes_back(
    server: RealRig, relay: RealMachine, sidecar_rig: DockerRig, embedded_rig: DockerRig, role: Role
) -> None:
    rig = embedded_rig if role is Role.WHOLE else sidecar_rig
    of = agent_on(server)
    ref = await started(server, rig, of)
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await kill(rig, of, role)
    instance = await ended(rig, ref)
    assert instance.exit_code == 137
    assert instance.reason != STOPPED
    await rig.runtime.start(ref, secrets(preauth_key=None))

    assert await ask(relay, ip) == OK
    assert await address_of(server, of) == (node_id, ip)


async def test_a_dead_key_is_the_exit_code_that_asks_for_a_new_one(server: RealRig, rig: DockerRig) -> None:
    of = agent_on(server)
    minted = await server.headscale.create_preauth_key(tags=(TAG_AGENT,), lifetime_seconds=60)
    await server.headscale.expire_preauth_key(minted.id)
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=minted.value.get_secret_value()))

    instance = await ended(rig, ref)
    assert instance.key_is_dead
    assert "mint a new pre-auth key" in instance.reason

    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    await address_of(server, of)


async def test_a_node_that_was_deleted_asks_for_a_new_key(server: RealRig, relay: RealMachine, rig: DockerRig) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK
    await rig.runtime.stop(ref, grace_seconds=5)
    await server.headscale.delete_node(node_id)

    await rig.runtime.start(ref, secrets(preauth_key=None))

    instance = await ended(rig, ref)
    assert instance.key_is_dead
    assert "mint a new pre-auth key" in instance.reason


async def test_it_reports_the_address_that_the_server_lists(server: RealRig, rig: DockerRig, gateway: str) -> None:
    reported: asyncio.Future[tuple[str, str, str]] = asyncio.get_running_loop().create_future()

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        reported.set_result((request.match_info["agent"], request.headers["Authorization"], body["headscaleIp"]))
        return web.Response(status=200)

    app = web.Application()
    app.router.add_post("/containers/{agent}/networking", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, gateway, 0).start()
    try:
        of = agent_on(server, report_url=f"http://{gateway}:{runner.addresses[0][1]}")
        ref = await rig.runtime.create(of)
        given = replace(secrets(preauth_key=await key_for(server, of)), join_token=SecretStr("jt"))
        await rig.runtime.start(ref, given)
        async with asyncio.timeout(WITHIN_SECONDS):
            agent_id, authorization, ip = await reported
    finally:
        await runner.cleanup()

    assert (agent_id, authorization) == (of.labels.agent_id, "Bearer jt")
    assert (await address_of(server, of))[1] == ip


async def test_delete_leaves_nothing(server: RealRig, relay: RealMachine, rig: DockerRig) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await rig.runtime.remove(ref, volume=True)

    for kind in ("containers", "volumes"):
        assert [name for name in rig.engine.names(kind) if of.labels.agent_id in name] == []


async def test_a_wrapped_image_is_an_agent_by_itself(
    server: RealRig, relay: RealMachine, docker_engine: DockerEngine
) -> None:
    """The seed's way, as `docker run -e` would start it; it comes back as the same node though its key is spent."""
    of = agent_on(server)
    wrapped = "elizacloud-test/wrapped"
    busybox, tailscaled = shutil.which("busybox"), os.environ["ELIZACLOUD_TAILSCALED_BIN"]
    assert busybox is not None
    await wrap(docker_engine.url, AGENT_IMAGE, wrapped, busybox=Path(busybox), tailscaled=Path(tailscaled).resolve())
    environment = {
        "HEADSCALE_URL": of.join_url,
        "HEADSCALE_AUTH_KEY": await key_for(server, of),
        "CONTAINER_ID": of.labels.agent_id,
    }
    config: dict[str, Any] = {
        "Image": wrapped,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "HostConfig": {"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"]},
    }
    async with Docker(docker_engine.url) as docker:
        container = await docker.containers.create(config)
        try:
            await container.start()
            node_id, ip = await address_of(server, of)
            assert await ask(relay, ip) == OK

            await container.stop(t=10)
            assert (await container.show())["State"]["ExitCode"] == 143, "the agent got the signal itself"
            await container.start()

            assert await ask(relay, ip) == OK
            assert await address_of(server, of) == (node_id, ip)
        finally:
            await container.delete(force=True, v=True)


@pytest.mark.parametrize("which", ["sidecar", "embedded"])
async def test_tailscaled_that_is_killed_ends_the_agent_too(
    server: RealRig, relay: RealMachine, sidecar_rig: DockerRig, embedded_rig: DockerRig, which: str
) -> None:
    rig = embedded_rig if which == "embedded" else sidecar_rig
    of = agent_on(server)
    ref = await started(server, rig, of)
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    role = Role.WHOLE if which == "embedded" else Role.TAILNET
    os.kill(tailscaled_of(rig, of, role), signal.SIGKILL)
    instance = await ended(rig, ref)
    assert (instance.exit_code, "tailscaled ended by itself" in instance.reason) == (69, True), instance
    await rig.runtime.start(ref, secrets(preauth_key=None))

    assert await ask(relay, ip) == OK
    assert await address_of(server, of) == (node_id, ip)


async def test_an_agent_that_joins_by_itself_finds_its_secrets_and_the_key_is_gone(
    server: RealRig, relay: RealMachine, embedded_rig: DockerRig
) -> None:
    script = "env >/tmp/env; ls /var/lib/tailscale >/tmp/node; exec httpd -f -p 127.0.0.1:2138 -h /tmp"
    agent = AgentSpec(command=("/bin/sh", "-c", script), secrets={"DISCORD_TOKEN": SecretStr("canary it's")})
    of = agent_on(server, agent)

    await started(server, embedded_rig, of)
    _node_id, ip = await address_of(server, of)
    environment = await read(relay, ip, "/env")
    kept = await read(relay, ip, "/node")

    assert "DISCORD_TOKEN=canary it's" in environment
    assert "MILADY_API_TOKEN=agent-token" in environment
    assert "HEADSCALE_AUTH_KEY" not in environment
    assert "tailscaled.state" in kept
    assert "auth-key" not in kept
    shown = json.dumps(embedded_rig.shown(of.labels, Role.WHOLE))
    assert "canary" not in shown
    assert "agent-token" not in shown


async def test_an_image_without_container_init_is_refused_where_it_is_to_join_by_itself(
    server: RealRig, docker_engine: DockerEngine
) -> None:
    async with docker_rig(docker_engine, embedded_images=(AGENT_IMAGE,)) as rig:
        with pytest.raises(RuntimeRefused) as refused:
            await rig.runtime.create(agent_on(server))

        assert refused.value.reason == "no_container_init"
        assert rig.engine.names("containers") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can block UDP")
async def test_with_udp_blocked_it_is_reached_through_derp(
    server: RealRig, relay: RealMachine, sidecar_rig: DockerRig
) -> None:
    of = agent_on(server)
    ref = await sidecar_rig.runtime.create(of)
    found = sidecar_rig.engine.get(f"/networks/{network_name(of.labels.installation_id)}")
    with udp_blocked(f"br-{found['Id'][:12]}"):
        await sidecar_rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
        _node_id, ip = await address_of(server, of)

        assert await ask(relay, ip) == OK
        assert await way_to(relay, ip) == "derp"


@contextlib.contextmanager
def udp_blocked(bridge: str) -> Iterator[None]:
    ways = (("INPUT", "-i", bridge), ("OUTPUT", "-o", bridge), ("DOCKER-USER", "-i", bridge))
    for chain, *way in ways:
        subprocess.run(["iptables", "-I", chain, *way, "-p", "udp", "-j", "DROP"], check=True)
    try:
        yield
    finally:
        for chain, *way in ways:
            subprocess.run(["iptables", "-D", chain, *way, "-p", "udp", "-j", "DROP"], check=True)


def tailscaled_of(rig: DockerRig, of: InstanceSpec, role: Role) -> int:
    """Its process on this machine, which is that of the engine."""
    shown: Any = rig.shown(of.labels, role)
    pid = shown["State"]["Pid"]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = (int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "tailscaled")
    return found


async def read(relay: RealMachine, ip: str, path: str) -> str:
    """A file that the agent serves."""
    assert await ask(relay, ip, path=path) == OK
    reader, writer = await dial(relay.tailscaled.socket, ip, AGENT_PORT, within_seconds=WITHIN_SECONDS)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    async with asyncio.timeout(WITHIN_SECONDS):
        answer = await reader.read()
    writer.close()
    return answer.decode()
