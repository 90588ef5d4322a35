import asyncio
import datetime
import ipaddress
import resource
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from elizacloud.binaries.download import ATTEMPTS, Remote, download
from elizacloud.binaries.errors import DownloadFailed
from elizacloud.binaries.progress import Update
from elizacloud.processes import Backoff
from tests.binaries.conftest import CONTENT, SHA256, Mirror

HALF = len(CONTENT) // 2
AT_ONCE = Backoff(first_seconds=0, jitter=0)


class Downloading:
    """One place to download into, kept over several attempts."""

    def __init__(self, session: aiohttp.ClientSession, partial: Path) -> None:
        self.session = session
        self.partial = partial
        self.updates: list[Update] = []

    async def __call__(self, url: str, *, sha256: str = SHA256, max_bytes: int = 1 << 30, stall: float = 20) -> bytes:
        remote = Remote("a file", url, sha256, max_bytes)
        timeout = aiohttp.ClientTimeout(total=30, sock_connect=5, sock_read=stall)
        progress = self.updates.append
        file = await download(
            remote, self.partial, session=self.session, progress=progress, timeout=timeout, backoff=AT_ONCE
        )
        assert file == self.partial
        return file.read_bytes()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.partial.parent.iterdir())


@pytest.fixture
async def get(tmp_path: Path) -> AsyncIterator[Downloading]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Downloading(session, tmp_path / "file")


async def test_a_file_comes_whole_with_its_progress(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.whole()]
    assert await get(mirror.url("/file")) == CONTENT
    assert get.left == ["file"]
    first, last = get.updates[0], get.updates[-1]
    assert (first.done, first.total, first.state) == (0, len(CONTENT), "running")
    assert (last.done, last.total, last.state) == (len(CONTENT), len(CONTENT), "done")


async def test_the_expected_digest_may_be_in_capitals(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.whole()]
    assert await get(mirror.url("/file"), sha256=SHA256.upper()) == CONTENT


async def test_a_truncated_download_goes_on_where_it_broke(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF), mirror.whole()]
    assert await get(mirror.url("/file")) == CONTENT
    assert mirror.resumed == [False, True]
    assert mirror.requests[1].headers["If-Range"] == '"one"'


async def test_a_stalled_download_goes_on(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF, stall=True), mirror.whole()]
    assert await get(mirror.url("/file"), stall=0.1) == CONTENT
    assert mirror.resumed == [False, True]


async def test_a_server_that_always_stalls_is_given_up(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(0, stall=True)]
    with pytest.raises(DownloadFailed, match=r"cannot download http.*/file: "):
        await get(mirror.url("/file"), stall=0.05)
    assert len(mirror.requests) == ATTEMPTS


async def test_a_killed_download_is_resumed_by_the_next(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF, stall=True), mirror.whole()]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(get(mirror.url("/file")), name="download")
        await mirror.stalled.wait()
        while not get.partial.exists() or get.partial.stat().st_size == 0:
            await asyncio.sleep(0)
        task.cancel()
    assert get.partial.read_bytes() != CONTENT
    assert get.updates[-1].state == "failed"
    assert await get(mirror.url("/file")) == CONTENT
    assert mirror.resumed == [False, True]


async def test_without_a_validator_nothing_is_resumed(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF, etag=None), mirror.cut(HALF, etag='W/"weak"'), mirror.whole()]
    assert await get(mirror.url("/file")) == CONTENT
    assert mirror.resumed == [False, False, False]


async def test_another_address_is_not_resumed(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF), mirror.status(404), mirror.whole()]
    with pytest.raises(DownloadFailed):
        await get(mirror.url("/old"))
    assert await get(mirror.url("/new")) == CONTENT
    assert mirror.resumed == [False, True, False]


async def test_a_server_that_ignores_ranges_sends_it_again(mirror: Mirror, get: Downloading) -> None:
    async def whole(_: web.Request) -> web.StreamResponse:
        return web.Response(body=CONTENT)

    mirror.answers = [mirror.cut(HALF), whole]
    assert await get(mirror.url("/file")) == CONTENT


async def test_a_file_that_changed_meanwhile_comes_whole(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF, b"\0" * len(CONTENT), etag='"old"'), mirror.whole(etag='"new"')]
    assert await get(mirror.url("/file")) == CONTENT


