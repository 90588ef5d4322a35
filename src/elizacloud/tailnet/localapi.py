"""The HTTP client of a tailscaled's LocalAPI: the few calls we need, over its unix socket.

The socket has no access check for what we use (it is 0666 and `dial` asks no permission): it must lie in a 0700 directory.
Foreign errors become ours here: TailnetUnavailable when tailscaled does not answer or is not ready, Refused when it
says no. Source: ipn/localapi/localapi.go, tailscale v1.102.3.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr

from elizacloud.errors import Refused, TailnetUnavailable
from elizacloud.tailnet.bus import Event, EventDecoder, Watch
from elizacloud.tailnet.peers import PeerPath, peer_of

HOST = "local-tailscaled.sock"
"""The one Host header that the LocalAPI accepts besides an empty one."""

CALL_SECONDS = 10.0
SOCKET_POLL_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` says of this machine, without its peers."""

    state: str
    """Running, Starting, NeedsLogin, Stopped, NoState."""
    has_node_key: bool
    node_id: str
    ips: tuple[str, ...]
    health: tuple[str, ...]


class LocalApi:
    """One tailscaled's LocalAPI. Made without I/O; `close()` when done."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def status(self) -> Status:
        answer = await self._json("GET", "status?peers=false")
        own = answer.get("Self") or {}
        return Status(
            state=str(answer.get("BackendState", "")),
            has_node_key=bool(answer.get("HaveNodeKey")),
            node_id=str(own.get("ID", "")),
            ips=tuple(answer.get("TailscaleIPs") or ()),
            health=tuple(answer.get("Health") or ()),
        )

    async def answers(self, *, within_seconds: float) -> None:
        """Return when tailscaled answered, whatever it says of the tailnet; TailnetUnavailable when it does not in time."""
        try:
            async with asyncio.timeout(within_seconds):
                await self.status()
        except TimeoutError:
            raise TailnetUnavailable(
                f"tailscaled at {self.socket} does not answer within {within_seconds:g} s"
            ) from None

    async def peer_ips(self) -> tuple[str, ...]:
        """One address of each peer that this machine sees now."""
        peers = (await self._json("GET", "status")).get("Peer") or {}
        return tuple(peer["TailscaleIPs"][0] for peer in peers.values() if peer.get("TailscaleIPs"))

    async def peers(self) -> tuple[PeerPath, ...]:
        """Its peers, with the ways to them."""
        found = (await self._json("GET", "status")).get("Peer") or {}
        return tuple(peer_of(status) for status in found.values())

    async def prefs(self) -> Mapping[str, Any]:
        """The preferences in force (ipn.Prefs), private keys left out by tailscaled."""
        return await self._json("GET", "prefs")

    async def start(self, *, prefs: Mapping[str, Any], auth_key: SecretStr | None) -> None:
        """(Re)start the backend with these preferences; the key is kept in tailscaled's memory only."""
        options: dict[str, Any] = {"UpdatePrefs": prefs}
        if auth_key is not None:
            options["AuthKey"] = auth_key.get_secret_value()
        await self._call("POST", "start", options)

    async def login_interactive(self) -> None:
        """Make a backend without a node key log in now, with the key given to `start`."""
        await self._call("POST", "login-interactive")

    async def log_out(self) -> None:
        """Forget the node and its key, and tell the server so; the machine's key stays."""
        await self._call("POST", "logout")

    async def set_serve(self, port: int, target: str) -> None:
        """Forward this tailnet port to `127.0.0.1:port` or `unix:/path`; replaces all that was served.

        Kept in tailscaled's state. TailnetUnavailable before the first netmap.
        """
        await self._call("POST", "serve-config", {"TCP": {str(port): {"TCPForward": target}}})

    async def ping(self, ip: str) -> float:
        """Seconds that a disco ping to this tailnet address took; TailnetUnavailable when it has no answer."""
        answer = await self._json("POST", f"ping?ip={ip}&type=disco")
        if answer.get("Err"):
            raise TailnetUnavailable(f"cannot ping {ip}: {answer['Err']}")
        return float(answer.get("LatencySeconds", 0))

    async def watch(self, mask: Watch) -> AsyncGenerator[Event, None]:
        """The bus: what is there now, then every change. Ends when tailscaled ends it; then subscribe again."""
        decoder = EventDecoder()
        endless = aiohttp.ClientTimeout(sock_connect=CALL_SECONDS)
        async with self._request("GET", f"watch-ipn-bus?mask={int(mask)}", timeout=endless) as response:
            async for data in response.content.iter_any():
                for event in decoder.feed(data):
                    yield event

    async def until_listening(self) -> None:
        """Return when tailscaled accepts connections; the caller bounds the wait.

        Looked for in short steps, because tailscaled tells nobody when its socket is there.
        """
        while True:
            try:
                _reader, writer = await asyncio.open_unix_connection(self.socket)
            except OSError:
                await asyncio.sleep(SOCKET_POLL_SECONDS)
            else:
                writer.close()
                return

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _json(self, method: str, path: str) -> dict[str, Any]:
        data = await self._call(method, path)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise TailnetUnavailable(f"cannot use tailscaled's answer to {path}: no JSON") from error
        if not isinstance(answer, dict):
            raise TailnetUnavailable(f"cannot use tailscaled's answer to {path}: no JSON object")
        return answer

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with self._request(method, path, body=body, timeout=timeout) as response:
            return await response.read()

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, *, timeout: aiohttp.ClientTimeout, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        name = path.partition("?")[0]
        try:
            async with self._opened().request(
                method, f"http://{HOST}/localapi/v0/{path}", json=body, timeout=timeout
            ) as response:
                if response.status >= 500:
                    raise TailnetUnavailable(f"cannot {name} with tailscaled: {await _reason(response)}")
                if response.status >= 400:
                    raise Refused(f"cannot {name} with tailscaled: {await _reason(response)}", code="tailnet_refused")
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TailnetUnavailable(
                f"cannot {name} with tailscaled at {self.socket}: {str(error) or type(error).__name__}; is it running?"
            ) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)))
        return self._session


async def _reason(response: aiohttp.ClientResponse) -> str:
    return (await response.text(errors="replace")).strip()[:300] or f"HTTP status {response.status}"
