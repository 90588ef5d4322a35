"""A Docker host by ssh: each connection to Docker is a session of its sshd that runs `docker system dial-stdio`.

Not aiodocker's connector for it: that ends a session while what was handed over is still on its way, logs in anew for each
stream, has one connection for all other sessions, of which an sshd takes ten, and keeps to itself what the host said.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import asyncssh
from aiohttp.client_proto import ResponseHandler

COMMAND = "docker system dial-stdio"
SESSIONS_MOST = 8
"""Of one connection. An sshd takes ten unless it is told otherwise (MaxSessions), and one that ended counts a moment longer."""
LOGIN_SECONDS = 15.0
END_SECONDS = 30.0
"""For what was handed over, to arrive when we are done; and when all is closed."""
CLOSE_SECONDS = 5.0
ALIVE_SECONDS = 15.0
"""Three of these without an answer are a host that is gone, which a stream of events would not notice."""
KEPT_SECONDS = 60.0
"""A connection that nobody uses: to begin a session, the host starts a shell and a `docker`."""
PIECE_BYTES = 64 * 1024

Process = asyncssh.SSHClientProcess[bytes]


@dataclass(eq=False, slots=True)
class Link:
    """One connection, logged in."""

    connection: asyncssh.SSHClientConnection
    sessions: int = 0
    most: int = SESSIONS_MOST

    @property
    def has_room(self) -> bool:
        return self.sessions < self.most and not self.connection.is_closed()


@dataclass(eq=False)
class SshHost:
    """Made without I/O; `close` when done. What ssh is to know beside the URL stands in ~/.ssh, as for ssh itself.

    Raises ValueError for a URL that names no host, or a password.
    """

    url: str
    said: str = ""
    """What the last session said that came to nothing; empty after one that came to something."""
    _links: list[Link] = field(default_factory=list)
    _logging_in: asyncio.Lock = field(default_factory=asyncio.Lock)
    _sessions: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not parts.hostname:
            raise ValueError("its URL names no host")
        if parts.password is not None:
            raise ValueError("its URL has a password; let a key of ~/.ssh in instead")

    async def dial(self, protocol: Callable[[], ResponseHandler]) -> ResponseHandler:
        """A connection to Docker. Raises OSError, asyncssh.Error, and ValueError for what stands in ~/.ssh."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            opened = loop.create_future()
            # Of its own: a session that nobody waits for any longer has to be opened all the same, to be closed.
            session = asyncio.create_task(self._session(theirs, opened), name=f"session of {self.url}")
            self._sessions.add(session)
            session.add_done_callback(self._sessions.discard)
            await opened
            _, made = await loop.create_unix_connection(protocol, sock=ours)
        except BaseException:
            ours.close()
            raise
        return made

    async def close(self) -> None:
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=CLOSE_SECONDS)
        links, self._links = self._links, []
        for link in links:
            link.connection.close()
        for session in self._sessions:
            session.cancel()
        for link in links:
            await link.connection.wait_closed()

    async def _session(self, theirs: socket.socket, opened: asyncio.Future[None]) -> None:
        with theirs:
            try:
                link, process = await self._open()
            except Exception as error:
                if not opened.cancelled():
                    opened.set_exception(error)
                return
            except BaseException:
                opened.cancel()
                raise
            try:
                if not opened.cancelled():
                    opened.set_result(None)
                    await self._carry(process, theirs)
            finally:
                process.close()
                self._end(link)

    async def _open(self) -> tuple[Link, Process]:
        while True:
            link = self._with_room() or await self._another()
            link.sessions += 1
            try:
                return link, await link.connection.create_process(COMMAND, encoding=None)
            except BaseException as error:
                self._end(link)
                if not isinstance(error, asyncssh.ChannelOpenError) or link.sessions == 0:
                    raise
                link.most = link.sessions  # its sshd takes fewer than others

    def _with_room(self) -> Link | None:
        return next((link for link in self._links if link.has_room), None)

    async def _another(self) -> Link:
        """One at a time: an sshd sends away, at random, who comes while many have not logged in yet (MaxStartups)."""
        async with self._logging_in:
            if (link := self._with_room()) is not None:
                return link
            parts = urlsplit(self.url)
            connection = await asyncssh.connect(
                parts.hostname or "",
                parts.port or (),
                username=parts.username or (),
                connect_timeout=LOGIN_SECONDS,
                login_timeout=LOGIN_SECONDS,
                keepalive_interval=ALIVE_SECONDS,
            )
            self._links.append(link := Link(connection))
            return link

    def _end(self, link: Link) -> None:
        """Of one session. Its connection goes with the last, when it is not the only one."""
        link.sessions -= 1
        if link.sessions == 0 and link in self._links and (link.connection.is_closed() or len(self._links) > 1):
            self._links.remove(link)
            link.connection.close()

    async def _carry(self, process: Process, theirs: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._to_docker(process, reader), name="to docker")
                tasks.create_task(self._from_docker(process, writer), name="from docker")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _to_docker(self, process: Process, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, asyncssh.Error):
            while piece := await reader.read(PIECE_BYTES):
                process.stdin.write(piece)
                await process.stdin.drain()
            process.stdin.write_eof()
        # It ends by itself, once what was handed over has arrived.
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await process.wait_closed()
        process.close()

    async def _from_docker(self, process: Process, writer: asyncio.StreamWriter) -> None:
        came = False
        with suppress(OSError, asyncssh.Error):
            while piece := await process.stdout.read(PIECE_BYTES):
                came = True
                with suppress(OSError):  # nobody reads it; but until it is read, the session does not end
                    writer.write(piece)
                    await writer.drain()
        said = b""
        with suppress(OSError, asyncssh.Error):
            said = await process.stderr.read()
        self.said = "" if came else " ".join(said.decode(errors="replace").split())[-500:]
        writer.close()


class SshConnector(aiohttp.BaseConnector):
    """Connections to the Docker of a host, for one client."""

    allowed_protocol_schema_set = aiohttp.BaseConnector.allowed_protocol_schema_set | {"unix"}

    def __init__(self, host: SshHost) -> None:
        super().__init__(keepalive_timeout=KEPT_SECONDS)
        self._host = host

    async def _create_connection(self, req: object, traces: object, timeout: object) -> ResponseHandler:
        try:
            return await self._host.dial(self._factory)
        except (OSError, ValueError, asyncssh.Error) as error:
            raise aiohttp.ClientConnectionError(str(error) or type(error).__name__) from error
