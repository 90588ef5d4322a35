"""ProcessRuntime: the client of the process host. Holds nothing: a control plane that restarts sees the same instances."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp

from elizacloud.errors import NotFound, RuntimeRefused, RuntimeUnavailable
from elizacloud.processes import Backoff
from elizacloud.runtime.process.wire import INSTANCE, INSTANCES, SECRETS, SPEC, USAGE, VOLUMES, decode, encode
from elizacloud.runtime.protocol import Instance, InstanceSecrets, InstanceSpec, Usage, Volume

CALL_SECONDS = 30.0
LOOK_SECONDS = 0.02
LINE_LIMIT_BYTES = 256 * 1024
BACKOFF = Backoff(first_seconds=0.1, cap_seconds=5.0, jitter=0.0)


class ProcessRuntime:
    """Implements runtime/protocol.py. Made without I/O; `close()` when done."""

    kind = "process"
    isolates = False

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def until_ready(self, *, within_seconds: float) -> None:
        """Return when the host answers. Raises RuntimeUnavailable when it does not in time."""
        try:
            async with asyncio.timeout(within_seconds):
                while True:
                    try:
                        await self.list("")
                        return
                    except RuntimeUnavailable:
                        await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            raise RuntimeUnavailable(f"cannot reach the process host at {self._socket}: it does not listen") from error

    async def create(self, spec: InstanceSpec) -> str:
        return str(json.loads(await self._call("POST", "instances", encode(SPEC, spec)))["ref"])

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        await self._call("POST", f"{_path(ref)}/start", encode(SECRETS, secrets))

    async def pause(self, ref: str) -> None:
        await self._call("POST", f"{_path(ref)}/pause")

    async def resume(self, ref: str) -> None:
        await self._call("POST", f"{_path(ref)}/resume")

    async def stop(self, ref: str, *, grace_seconds: float) -> None:
        await self._call(
            "POST", f"{_path(ref)}/stop?grace={grace_seconds:f}", within_seconds=CALL_SECONDS + grace_seconds
        )

    async def remove(self, ref: str, *, volume: bool) -> None:
        await self._call("DELETE", f"{_path(ref)}?volume={int(volume)}")

    async def inspect(self, ref: str) -> Instance | None:
        try:
            return decode(INSTANCE, await self._call("GET", _path(ref)))
        except NotFound:
            return None

    async def list_volumes(self, installation_id: str, *, agent_id: str | None = None) -> list[Volume]:
        query = {"installation": installation_id} | ({} if agent_id is None else {"agent": agent_id})
        return decode(VOLUMES, await self._call("GET", f"volumes?{urlencode(query)}"))

    async def list(self, installation_id: str) -> list[Instance]:
        return decode(INSTANCES, await self._call("GET", f"instances?installation={quote(installation_id, safe='')}"))

    async def logs(self, ref: str, *, tail: int, follow: bool) -> AsyncGenerator[str, None]:
        async with aclosing(self._lines(f"{_path(ref)}/logs?tail={tail}&follow={int(follow)}")) as lines:
            async for line in lines:
                yield line.decode(errors="replace")

    async def usage(self, ref: str) -> Usage:
        return decode(USAGE, await self._call("GET", f"{_path(ref)}/usage"))

    async def watch(self) -> AsyncGenerator[Instance, None]:
        """Goes on when the host restarts, and then begins again with every instance as it is."""
        failures = 0
        while True:
            try:
                async with aclosing(self._lines("watch")) as lines:
                    async for line in lines:
                        failures = 0
                        yield decode(INSTANCE, line)
            except RuntimeUnavailable:
                failures += 1
            await asyncio.sleep(BACKOFF.delay_seconds(max(failures, 1), 0))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _call(
        self, method: str, path: str, body: bytes | None = None, *, within_seconds: float = CALL_SECONDS
    ) -> bytes:
        async with self._request(method, path, body, aiohttp.ClientTimeout(total=within_seconds)) as response:
            return await response.read()

    async def _lines(self, path: str) -> AsyncGenerator[bytes, None]:
        endless = aiohttp.ClientTimeout(sock_connect=CALL_SECONDS)
        async with self._request("GET", path, None, endless) as response:
            async for line in response.content:
                yield line.removesuffix(b"\n")

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket)), read_bufsize=LINE_LIMIT_BYTES
            )
        try:
            async with self._session.request(
                method, f"http://process-host/{path}", data=io.BytesIO(body) if body else None, timeout=timeout
            ) as response:
                if response.status >= 400:
                    await _raise(response)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RuntimeUnavailable(
                f"cannot reach the process host at {self._socket}: {str(error) or type(error).__name__}; is it running?"
            ) from error


def _path(ref: str) -> str:
    return f"instances/{quote(ref, safe='')}"


async def _raise(response: aiohttp.ClientResponse) -> None:
    """Map the host's answer onto our errors."""
    try:
        problem = await response.json()
        code, message = str(problem["code"]), str(problem["message"])
    except (ValueError, KeyError, TypeError, aiohttp.ContentTypeError):
        code, message = "", f"the process host answered HTTP status {response.status}"
    if response.status == NotFound.status and code:
        raise NotFound(message)
    if response.status >= 500 and response.status != RuntimeRefused.status:
        raise RuntimeUnavailable(message)
    raise RuntimeRefused(message, code=code or None)
