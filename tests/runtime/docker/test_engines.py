"""Docker hosts that are not this machine's own: over TLS, over plain TCP, and those that cannot be used."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from elizacloud.runtime.protocol import Phase
from tests.contract.docker_runtime import options_of
from tests.contract.runtimes import secrets, spec
from tests.docker_engine import SIDECAR_IMAGE, DockerEngine, NoEngine, build_images, own_dockerd


@contextmanager
def own_bridge() -> Iterator[str]:
    """The device that a second dockerd takes for its bridge: with `--bridge=none` it would delete the first one's."""
    if shutil.which("ip") is None:
        pytest.skip("no second dockerd can have a bridge: install iproute2")
    name = f"ec-{os.urandom(4).hex()}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", "198.18.213.1/28", "dev", name], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


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
def remote(docker_engine: DockerEngine, certificates: Path) -> Iterator[str]:
    """The URL of a second dockerd that lets in who has a certificate, with the images."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}
    tls = [f"--{option}={certificates / file}" for option, file in files.items()]
    try:
        with (
            own_bridge() as bridge,
            own_dockerd(
                f"--bridge={bridge}", "--iptables=false", f"--host=tcp://127.0.0.1:{port}", "--tlsverify", *tls
            ) as engine,
        ):
            asyncio.run(build_images(engine))
            yield f"tcp://127.0.0.1:{port}"
    except NoEngine as reason:
        pytest.skip(str(reason))


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
