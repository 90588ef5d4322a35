"""Path -> handler, behind the gates; the whole surface of the agent on one screen."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from elizacloud.stub_agent import gates
from elizacloud.stub_agent.agent import Agent
from elizacloud.stub_agent.http import Connection
from elizacloud.stub_agent.messages import BodyTooLarge, Request, Response
from elizacloud.stub_agent.streams import Endpoint, chat_stream, echo, export, upload
from elizacloud.stub_agent.websocket import serve_websocket

JSON_BODY_BYTES = 1024 * 1024
_RESERVED_NAMES = {"__proto__", "constructor", "prototype"}
_CORS_METHODS = b"GET, POST, PUT, DELETE, OPTIONS"
_CORS_HEADERS = (
    b"Content-Type, Authorization, X-API-Token, X-Api-Key, X-Milady-Token, X-Milady-Client-Id, X-Milady-UI-Language"
)
_PAGE = (
    b'<!doctype html><title>Milady (stub)</title><link rel="icon" href="data:,">'
    b"<h1>Milady</h1><p>A stand-in for the agent's web UI.</p>"
)


class Routes:
    """Answers every request of the agent. `exit_process` ends the process on `/api/stub/crash`."""

    def __init__(self, agent: Agent, exit_process: Callable[[int], object] = os._exit) -> None:
        self._agent = agent
        self._exit_process = exit_process
        self._exact: dict[tuple[str, str], Endpoint] = {
            ("GET", "/api/health"): self._health,
            ("GET", "/api/status"): self._status,
            ("GET", "/api/config"): self._config,
            ("GET", "/api/auth/status"): self._auth_status,
            ("GET", "/api/onboarding/status"): self._onboarding_status,
            ("GET", "/api/connectors"): self._list_connectors,
            ("POST", "/api/connectors"): self._save_connector,
            ("POST", "/api/discord/configure"): self._configure_discord,
            ("POST", "/api/chat/stream"): chat_stream,
            ("POST", "/api/agent/import"): upload,
            ("POST", "/api/avatar/vrm"): upload,
            ("POST", "/api/avatar/background"): upload,
            ("GET", "/api/agent/export"): export,
            ("POST", "/api/agent/export"): export,
            ("POST", "/api/stub/crash"): self._crash,
            ("POST", "/api/stub/events"): self._publish,
            ("POST", "/api/stub/log"): self._log,
        }

    async def __call__(self, request: Request, response: Response, connection: Connection) -> None:
        try:
            if request.upgrade:
                await serve_websocket(self._agent, request, connection)
            elif await self._pass_gates(request, response, connection):
                await self._find(request)(self._agent, request, response, connection)
        except BodyTooLarge:
            await _json(response, 413, {"error": "Request body too large"})
        except Exception as error:
            if response.started:
                connection.cut()
                return
            bad_input = isinstance(error, ValueError)
            await _json(response, 400 if bad_input else 500, {"error": str(error) or type(error).__name__})

    async def _pass_gates(self, request: Request, response: Response, connection: Connection) -> bool:
        config = self._agent.config
        if not gates.host_allowed(config, request.header("Host")):
            await _json(response, 403, {"error": "Forbidden — invalid Host header", "hint": "set MILADY_ALLOWED_HOSTS"})
            return False
        origin = gates.allowed_origin(config, request.header("Origin"))
        if request.header("Origin") and not origin:
            await _json(response, 403, {"error": "Origin not allowed"})
            return False
        if origin:
            response.headers += [
                (b"Access-Control-Allow-Origin", origin.encode("latin-1")),
                (b"Vary", b"Origin"),
                (b"Access-Control-Allow-Methods", _CORS_METHODS),
                (b"Access-Control-Allow-Headers", _CORS_HEADERS),
                (b"Access-Control-Allow-Credentials", b"true"),
            ]
        response.headers += [
            (b"X-Content-Type-Options", b"nosniff"),
            (b"X-Frame-Options", b"DENY"),
            (b"Referrer-Policy", b"strict-origin-when-cross-origin"),
        ]
        if request.method != "OPTIONS" and self._protected(request):
            if not gates.authorized(config, request.header, local_peer=connection.local_peer):
                await _json(response, 401, {"error": "Unauthorized"})
                return False
        elif request.method == "OPTIONS" and not request.path.startswith("/api/echo/"):
            await response.send(204)
            return False
        return True

    def _protected(self, request: Request) -> bool:
        path, config = request.path, self._agent.config
        if not (path in ("/api", "/v1") or path.startswith(("/api/", "/v1/"))):
            return False
        if path.startswith("/api/auth/"):
            return False
        reads = request.method in ("GET", "HEAD")
        if path == "/api/health" and reads:
            return config.health_requires_token
        return not (path == "/api/onboarding/status" and reads and gates.cloud_mode(config))

    def _find(self, request: Request) -> Endpoint:
        method, path = request.method, request.path
        if path == "/api/echo" or path.startswith("/api/echo/"):
            return echo
        if endpoint := self._exact.get(("GET" if method == "HEAD" else method, path)):
            return endpoint
        if method == "DELETE" and path.startswith("/api/connectors/"):
            return self._delete_connector
        if method == "POST" and path.startswith("/api/conversations/") and path.endswith("/messages/stream"):
            return chat_stream
        if method in ("GET", "HEAD") and path in ("/", "/index.html"):
            return _page
        return _not_found

    async def _health(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        await _json(response, 200, agent.health())

    async def _status(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        await _json(response, 200, agent.status())

    async def _config(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        await _json(response, 200, dict(agent.config.agent_config))

    async def _auth_status(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        required = agent.config.api_token is not None and not gates.cloud_mode(agent.config)
        await _json(response, 200, {"required": required, "pairingEnabled": False, "expiresAt": None})

    async def _onboarding_status(
        self, agent: Agent, request: Request, response: Response, connection: Connection
    ) -> None:
        await _json(response, 200, {"complete": gates.cloud_mode(agent.config)})

    async def _list_connectors(
        self, agent: Agent, request: Request, response: Response, connection: Connection
    ) -> None:
        # The real agent masks secrets here; the stub does not, so that a test sees what was kept.
        await _json(response, 200, {"connectors": agent.connectors})

    async def _save_connector(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        body = await _object(request)
        name, connector = body.get("name"), body.get("config")
        if not isinstance(name, str) or not name.strip():
            raise ValueError("Missing connector name")
        if name.strip() in _RESERVED_NAMES:
            raise ValueError("Invalid connector name: it is reserved")
        if not isinstance(connector, (dict, list)) or not connector:
            raise ValueError("Missing connector config")
        agent.save_connector(name.strip(), connector)
        await _json(response, 200, {"connectors": agent.connectors})

    async def _delete_connector(
        self, agent: Agent, request: Request, response: Response, connection: Connection
    ) -> None:
        found = agent.delete_connector(request.path.removeprefix("/api/connectors/"))
        await _json(response, 200 if found else 404, {"connectors": agent.connectors})

    async def _configure_discord(
        self, agent: Agent, request: Request, response: Response, connection: Connection
    ) -> None:
        """The seed's call: `{botToken}`."""
        body = await _object(request)
        if not isinstance(body.get("botToken"), str) or not body["botToken"].strip():
            raise ValueError("Missing botToken")
        agent.save_connector("discord", {"enabled": True, **body})
        await _json(response, 200, {"success": True, "connectors": agent.connectors})

    async def _crash(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        """`{"exitCode": n}`: answer, then end the process with that code."""
        exit_code = int((await _object(request)).get("exitCode", 1))
        await _json(response, 200, {"exitCode": exit_code})
        self._exit_process(exit_code)

    async def _publish(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        """`{"count": n}` events for `/ws`."""
        for number in range(int((await _object(request)).get("count", 1))):
            agent.publish("stub", {"number": number})
        await _json(response, 200, {"success": True})

    async def _log(self, agent: Agent, request: Request, response: Response, connection: Connection) -> None:
        """`{"line": text}` on standard output, as an agent's own log."""
        sys.stdout.write(f"{(await _object(request)).get('line', '')}\n")
        sys.stdout.flush()
        await _json(response, 200, {"success": True})


async def _page(agent: Agent, request: Request, response: Response, connection: Connection) -> None:
    await response.send(200, _PAGE, content_type="text/html; charset=utf-8")


async def _not_found(agent: Agent, request: Request, response: Response, connection: Connection) -> None:
    await _json(response, 404, {"error": "Not found"})


async def _json(response: Response, status: int, body: dict[str, Any]) -> None:
    await response.send(status, json.dumps(body).encode())


async def _object(request: Request) -> dict[str, Any]:
    body = json.loads(await request.read(JSON_BODY_BYTES) or b"{}")
    if not isinstance(body, dict):
        raise ValueError("Invalid JSON body: an object is expected")
    return body
