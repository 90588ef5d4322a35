"""The Dockerfiles of agents that join by themselves, built on bases that this machine has, and run on a real tailnet."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiodocker import Docker

from elizacloud.headscale.bootstrap import ensure_policy
from tests.contract.docker_runtime import docker_rig
from tests.contract.headscale_servers import RealMachine, RealRig, parameters, rig_of
from tests.contract.runtimes import secrets
from tests.docker_engine import SIDECAR_IMAGE, DockerEngine
from tests.runtime.docker.bases import build_base, build_python
from tests.runtime.tailnet import _counted as _counted
from tests.runtime.tailnet import address_of, agent_on, ask, key_for
from tests.runtime.tailnet import relay as relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[3]
NODE_AGENT = """
const http = require('node:http');
const token = process.env.MILADY_API_TOKEN;
http.createServer((request, response) => {
  const known = request.headers.authorization === `Bearer ${token}`;
  response.writeHead(known ? 200 : 401, {'content-type': 'application/json'}).end('{"ready": true}');
}).listen(Number(process.env.PORT), process.env.MILADY_API_BIND);
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=parameters()[1:2])
async def server(request: pytest.FixtureRequest, docker_engine: DockerEngine) -> AsyncIterator[RealRig]:
    gateway = docker_engine.gateway
    async with rig_of(request.param, listen_host=gateway) as rig:
        assert isinstance(rig, RealRig)
        await ensure_policy(rig.headscale)
        yield rig


async def test_the_stub_agent(server: RealRig, relay: RealMachine, docker_engine: DockerEngine) -> None:
    base = "elizacloud-test/python"
    await build_python(docker_engine.url, base, ("httptools", "uvloop"), busybox=_busybox())
    image = "elizacloud-test/stub-agent"
    stub = ROOT / "src" / "elizacloud" / "stub_agent"
    files = {f"src/elizacloud/stub_agent/{path.name}": path.read_bytes() for path in stub.glob("*.py")}
    files["src/elizacloud/__init__.py"] = (stub.parent / "__init__.py").read_bytes()

    await _build(docker_engine, "Dockerfile.stub-agent", image, base, files)

    await _is_an_agent(server, relay, docker_engine, image)


async def test_a_node_agent(server: RealRig, relay: RealMachine, docker_engine: DockerEngine) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    base = "elizacloud-test/node"
    await build_base(docker_engine.url, base, [Path(node)], {}, busybox=_busybox())
    image = "elizacloud-test/node-agent"

    await _build(docker_engine, "Dockerfile.node-agent", image, base, {"dist/index.js": NODE_AGENT.encode()})

    await _is_an_agent(server, relay, docker_engine, image)


async def _build(engine: DockerEngine, dockerfile: str, image: str, base: str, files: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in {dockerfile: (ROOT / "container" / dockerfile).read_bytes(), **files}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    async with Docker(engine.url) as docker:
        await docker.images.build(
            fileobj=buffer,
            encoding="identity",
            path_dockerfile=dockerfile,
            tag=image,
            buildargs={"BASE": base, "SIDECAR": SIDECAR_IMAGE},
        )


async def _is_an_agent(server: RealRig, relay: RealMachine, engine: DockerEngine, image: str) -> None:
    async with docker_rig(engine, agent_image=image, embedded_images=(image,)) as rig:
        of = agent_on(server)
        ref = await rig.runtime.create(of)
        await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))

        _node_id, ip = await address_of(server, of)
        assert await ask(relay, ip) == "HTTP/1.1 200 OK"
        assert await ask(relay, ip, token="another", path="/api/config") == "HTTP/1.1 401 Unauthorized"
        await rig.runtime.stop(ref, grace_seconds=10)
        seen = await rig.runtime.inspect(ref)
        assert seen is not None
        assert seen.reason == "stopped"


def _busybox() -> Path:
    found = shutil.which("busybox")
    assert found is not None, "the engine's images are made of it"
    return Path(found)
