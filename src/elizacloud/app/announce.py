"""What `up` says when everything is ready: to people on standard output, to programs in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr

from elizacloud.app.data_dir import write_private
from elizacloud.auth.access import OWNER_HEADER
from elizacloud.errors import Unavailable

FIRST_OWNER = "owner"
CALL_SECONDS = 10.0


@dataclass(frozen=True)
class Running:
    """What runs now. The ready file is made of the first four; external test harnesses start from it."""

    url: str
    pid: int
    headscale_url: str
    headscale_kind: str
    headscale_version: str
    data_dir: Path
    sockets: Mapping[str, Path]

    def as_json(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "pid": self.pid,
            "headscale": {"url": self.headscale_url, "kind": self.headscale_kind, "version": self.headscale_version},
        }


class OwnerTokens:
    """Makes API tokens for this machine's owner, through the public API and with the operator's token."""

    def __init__(self, api_socket: Path, operator_token: SecretStr) -> None:
        self._socket = api_socket
        self._headers = {"Authorization": f"Bearer {operator_token.get_secret_value()}", OWNER_HEADER: FIRST_OWNER}

    async def exist(self) -> bool:
        return bool((await self._call("GET", None))["items"])

    async def create(self, name: str) -> SecretStr:
        return SecretStr(str((await self._call("POST", {"name": name}))["token"]))

    async def _call(self, method: str, body: Mapping[str, str] | None) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        connector = aiohttp.UnixConnector(str(self._socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers) as session,
            session.request(method, "http://api/api/v1/tokens", json=body) as response,
        ):
            if response.status >= 300:
                raise Unavailable(
                    f"cannot make an API token: the API answered {response.status}; see the control plane's log"
                )
            return dict(await response.json())


def write_ready_file(path: Path, running: Running, token: SecretStr) -> None:
    """0600, written as a whole: whoever sees the file can use what is in it."""
    write_private(path, json.dumps({**running.as_json(), "apiToken": token.get_secret_value()}) + "\n")


def write_run_file(path: Path, running: Running) -> None:
    """For `doctor`: what runs and where its sockets are. No secret is in it."""
    sockets = {name: str(socket) for name, socket in running.sockets.items()}
    write_private(path, json.dumps({**running.as_json(), "sockets": sockets}) + "\n")


def welcome(running: Running, token: SecretStr | None) -> str:
    """The lines to print; `token` is given at the first start only, since it is shown once."""
    server = f"{running.headscale_kind} {running.headscale_version}"
    lines = [
        "",
        f"  elizacloud is ready at {running.url}",
        f"  tailnet by {server}, data in {running.data_dir}",
        "",
    ]
    if running.headscale_kind == "devcontrol":
        lines += ["  devcontrol is not Headscale: a control server for development on this machine only.", ""]
    if token is not None:
        lines += [
            "  Your API token, shown only now:",
            f"    export ELIZACLOUD_URL={running.url} ELIZACLOUD_TOKEN={token.get_secret_value()}",
            "",
        ]
    lines += [
        "  Try:",
        "    elizacloud agent create hello",
        '    curl -H "Authorization: Bearer $ELIZACLOUD_TOKEN" ' + f"{running.url}/api/v1/agents",
        f"    {running.url}/docs",
        "",
        "  Ctrl-C stops everything; the agents come back at the next start.",
        "",
    ]
    return "\n".join(lines)
