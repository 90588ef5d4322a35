"""TLS at the relay's own listener, with certificates that are made here."""

import asyncio
import contextlib
import datetime
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from elizacloud.errors import Misconfigured
from elizacloud.relay.limits import LimitSettings
from elizacloud.relay.tls import ServerCertificate
from tests.relay.conftest import Cloud, RawAgent, RawClient, request, soon


def write_pair(directory: Path, *, password: bytes | None = None, name: str = "relay") -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("relay.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    files = directory / f"{name}.crt", directory / f"{name}.key"
    pem = serialization.Encoding.PEM
    texts = certificate.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption)
    for file, text in zip(files, texts, strict=True):
        new = file.with_suffix(".new")
        new.write_bytes(text)
        os.replace(new, file)  # another inode, as renewers do it
    return files


@asynccontextmanager
async def running(run_dir: Path, certificate: ServerCertificate) -> AsyncIterator[Cloud]:
    cloud = Cloud(run_dir)
    cloud.certificate = certificate
    async with cloud.running():
        cloud.agent(RawAgent())
        yield cloud


async def connect(cloud: Cloud, context: ssl.SSLContext | None = None) -> RawClient:
    if context is None:
        context = ssl.create_default_context(cafile=str(cloud.run_dir / "relay.crt"))
        context.set_alpn_protocols(["h2", "http/1.1"])
    return RawClient(*await asyncio.open_connection("127.0.0.1", cloud.port, ssl=context, server_hostname="relay.test"))


def serial(client: RawClient) -> bytes:
    return bytes(client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


async def test_requests_and_uploads_pass_over_tls(run_dir: Path) -> None:
    async with running(run_dir, ServerCertificate(*write_pair(run_dir))) as cloud:
        agent = RawAgent()
        cloud.agent(agent)
        client = await connect(cloud)
        assert (await soon(client.ask(request()))).body == b"ok"
        assert b"X-Forwarded-Proto: https" in agent.lines
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        refused = await soon(client.ask(request(token="ec_no_no", method="POST", headers="Content-Length: 5\r\n")))
        assert (refused.status, refused.header("Connection")) == (401, "close")
        client.close()


async def test_long_bodies_pass_over_tls_both_ways(run_dir: Path) -> None:
    body = bytes(range(256)) * 4_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + await reader.readexactly(len(body)))

    async with running(run_dir, ServerCertificate(*write_pair(run_dir))) as cloud:
        cloud.agent(echo)
        client = await connect(cloud)
        client.send(request(method="POST", headers=f"Content-Length: {len(body)}\r\n", body=body))
        async with asyncio.timeout(30):
            assert (await client.answer()).body == body
        client.close()


async def test_old_versions_are_refused(run_dir: Path) -> None:
    certificate = ServerCertificate(*write_pair(run_dir))
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
    async with running(run_dir, certificate) as cloud:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=str(run_dir / "relay.crt"))
            context.minimum_version = context.maximum_version = version
            client = await connect(cloud, context)
            assert (await soon(client.ask(request()))).status == 200
            client.close()


async def test_plain_http_gets_nowhere(run_dir: Path) -> None:
    async with running(run_dir, ServerCertificate(*write_pair(run_dir))) as cloud:
        client = await cloud.client()
        client.send(request())
        assert not (await soon(client.reader.read())).startswith(b"HTTP")
        assert cloud.tailscaled.dials == []


async def test_an_address_has_a_share_of_handshakes(run_dir: Path) -> None:
    cloud = Cloud(run_dir)
    cloud.certificate = ServerCertificate(*write_pair(run_dir))
    async with cloud.running(limits=LimitSettings(headless_per_address=2)):
        cloud.agent(RawAgent())
        silent = [socket.create_connection(("127.0.0.1", cloud.port)) for _ in range(2)]
        with pytest.raises(OSError):  # closed or reset, and ssl tells it in several ways
            await connect(cloud)
        for each in silent:
            each.close()
        for _ in range(3):
            client = await connect_again(cloud)
            assert (await client.ask(request())).status == 200
            client.close()


async def connect_again(cloud: Cloud) -> RawClient:
    """As soon as the relay has seen the others leave."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                return await connect(cloud)


async def test_a_renewed_certificate_is_taken_and_open_connections_stay(run_dir: Path) -> None:
    certificate = ServerCertificate(*write_pair(run_dir))
    async with running(run_dir, certificate) as cloud:
        before = await connect(cloud)
        assert not certificate.refresh()
        write_pair(run_dir)
        assert certificate.refresh()
        after = await connect(cloud)
        assert serial(before) != serial(after)
        for client in (before, after):
            assert (await soon(client.ask(request()))).status == 200
            client.close()


async def test_a_pair_that_does_not_fit_leaves_the_old_one(run_dir: Path) -> None:
    certificate = ServerCertificate(*write_pair(run_dir))
    trusting_the_old = ssl.create_default_context(cafile=str(run_dir / "relay.crt"))
    async with running(run_dir, certificate) as cloud:
        other, _ = write_pair(run_dir, name="other")
        os.replace(other, run_dir / "relay.crt")
        assert not certificate.refresh()
        (run_dir / "relay.key").unlink()
        assert not certificate.refresh()
        assert not certificate.refresh()
        client = await connect(cloud, trusting_the_old)
        assert (await soon(client.ask(request()))).status == 200
        client.close()
        write_pair(run_dir)
        assert certificate.refresh()


def test_what_cannot_be_used_is_said_at_the_start(run_dir: Path) -> None:
    certificate, key = write_pair(run_dir)
    with pytest.raises(Misconfigured, match="cannot serve TLS"):
        ServerCertificate(certificate, run_dir / "absent.key")
    with pytest.raises(Misconfigured, match="cannot serve TLS"):
        ServerCertificate(certificate, write_pair(run_dir, name="other")[1])
    with pytest.raises(Misconfigured, match="encrypted"):
        ServerCertificate(*write_pair(run_dir, name="locked", password=b"secret"))
    assert key.exists()
