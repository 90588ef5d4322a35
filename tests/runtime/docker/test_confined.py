"""What an agent can and cannot do in its container, tried from inside; what `docker inspect` shows, seen from outside."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from aiodocker import Docker
from pydantic import SecretStr

from elizacloud.agents.wishes import CONFIG_MAX_BYTES
from elizacloud.model import AgentSpec
from elizacloud.runtime.docker.handed import SIDECAR_UID
from elizacloud.runtime.docker.labels import Role, network_name
from elizacloud.runtime.protocol import Labels
from tests.contract.docker_runtime import EMBEDDED, DockerRig, docker_rig
from tests.contract.runtimes import labels, secrets, spec
from tests.docker_engine import AGENT_IMAGE, ROOT_AGENT_IMAGE, DockerEngine

DONE = "--done--"
BOTH = (Role.TAILNET, Role.AGENT)
IMAGES = pytest.mark.parametrize("image", [AGENT_IMAGE, ROOT_AGENT_IMAGE], ids=["user", "root"])


@pytest.fixture
async def rig(docker_engine: DockerEngine) -> AsyncIterator[DockerRig]:
    async with docker_rig(docker_engine) as made:
        yield made


async def output_of(rig: DockerRig, script: str, agent: AgentSpec | None = None, *, agent_id: str = "b" * 16) -> str:
    """What a script prints as the agent, both streams; it runs on in the end."""
    command = ("/bin/sh", "-c", f"{{ {script}; }} 2>&1; echo {DONE}; exec sleep 86400")
    of = replace(spec(labels(agent_id=agent_id)), agent=replace(agent or AgentSpec(), command=command))
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets())
    printed: list[str] = []
    async with asyncio.timeout(20):
        async with aclosing(rig.runtime.logs(ref, tail=1000, follow=True)) as lines:
            async for line in lines:
                if line == DONE:
                    return "\n".join(printed)
                printed.append(line)
    raise AssertionError("the log ended")


@IMAGES
async def test_it_has_no_capability_and_gets_none(rig: DockerRig, image: str) -> None:
    status = await output_of(rig, "cat /proc/self/status", AgentSpec(image=image))

    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[name], 16) == 0, name
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"


@IMAGES
async def test_it_writes_only_where_it_may(rig: DockerRig, image: str) -> None:
    script = (
        'for d in / /bin /www /usr/lib/elizacloud /tmp "$HOME" "$MILADY_STATE_DIR"; do '
        'touch "$d/x" 2>/dev/null && echo "$d yes" || echo "$d no"; done'
    )

    said = await output_of(rig, script, AgentSpec(image=image))

    assert said.splitlines() == [
        "/ no",
        "/bin no",
        "/www no",
        "/usr/lib/elizacloud no",
        "/tmp yes",
        "/var/lib/elizacloud/agent/home yes",
        "/var/lib/elizacloud/agent/state yes",
    ]


@IMAGES
async def test_it_cannot_reach_into_the_sidecar(rig: DockerRig, image: str) -> None:
    script = (
        "cat /proc/1/environ && echo environ; ls /proc/1/root/ && echo root; kill -9 1 && echo killed; "
        "ls /var/lib/tailscale && echo state; ls /run/tailscale && echo socket"
    )

    said = await output_of(rig, script, AgentSpec(image=image))

    assert said.count("ermi") + said.count("No such file") == 5, said
    assert not {"environ", "root", "killed", "state", "socket"} & set(said.splitlines())


async def test_an_image_whose_user_is_the_sidecars_by_another_name_does_not_run(
    rig: DockerRig, docker_engine: DockerEngine
) -> None:
    dockerfile = f"FROM {AGENT_IMAGE}\nCOPY passwd /etc/passwd\nUSER disguised\n"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in (("Dockerfile", dockerfile), ("passwd", f"disguised:x:{SIDECAR_UID}:1000::/:/bin/sh\n")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    context.seek(0)
    async with Docker(docker_engine.url) as docker:
        await docker.images.build(fileobj=context, encoding="identity", tag="disguised:test")
    command = ("/bin/sh", "-c", f"cat /proc/1/environ; echo {DONE}; exec sleep 86400")
    ref = await rig.runtime.create(replace(spec(labels()), agent=AgentSpec(image="disguised:test", command=command)))
    await rig.runtime.start(ref, secrets())
    async with asyncio.timeout(20), aclosing(rig.runtime.logs(ref, tail=1000, follow=True)) as lines:
        said = await anext(line async for line in lines if line == DONE or "cannot run" in line)
    assert said == "[elizacloud] cannot run as the user of the sidecar"


async def test_it_finds_its_secrets_in_its_environment_and_docker_shows_none(rig: DockerRig) -> None:
    canaries = ("canary-owner", "canary-config", "canary-key", "agent-token", "join-token", "busy-token")
    agent = AgentSpec(secrets={"DISCORD_TOKEN": SecretStr("canary-owner it's")}, config={"k": "canary-config"})

    said = await output_of(rig, "env; cat $ELIZACLOUD_AGENT_CONFIG; cat ${ELIZACLOUD_BUSY_TOKEN#file:}", agent)

    of = labels(agent_id="b" * 16)
    assert "DISCORD_TOKEN=canary-owner it's" in said
    assert "MILADY_API_TOKEN=agent-token" in said
    assert "FROM_IMAGE=yes" in said
    assert '{"k": "canary-config"}' in said
    assert said.endswith("busy-token")
    assert "join-token\n" not in said
    assert "hskey" not in said
    shown = json.dumps([*(rig.shown(of, role) for role in BOTH), rig.engine.get("/volumes")])
    # Paths of files have such names; what may not be seen is their content.
    shown = shown.replace("/join-token", "").replace("/busy-token", "")
    for canary in canaries:
        assert canary not in shown


async def test_an_agent_gets_as_much_configuration_as_it_may_have(rig: DockerRig) -> None:
    large = {"k": "x" * (CONFIG_MAX_BYTES - 100)}

    said = await output_of(rig, "busybox wc -c <$ELIZACLOUD_AGENT_CONFIG", AgentSpec(config=large))

    assert said.strip() == str(len(json.dumps(large)))


async def test_a_variable_that_is_ours_is_not_taken_from_the_owner_and_its_log_says_so(rig: DockerRig) -> None:
    agent = AgentSpec(
        environment={"PORT": "80", "THEME": "dark", "HEADSCALE_URL": "http://evil"},
        secrets={"TS_AUTHKEY": SecretStr("canary")},
    )

    said = (await output_of(rig, "env", agent)).splitlines()

    reserved = ("PORT", "HEADSCALE_URL", "TS_AUTHKEY")
    told = {f"[elizacloud] the variable {name} is reserved and was not set" for name in reserved}
    async with asyncio.timeout(20):
        # Its two streams are not in step with each other.
        async with aclosing(rig.runtime.logs(f"{'b' * 16}.1.1", tail=1000, follow=True)) as lines:
            while told:
                told.discard(await anext(lines))
    assert {"PORT=2138", "THEME=dark"} <= set(said)
    assert not any("evil" in line or "canary" in line for line in said)


@pytest.mark.parametrize("role", list(Role))
async def test_docker_says_that_every_container_is_confined(
    rig: DockerRig, docker_engine: DockerEngine, role: Role
) -> None:
    """Asked of Docker, not of what was asked of Docker."""
    of = labels(agent_id="b" * 16)
    if role is Role.WHOLE:
        async with docker_rig(docker_engine, **EMBEDDED) as embedded:
            await embedded.runtime.create(spec(of))
            _is_confined(embedded, of, role)
    else:
        await rig.runtime.create(spec(of))
        _is_confined(rig, of, role)


def _is_confined(rig: DockerRig, of: Labels, role: Role) -> None:
    shown: Any = rig.shown(of, role)
    host = shown["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges"], "anything else may be an unconfined seccomp"
    assert host["ReadonlyRootfs"] is True
    assert set(host["Tmpfs"]) == {"/tmp", "/run"}
    assert all("nosuid" in options and "size=" in options for options in host["Tmpfs"].values())
    assert {mount["Type"] for mount in shown["Mounts"]} == {"volume"}, "nothing of the host, so no socket of Docker's"
    assert not host["Binds"]
    assert not host["Devices"]
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert not host["PortBindings"]
    assert host["PublishAllPorts"] is False
    assert host["IpcMode"] == "private"
    assert host["UsernsMode"] == ""
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert host["RestartPolicy"]["Name"] == "no"
    assert shown["Config"]["User"] == {Role.TAILNET: "41641:41641"}.get(role, "1000:1000")
    network = rig.engine.get(f"/networks/{network_name(of.installation_id)}")
    assert network["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
    assert network["EnableIPv6"] is False
    if role is not Role.AGENT:
        assert host["NetworkMode"] == network["Name"]
    assert "host" not in (host["NetworkMode"], host["PidMode"], host["IpcMode"])


async def test_orphans_are_reaped_though_the_image_has_no_init(rig: DockerRig) -> None:
    script = "(sleep 0 & echo $! >/tmp/orphan); while [ -e /proc/$(cat /tmp/orphan) ]; do sleep 0.01; done; echo reaped"

    assert (await output_of(rig, script)).splitlines() == ["reaped"]


async def test_containers_do_not_hear_each_other(rig: DockerRig) -> None:
    """Also when an agent listens on every address."""
    ask = "printf 'GET /api/health HTTP/1.0\\r\\n\\r\\n' | timeout 2 nc"
    assert "200 OK" in await output_of(rig, f"httpd -p 0.0.0.0:2138; {ask} 127.0.0.1 2138", agent_id="b" * 16)
    of = labels(agent_id="b" * 16)
    networks = rig.shown(of, Role.TAILNET)["NetworkSettings"]["Networks"]  # type: ignore[index]
    (network,) = networks.values()

    said = await output_of(rig, f"{ask} {network['IPAddress']} 2138 || echo nothing", agent_id="c" * 16)

    assert said.splitlines()[-1] == "nothing"
    assert "200 OK" not in said


async def test_no_port_is_published(rig: DockerRig) -> None:
    await output_of(rig, "true")

    for role in BOTH:
        shown = rig.shown(labels(agent_id="b" * 16), role)
        assert not shown["NetworkSettings"]["Ports"]  # type: ignore[index]
        assert not shown["HostConfig"]["PortBindings"]  # type: ignore[index]


async def test_too_much_memory_ends_the_agent_and_says_so(rig: DockerRig) -> None:
    of = spec(labels(agent_id="b" * 16), command=("/bin/sh", "-c", "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"))
    of = replace(of, agent=replace(of.agent, resources={"memoryBytes": 32 * 1024**2}))
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets())

    async with asyncio.timeout(20):
        async for instance in rig.runtime.watch():
            if instance.ref == ref and instance.reason:
                # Docker forgets it when it hears of the end first, as on a busy machine.
                assert instance.reason in ("agent: out of memory", "agent: exit status 137")
                assert instance.exit_code == 137
                return
