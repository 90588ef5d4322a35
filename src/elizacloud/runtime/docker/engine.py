"""The Docker Engine API by aiodocker: a deadline on every call, and its errors as ours, mapped here and nowhere else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from elizacloud.errors import Misconfigured, NotFound, RuntimeRefused, RuntimeUnavailable

if TYPE_CHECKING:
    from elizacloud.runtime.docker.ssh import SshHost

CALL_SECONDS = 30.0
CONFLICT = "docker_conflict"
_UNREACHABLE = 900  # aiodocker's own, beside HTTP's


class Engine:
    """One Docker, at a URL as DOCKER_HOST has it; TLS as DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say. Made without I/O;
    `close` when done."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._docker: Docker | None = None
        self._ssh: SshHost | None = None

    @asynccontextmanager
    async def asked(self, what: str, *, within_seconds: float = CALL_SECONDS) -> AsyncIterator[Docker]:
        """Calls that are answered soon. `what` completes "cannot ...".

        Raises NotFound, RuntimeRefused (`docker_conflict` for what exists already), RuntimeUnavailable, and Misconfigured for a
        URL that leads nowhere.
        """
        if self._docker is None:
            self._docker = self._open()
        with self._as_ours(what):
            async with asyncio.timeout(within_seconds):
                yield self._docker

    @asynccontextmanager
    async def streaming(self, what: str) -> AsyncIterator[Docker]:
        """A connection of its own, for an answer without an end; closing it is the only way to stop one."""
        docker = self._open()
        answers: list[aiohttp.ClientResponse] = []

        async def keep(_session: object, _context: object, call: aiohttp.TraceRequestEndParams) -> None:
            answers.append(call.response)

        # aiodocker leaves an answer that was not read to its end to the garbage collector.
        tracing = aiohttp.TraceConfig()
        tracing.on_request_end.append(keep)
        tracing.freeze()
        docker.session.trace_configs.append(tracing)
        try:
            with self._as_ours(what):
                yield docker
        finally:
            for answer in answers:
                answer.close()
            await _close(docker)

    @asynccontextmanager
    async def events(self, what: str, **wanted: object) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        """Docker's events from when it answers on, and those since `since` before; they end with an error or with Docker.

        Not aiodocker's subscription: that begins before Docker answers, and is made anew, unsaid, when Docker goes until then.
        """
        async with self.streaming(what) as docker:
            async with (
                asyncio.timeout(CALL_SECONDS),
                docker._query("events", params=cast(dict[str, Any], wanted), timeout=None) as answer,
            ):
                pass  # it stays open until the stream is closed
            yield (json.loads(line) async for line in answer.content)

    async def has_file(self, container_id: str, path: str) -> bool:
        """Whether a container, running or not, has something at this path."""
        try:
            async with self.asked("look into the instance") as docker:
                call = docker._query(f"containers/{container_id}/archive", method="HEAD", params={"path": path})
                async with call:
                    return True
        except (NotFound, ValueError):  # aiodocker reads an error's JSON, which an answer to HEAD does not have
            return False

    async def close(self) -> None:
        if self._docker is not None:
            await _close(self._docker)
        if self._ssh is not None:
            await self._ssh.close()

    def _open(self) -> Docker:
        try:
            return self._by_ssh() if self.url.startswith("ssh://") else Docker(self.url)
        except (ValueError, OSError, ImportError, DockerError) as error:
            raise Misconfigured(
                f"cannot use Docker at {_without_password(self.url)}: {error}; TLS needs ca.pem, cert.pem and key.pem in "
                "DOCKER_CERT_PATH, and ssh the packages of elizacloud[ssh]"
            ) from error

    def _by_ssh(self) -> Docker:
        from elizacloud.runtime.docker.ssh import SshConnector, SshHost  # needs what is installed for ssh alone

        if self._ssh is None:
            self._ssh = SshHost(self.url)
        docker = Docker("unix://localhost", connector=SshConnector(self._ssh))
        docker._connection_info = self.url
        return docker

    @contextmanager
    def _as_ours(self, what: str) -> Iterator[None]:
        try:
            yield
        except DockerError as error:
            if error.status == 404:
                raise NotFound(f"cannot {what}: {error.message}") from error
            if error.status in (_UNREACHABLE, 503):
                raise self._unavailable(what, error.message) from error
            code = CONFLICT if error.status == 409 else None
            raise RuntimeRefused(f"cannot {what}: Docker says: {error.message}", code=code) from error
        except TimeoutError as error:
            raise self._unavailable(what, "it did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(what, str(error) or type(error).__name__) from error

    def _unavailable(self, what: str, why: str) -> RuntimeUnavailable:
        if self._ssh is not None and self._ssh.said:
            why = self._ssh.said
        return RuntimeUnavailable(f"cannot {what}: Docker at {self.url} cannot be reached: {why}; is it running?")


def _without_password(url: str) -> str:
    return re.sub(r":[^:@/]*@", "@", url)


async def _close(docker: Docker) -> None:
    await docker.close()
    await docker.connector.close()  # when we made it, aiodocker leaves it to us


def unix_time(moment: str) -> str:
    """Docker's RFC 3339 with nanoseconds as the seconds that it wants to be asked with, to the nanosecond."""
    seconds, _, fraction = moment.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(f"{seconds}+00:00").timestamp()
    return f"{whole:.0f}.{fraction or 0}"