async def test_a_mix_of_two_files_is_thrown_away(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF, b"\0" * len(CONTENT)), mirror.whole(honest=False)]
    assert await get(mirror.url("/file")) == CONTENT
    assert mirror.resumed == [False, True, False]


async def test_a_part_from_elsewhere_in_the_file_is_thrown_away(mirror: Mirror, get: Downloading) -> None:
    async def shifted(_: web.Request) -> web.StreamResponse:
        headers = {"Content-Range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"}
        return web.Response(status=206, body=CONTENT[5:], headers=headers)

    mirror.answers = [mirror.cut(HALF), shifted, mirror.whole()]
    assert await get(mirror.url("/file")) == CONTENT
    assert mirror.resumed == [False, True, False]


async def test_a_finished_download_that_nobody_verified_is_not_fetched_again(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(HALF), mirror.status(403), mirror.whole()]
    with pytest.raises(DownloadFailed):
        await get(mirror.url("/file"))
    get.partial.write_bytes(CONTENT)
    assert await get(mirror.url("/file")) == CONTENT
    assert mirror.requests[2].headers["Range"] == f"bytes={len(CONTENT)}-"


@pytest.mark.parametrize("size", [0, 1, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1])
async def test_a_corrupt_file_is_never_kept(mirror: Mirror, get: Downloading, size: int) -> None:
    mirror.answers = [mirror.whole(b"\xff" * size)]
    with pytest.raises(DownloadFailed, match=f"and not {SHA256}"):
        await get(mirror.url("/file"))
    assert not get.partial.exists()
    assert len(mirror.requests) == ATTEMPTS


async def test_a_file_announced_too_large_is_refused_unread(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.cut(0, stall=True)]
    with pytest.raises(DownloadFailed, match="larger than 1000 bytes"):
        await get(mirror.url("/file"), max_bytes=1000)
    assert len(mirror.requests) == 1
    assert not get.partial.exists()


async def test_a_file_that_never_ends_is_cut_off(mirror: Mirror, get: Downloading) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(CONTENT)

    mirror.answers = [endless]
    with pytest.raises(DownloadFailed, match="larger than"):
        await get(mirror.url("/file"), max_bytes=3 * len(CONTENT))
    assert not get.partial.exists()


async def test_an_answer_that_is_no_file_fails_at_once(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.status(404)]
    with pytest.raises(DownloadFailed, match="answered 404"):
        await get(mirror.url("/file"))
    assert len(mirror.requests) == 1


async def test_a_server_in_trouble_is_asked_again(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.status(503), mirror.status(429), mirror.whole()]
    assert await get(mirror.url("/file")) == CONTENT


async def test_no_connection_fails_at_once_and_silently(get: Downloading) -> None:
    with pytest.raises(DownloadFailed, match="no connection"):
        await get(f"http://127.0.0.1:{unused_port()}/file")
    assert get.updates == []


async def test_a_full_disk_is_named(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.whole()]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, hard))
    try:
        with pytest.raises(DownloadFailed, match="cannot write"):
            await get(mirror.url("/file"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_redirects_are_followed_and_resumed(mirror: Mirror, get: Downloading) -> None:
    moved = mirror.status(302, {"Location": "/elsewhere"})
    mirror.answers = [moved, mirror.cut(HALF), moved, mirror.whole()]
    assert await get(mirror.url("/file")) == CONTENT
    assert mirror.resumed == [False, False, True, True]


async def test_redirects_in_a_circle_end(mirror: Mirror, get: Downloading) -> None:
    mirror.answers = [mirror.status(302, {"Location": "/file"})]
    with pytest.raises(DownloadFailed, match="redirects"):
        await get(mirror.url("/file"))
    assert len(mirror.requests) == 6


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
async def test_https_never_becomes_something_else(
    mirror: Mirror, get: Downloading, tls: ssl.SSLContext, scheme: str
) -> None:
    """The clear-text server has the right bytes: they are refused for how they would come."""
    mirror.answers = [mirror.whole()]
    there = mirror.url("/file").replace("http:", f"{scheme}:")

    async def redirect(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": there})

    app = web.Application()
    app.router.add_get("/file", redirect)
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server = TestServer(app)
    await server.start_server(ssl=tls)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client)) as session:
            get.session = session
            with pytest.raises(DownloadFailed, match="not https"):
                await get(f"https://127.0.0.1:{server.port}/file")
    finally:
        await server.close()
    assert mirror.requests == []


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
