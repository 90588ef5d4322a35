"""A relay worker over real sockets: a hub, a link, a tailscaled that speaks `dial`, agents behind it, raw clients."""

import asyncio
import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from pydantic import SecretStr

from elizacloud.auth.tokens import token_sha256
from elizacloud.model import Scope, agent_tag, utc_now
from elizacloud.relay.access_log import AccessLog
from elizacloud.relay.dialling.dial import LocalApiDialer
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.link.hub import Hub
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.tls import ServerCertificate
from elizacloud.relay.turns import _MOST_AHEAD, Turns
from elizacloud.relay.worker import Worker, WorkerSettings
from elizacloud.tailnet.netmap import Netmap
from elizacloud.upstreams import KnownAgent, KnownToken, Upstream
from tests.relay.link.conftest import CIPHER, Heard

AGENT = "kagent0000000001"
OTHER_AGENT = "kagent0000000002"
OWNER = "owner"
TOKEN = "ec_tokenid00001_ownersecret"
STRANGERS_TOKEN = "ec_tokenid00002_strangersecret"
SERVICE_TOKEN = "ec_tokenid00003_servicesecret"
BOUND_TOKEN = "ec_tokenid00004_boundsecret"
EXPIRED_TOKEN = "ec_tokenid00005_expiredsecret"
AGENT_TOKEN = "eca_agentsowntoken"
IP = "100.64.0.7"
OWN_IP = "100.64.0.1"

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop that workers run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def upstream(**changes: object) -> Upstream:
    return replace(Upstream(AGENT, OWNER, 1, 1, "cell", "7", IP, SecretStr(AGENT_TOKEN)), **changes)  # type: ignore[arg-type]


def known_token(value: str, number: int, **changes: object) -> KnownToken:
    token = KnownToken(f"tokenid0000{number}", token_sha256(value), OWNER, frozenset({Scope.OWNER}))
    return replace(token, **changes)  # type: ignore[arg-type]


class Tailscaled:
    """Answers `dial` on a unix socket as tailscaled does, and leads each address to a handler of the test's."""

    def __init__(self) -> None:
        self.hosts: dict[str, Handler] = {}
        self.dials: list[str] = []
        self.dialled = asyncio.Event()
        self.hold = asyncio.Event()
        """Clear it to keep dials waiting before they are connected."""
        self.hold.set()
        self.opened: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened.add(writer)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in request.decode().split("\r\n")[1:-2])
            assert request.startswith(b"POST /localapi/v0/dial HTTP/1.1\r\n")
            assert headers["Upgrade"] == "ts-dial"
            ip = headers["Dial-Host"]
            handler = self.hosts.get(ip)
            self.dials.append(f"{ip}:{headers['Dial-Port']}")
            self.dialled.set()
            await self.hold.wait()
            if handler is None:
                writer.write(b"HTTP/1.1 200 OK\r\nDial-Self: true\r\nContent-Length: 0\r\n\r\n")
            elif handler is refuse:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 18\r\n\r\nconnection refused")
            else:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n")
                await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.opened.discard(writer)
            writer.close()


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stands for a host where nothing listens."""


@dataclass
class RawAgent:
    """Keeps every head it got; answers with what the test says, byte for byte, and then takes the next request."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The relay closed a connection."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answer)
                await writer.drain()
        writer.close()
        self.gone.set()

    @property
    def lines(self) -> list[bytes]:
        """The lines of the last head."""
        return self.heads[-1].split(b"\r\n")[:-2]


