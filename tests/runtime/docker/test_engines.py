"""Docker hosts that are not this machine's own: over TLS, over plain TCP, and those that cannot be used."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from elizacloud.errors import Misconfigured, RuntimeUnavailable
from elizacloud.runtime.docker import DockerRuntime
from elizacloud.runtime.docker.building import content_of_sidecar
from elizacloud.runtime.docker.host import host_of, look_at
from elizacloud.runtime.hosts import Hosts
from elizacloud.runtime.protocol import Phase
from tests.contract.docker_runtime import docker_rig, options_of
from tests.contract.runtimes import HOST_IDS, labels, secrets, spec
from tests.docker_engine import SIDECAR_IMAGE, DockerEngine, NoEngine, build_images, second_dockerd
from tests.ports import free_port


class _Issuer:
    """A certificate authority in memory."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer of a test")])
        self.certificate = self._signed(self._key, self._name, authority=True)

    def write(self, directory: Path) -> None:
        """ca.pem, cert.pem and key.pem, for the daemon at 127.0.0.1 and for who calls it."""
        directory.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "docker")])
        pem = serialization.Encoding.PEM
        (directory / "ca.pem").write_bytes(self.certificate.public_bytes(pem))
        (directory / "cert.pem").write_bytes(self._signed(key, name, authority=False).public_bytes(pem))
        plain = serialization.NoEncryption()
        (directory / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))

    def _signed(self, key: ec.EllipticCurvePrivateKey, name: x509.Name, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls") / "ours"
    _Issuer().write(directory)
    return directory


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def second(docker_engine: DockerEngine, port: int, certificates: Path) -> Iterator[DockerEngine]:
    """A second dockerd, with the images."""
    files = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}
    tls = [f"--{option}={certificates / file}" for option, file in files.items()]
    try:
        with second_dockerd(f"--host=tcp://127.0.0.1:{port}", "--tlsverify", *tls) as engine:
            asyncio.run(build_images(engine))
            yield engine
    except NoEngine as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def remote(second: DockerEngine, port: int) -> str:
    """The URL at which it lets in who has a certificate."""
    return f"tcp://127.0.0.1:{port}"


async def test_agents_run_on_a_docker_over_tls(
    remote: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    runtime = DockerRuntime(remote, options_of())
    try:
        ref = await runtime.create(spec())
        await runtime.start(ref, secrets())
        seen = await runtime.inspect(ref)
        assert seen is not None
        assert seen.phase is Phase.RUNNING
        async with asyncio.timeout(20):
            async for line in runtime.logs(ref, tail=10, follow=True):
                assert line == "started"
                break
        assert (await runtime.usage(ref)).memory_bytes > 0
        async with asyncio.timeout(20):
            assert (await anext(aiter(runtime.watch()))).ref == ref
        await runtime.remove(ref, volume=True)
        assert await runtime.list("one") == []
    finally:
        await runtime.close()
        async with Docker(remote) as docker:
            with suppress(DockerError):
                await (await docker.networks.get("elizacloud-one")).delete()


@pytest.mark.timeout(180)
async def test_agents_live_on_two_dockers_and_one_is_killed(
    docker_engine: DockerEngine,
    second: DockerEngine,
    remote: str,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    assert second.daemon is not None
    (here, there), (ann, bob) = HOST_IDS, ("a" * 16, "b" * 16)
    big = DockerRuntime(remote, options_of())
    try:
        async with docker_rig(docker_engine) as rig:
            hosts = Hosts({here: rig.runtime, there: big})
            refs = [await hosts.create(spec(labels(agent_id=agent_id))) for agent_id in (ann, bob)]
            for ref in refs:
                await hosts.start(ref, secrets())
            assert [instance.ref for instance in await hosts.list("one")] == refs
            assert [instance.ref for instance in await big.list("one")] == [refs[1].removeprefix(f"{there}/")]
            volumes = await hosts.list_volumes("one")
            assert [volume.agent_id for volume in volumes] == [ann, bob]

            await asyncio.to_thread(second.daemon.kill)
            for look in (hosts.list("one"), hosts.list_volumes("one"), hosts.inspect(refs[1])):
                with pytest.raises(RuntimeUnavailable):
                    await look
            await hosts.stop(refs[0], grace_seconds=0)
            refs[0] = await hosts.create(spec(labels(agent_id=ann, run=2)))
            await hosts.start(refs[0], secrets())
            assert [instance.phase for instance in await hosts.on(here).list("one")] == [Phase.RUNNING]

            await asyncio.to_thread(second.daemon.start)
            assert [instance.ref for instance in await hosts.list("one")] == refs
            assert await hosts.list_volumes("one") == volumes
            await hosts.stop(refs[1], grace_seconds=0)
            refs[1] = await hosts.create(spec(labels(agent_id=bob, run=2)))
            await hosts.start(refs[1], secrets())
            assert [instance.phase for instance in await hosts.list("one")] == [Phase.RUNNING] * 2
            await hosts.remove(refs[1], volume=True)
            assert await hosts.on(there).list_volumes("one") == []
    finally:
        await big.close()
        async with Docker(remote) as docker:
            for container in await docker.containers.list(all=True):
                await container.delete(force=True, v=True)
            with suppress(DockerError):
                await (await docker.networks.get("elizacloud-one")).delete()


async def test_an_image_is_built_on_a_docker_over_tls(
    remote: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))

    host = await look_at(remote, SIDECAR_IMAGE)

    assert host.version
    assert host.sidecar_content


async def test_who_has_no_certificate_of_its_issuer_is_not_let_in(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Issuer().write(tmp_path / "another")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path / "another"))

    with pytest.raises(RuntimeUnavailable, match="certificate"):
        await look_at(remote, SIDECAR_IMAGE)


@pytest.mark.parametrize("url", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
async def test_a_docker_that_does_not_answer_is_unavailable(url: str) -> None:
    with pytest.raises(RuntimeUnavailable):
        await look_at(url, SIDECAR_IMAGE)


async def test_tls_without_certificates_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))

    with pytest.raises(Misconfigured, match="DOCKER_CERT_PATH"):
        await look_at("tcp://127.0.0.1:1", SIDECAR_IMAGE)


def test_what_a_host_says_of_itself() -> None:
    info = {
        "ServerVersion": "28.0.0",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
        "MemoryLimit": True,
        "CpuCfsQuota": False,
        "PidsLimit": True,
    }
    bridge = {"IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]}}

    rootless = host_of(info, bridge, {"Config": {"Labels": {"elizacloud.content": "abc"}}})
    assert (rootless.version, rootless.rootless, rootless.seccomp) == ("28.0.0", True, True)
    assert rootless.limits_missing == ("CPU",)
    assert (rootless.gateway, rootless.sidecar_content) == ("172.17.0.1", "abc")

    just_made = {"IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}}
    assert host_of(info, just_made, None).gateway == "172.17.0.1"
    bare = host_of({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, None, None)
    assert (bare.seccomp, bare.rootless, bare.gateway, bare.sidecar_content) == (False, False, None, None)
    assert host_of(info, bridge, {"Config": {}}).sidecar_content == ""


async def test_the_sidecars_image_says_of_what_it_was_built(docker_engine: DockerEngine) -> None:
    host = await look_at(docker_engine.url, SIDECAR_IMAGE)

    busybox = shutil.which("busybox")
    assert busybox is not None
    tailscaled = Path(os.environ["ELIZACLOUD_TAILSCALED_BIN"]).resolve()
    assert host.sidecar_content == content_of_sidecar(busybox=Path(busybox), tailscaled=tailscaled)