def to_unix(path: Path) -> Handler:
    """Lead a dial to a server on a unix socket, as `tailscale serve` does."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(path)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump(reader, there_writer), name="up")
            tasks.create_task(pump(there_reader, writer), name="down")

    return handle


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    head: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None


class RawClient:
    """Bytes at the worker's socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, data: bytes, *, head_only: bool = False) -> Answer:
        self.send(data)
        return await self.answer(head_only=head_only)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next whole answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:-2])]
        answer = Answer(status, headers, b"", head)
        if head_only or status < 200 or status in (204, 304):
            return answer
        if answer.header("Transfer-Encoding") == "chunked":
            answer.body = await self._chunks()
        elif (length := answer.header("Content-Length")) is not None:
            answer.body = await self.reader.readexactly(int(length))
        else:
            answer.body = await self.reader.read()
        return answer

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        while (await self.reader.readuntil(b"\r\n")) != b"\r\n":
            pass
        return body

    async def at_end(self) -> bool:
        """True when the worker closed the connection with nothing more to say."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.writer.close()


class Cloud:
    """One worker with all that it needs; `agents` are served by the fake tailscaled."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.tailscaled = Tailscaled()
        self.heard = Heard()
        self.hub = Hub("e1", self.heard)
        self.netmap = Netmap()
        self.metrics = Metrics()
        self.logged: list[str] = []
        self.certificate: ServerCertificate | None = None
        self.api = RawAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napi")
        self.worker: Worker
        self.link: LinkClient
        self.port = 0
        self._clients: list[RawClient] = []

    def peers(self, *peers: tuple[str, str, tuple[str, ...]]) -> None:
        """The whole tailnet from now on: node id, address, tags of each peer. Told to the worker as the watcher does."""
        changes = self.netmap.apply(
            {
                "InitialStatus": {
                    "TailscaleIPs": [OWN_IP],
                    "Peer": {
                        f"nodekey:{node_id}": {
                            "ID": node_id,
                            "PublicKey": f"nodekey:{node_id}",
                            "TailscaleIPs": [ip],
                            "Tags": list(tags),
                            "Online": True,
                            "HostName": "h",
                        }
                        for node_id, ip, tags in peers
                    },
                }
            }
        )
        self.worker.netmap_changed(changes)

    def agent_joined(self, agent_id: str = AGENT, node_id: str = "7", ip: str = IP) -> None:
        self.peers((node_id, ip, ("tag:agent", agent_tag(agent_id))))

    def agent(self, handler: Handler, ip: str = IP) -> None:
        self.tailscaled.hosts[ip] = handler

    async def told(self) -> None:
        """Return when the worker's table is the hub's."""
        async with asyncio.timeout(20):
            while self.link.table.revision != self.hub.snapshot().revision or not self.link.linked:
                await asyncio.sleep(0)

    async def log_lines(self, count: int) -> list[dict[str, Any]]:
        """The access log, once it has so many lines."""
        async with asyncio.timeout(20):
            while "".join(self.logged).count("\n") < count:
                await asyncio.sleep(0)
        return [json.loads(line) for line in "".join(self.logged).splitlines()]

    async def client(self, port: int | None = None) -> RawClient:
        """A connection to the worker, or to another one's port."""
        client = RawClient(*await asyncio.open_connection("127.0.0.1", port or self.port))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes) -> Answer:
        client = await self.client()
        async with asyncio.timeout(10):
            answer = await client.ask(data, head_only=data.startswith(b"HEAD "))
        client.close()
        return answer

    @asynccontextmanager
    async def running(self, **options: object) -> AsyncIterator["Cloud"]:
        settings = WorkerSettings("agents.test", self.run_dir / "api", "cell", **options)  # type: ignore[arg-type]
        self.link = LinkClient(
            self.run_dir / "link", self.run_dir / "table", CIPHER, name="w0", offline_grace_seconds=60
        )
        self.worker = Worker(
            settings,
            self.link,
            self.netmap,
            LocalApiDialer(self.run_dir / "tailscaled"),
            self.metrics,
            access_log=AccessLog(settings.access_log, write=self.logged.append),
            certificate=self.certificate,
        )
        self.hub.load([upstream()], [], TOKENS)
        self.agent_joined()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        async with contextlib.AsyncExitStack() as stack:
            for name, handler in (("tailscaled", self.tailscaled.serve), ("api", self.api)):
                server = await asyncio.start_unix_server(handler, self.run_dir / name)
                stack.callback(server.close)
            await stack.enter_async_context(self.hub.serve(self.run_dir / "link"))
            started = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self.worker.run([listener], started=started.set), name="worker")
                try:
                    await started.wait()
                    await self.told()
                    yield self
                finally:
                    running.cancel()
                    self.tailscaled.hold.set()
                    for client in self._clients:
                        client.close()
            for writer in tuple(self.tailscaled.opened):
                writer.close()
            for _ in range(5):
                await asyncio.sleep(0)  # what was closed is let go of in the next turns of the loop


TOKENS = [
    known_token(TOKEN, 1),
    known_token(STRANGERS_TOKEN, 2, owner_id="stranger"),
    known_token(SERVICE_TOKEN, 3, owner_id="platform", scopes=frozenset({Scope.SERVICE})),
    known_token(BOUND_TOKEN, 4, agent_id=OTHER_AGENT, scopes=frozenset({Scope.RELAY})),
    known_token(EXPIRED_TOKEN, 5, expires_at=utc_now() - timedelta(seconds=1)),
]


@pytest.fixture
async def cloud(run_dir: Path) -> AsyncIterator[Cloud]:
    async with Cloud(run_dir).running() as running:
        yield running


@pytest.fixture
def agent(cloud: Cloud) -> RawAgent:
    """The cloud's agent, which answers everything alike and keeps the heads that reached it."""
    agent = RawAgent()
    cloud.agent(agent)
    return agent


async def soon(awaited: Awaitable[T]) -> T:
    """Its result, which must come within 5 s."""
    async with asyncio.timeout(20):
        return await awaited


def let_all_wait(turns: Turns) -> None:
    """What comes from now on waits in the line, and the loop is not asked to look: the test does it."""
    turns._left = 0.0
    turns._went_ahead.update(map(str, range(_MOST_AHEAD)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def request(
    path: str = "/",
    *,
    method: str = "GET",
    headers: str = "",
    body: bytes = b"",
    token: str = TOKEN,
    agent: str = AGENT,
) -> bytes:
    """A request to an agent by the path front."""
    head = f"{method} /api/relay/{agent}{path} HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def asleep(agent_id: str = AGENT, state: str = "paused", *, wakeable: bool = False) -> KnownAgent:
    coming = state in ("requested", "keyed", "started", "joined")
    return KnownAgent(agent_id, OWNER, state, "asleep", wakeable=wakeable, coming=coming)
