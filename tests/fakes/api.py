"""A small elizacloud API over HTTP, for tests of what calls it: remembers what was sent, moves agents as it is told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

TOKEN = "ec_test_token"
COMING_UP = ("keyed", "started", "joined", "ready")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class Sent:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApi:
    """`to_come` are the states that an agent passes through when its events are followed."""

    to_come: list[str] = field(default_factory=lambda: list(COMING_UP))
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: list[str] = field(default_factory=lambda: ["one", "two", "three"])
    sent: list[Sent] = field(default_factory=list)
    fail_next: list[web.Response] = field(default_factory=list)
    environment: dict[str, str] | None = None
    cut_after_events: int | None = None
    """Break the event stream off after so many events, once."""
    logs_go_on: bool = True
    logs_come: bool = True
    polls_until_approved: int = 1
    findings: list[dict[str, Any]] = field(default_factory=list)
    held: str | None = None
    explanation: dict[str, Any] = field(default_factory=dict)
    idle_policy: dict[str, Any] = field(default_factory=dict)
    relay_answer: web.Response | None = None
    is_ready: bool = True
    url: str = ""

    def add(self, status: str = "ready", **facts: Any) -> str:
        agent_id = f"b{len(self.agents):015d}"
        self.agents[agent_id] = {
            "agentId": agent_id,
            "agentName": "ada",
            "status": "requested",
            "headscaleIp": None,
            "networking": {"headscaleIp": None},
            "agentReady": None,
            "message": "",
            "createdAt": START.isoformat(),
            "updatedAt": START.isoformat(),
        } | facts
        self.move(agent_id, status)
        return agent_id

    def move(self, agent_id: str, status: str, **facts: Any) -> None:
        agent = self.agents[agent_id]
        sequence = len(self.events) + 1
        self.events.append(
            {
                "sequence": sequence,
                "agentId": agent_id,
                "at": (START + timedelta(seconds=sequence / 10)).isoformat(),
                "step": f"step to {status}",
                "stateFrom": agent["status"],
                "stateTo": status,
                "generation": 1,
                "run": 1,
                "reason": "",
                "seconds": 0.1,
            }
        )
        ip = "100.64.0.7" if status in ("joined", "ready") else agent["headscaleIp"]
        agent |= {"status": status, "headscaleIp": ip, "networking": {"headscaleIp": ip}, "agentReady": ip is not None}
        agent |= facts

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FakeApi"]:
        app = web.Application(middlewares=[self._guard])
        app.router.add_post("/api/v1/agents", self._create)
        app.router.add_get("/api/v1/agents", self._list)
        app.router.add_get("/api/v1/agents/{id}", self._get)
        app.router.add_patch("/api/v1/agents/{id}", self._change)
        app.router.add_delete("/api/v1/agents/{id}", self._delete)
        app.router.add_post("/api/v1/agents/{id}/{act:start|stop|restart|pause|sleep}", self._act)
        app.router.add_get("/api/v1/idle-policy", self._idle_policy)
        app.router.add_put("/api/v1/idle-policy", self._idle_policy)
        app.router.add_get("/api/v1/agents/{id}/events", self._events)
        app.router.add_get("/api/v1/agents/{id}/logs", self._logs)
        app.router.add_post("/api/v1/agents/{id}/tokens", self._create_token)
        app.router.add_post("/api/v1/agents/{id}/tickets", self._create_ticket)
        app.router.add_post("/api/v1/tokens", self._create_token)
        app.router.add_get("/api/v1/tokens", self._list_tokens)
        app.router.add_delete("/api/v1/tokens/{id}", self._revoke)
        app.router.add_post("/api/auth/cli-session", self._open_session)
        app.router.add_get("/api/auth/cli-session/{id}", self._poll_session)
        app.router.add_post("/api/v1/operator/sweep", self._sweep)
        app.router.add_get("/api/v1/operator/agents/{id}", self._explain)
        app.router.add_get("/readyz", self._ready)
        app.router.add_route("*", "/api/relay/{id}/{route:.*}", self._relay)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.sent.append(Sent(request.method, request.path, dict(request.query), dict(request.headers), body))
        if self.fail_next:
            return self.fail_next.pop(0)
        open_to_all = request.path == "/readyz" or request.path.startswith("/api/auth/")
        if not open_to_all and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "invalid_token", "cannot accept this token: it is unknown or was revoked")
        if (agent_id := request.match_info.get("id")) and "/agents/" in request.path and agent_id not in self.agents:
            return problem(404, "agent_not_found", f"cannot find an agent {agent_id}")
        response: web.StreamResponse = await handler(request)
        return response

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        agent_id = self.add("requested", agentName=body["agentName"], external=body.get("external", False))
        extra = {"environment": self.environment} if self.environment else {}
        return web.json_response(self.agents[agent_id] | extra, status=202)

    async def _list(self, request: web.Request) -> web.Response:
        return self._page(request, list(self.agents.values()))

    def _page(self, request: web.Request, items: list[dict[str, Any]]) -> web.Response:
        start = int(request.query.get("cursor", 0))
        end = start + 2  # small, so that lists have several pages
        return web.json_response({"items": items[start:end], "next": str(end) if end < len(items) else None})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self.agents[request.match_info["id"]])

    async def _change(self, request: web.Request) -> web.Response:
        agent = self.agents[request.match_info["id"]]
        agent |= await request.json()
        agent["idlePolicy"] = agent.get("idlePolicy") or {}
        return web.json_response(agent)

    async def _delete(self, request: web.Request) -> web.Response:
        self.move(request.match_info["id"], "deleting")
        return web.json_response(self.agents[request.match_info["id"]], status=202)

    async def _act(self, request: web.Request) -> web.Response:
        agent_id, act = request.match_info["id"], request.match_info["act"]
        if act != "start":
            self.move(agent_id, "pausing" if act == "pause" else "stopping")
        extra = {"environment": self.environment} if self.environment else {}
        return web.json_response(self.agents[agent_id] | extra, status=202)

    async def _idle_policy(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self.idle_policy = await request.json()
        return web.json_response(self.idle_policy)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        agent_id = request.match_info["id"]
        if request.headers.get("Accept") != "text/event-stream":
            after = int(request.query.get("after", 0))
            known = [event for event in self.events if event["agentId"] == agent_id and event["sequence"] > after]
            more = str(known[1]["sequence"]) if len(known) > 2 else None  # small pages here, too
            return web.json_response({"items": known[:2], "next": more})
        after = int(request.headers.get("Last-Event-ID", 0))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"retry: 1\n: hello\n\n")
        for event in [event for event in self.events if event["agentId"] == agent_id and event["sequence"] > after]:
            if await self._write(response, event):
                return response
        while self.to_come:
            self.move(agent_id, self.to_come.pop(0))
            if await self._write(response, self.events[-1]):
                return response
        await asyncio.Event().wait()
        return response

    async def _write(self, response: web.StreamResponse, event: dict[str, Any]) -> bool:
        text = f"id: {event['sequence']}\nevent: transition\ndata: {json.dumps(event)}\n\n"
        await response.write(text.encode())
        if self.cut_after_events is not None:
            self.cut_after_events -= 1
            if self.cut_after_events <= 0:
                self.cut_after_events = None
                return True
        return False

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        lines = self.logs[-int(request.query["tail"]) :] if request.query["tail"] != "0" else []
        if not self.logs_come:
            await asyncio.Event().wait()
        if "follow" not in request.query:
            return web.Response(text="".join(f"{line}\n" for line in lines))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write("".join(f"data: {line}\n\n" for line in lines).encode())
        if self.cut_after_events is not None:
            self.cut_after_events = None
            assert request.transport is not None
            request.transport.abort()
        elif self.logs_go_on:
            await asyncio.Event().wait()
        return response

    async def _create_token(self, request: web.Request) -> web.Response:
        body = await request.json()
        token_id = f"t{len(self.tokens)}"
        agent_id = request.match_info.get("id")
        self.tokens[token_id] = {
            "tokenId": token_id,
            "name": body.get("name", "agent token"),
            "scopes": ["relay"] if agent_id else ["owner"],
            "agentId": agent_id,
            "createdAt": START.isoformat(),
            "expiresAt": None,
        }
        return web.json_response(self.tokens[token_id] | {"token": f"ec_{token_id}_secret"}, status=201)

    async def _create_ticket(self, request: web.Request) -> web.Response:
        agent_id = request.match_info["id"]
        if agent_id not in self.agents:
            return problem(404, "agent_not_found", "cannot find this agent")
        url = f"http://{agent_id}.localhost/.elizacloud/session?elizacloud_ticket=ect_secret"
        expires_at = START.isoformat()
        return web.json_response({"ticket": "ect_secret", "url": url, "expiresAt": expires_at}, status=201)

    async def _list_tokens(self, request: web.Request) -> web.Response:
        """All of them at once; like the API it takes no query."""
        assert not request.query
        return web.json_response({"items": list(self.tokens.values()), "next": None})

    async def _revoke(self, request: web.Request) -> web.Response:
        if self.tokens.pop(request.match_info["id"], None) is None:
            return problem(404, "not_found", "cannot find the token")
        return web.Response(status=204)

    async def _open_session(self, request: web.Request) -> web.Response:
        return web.json_response(self._session("pending"), status=201)

    async def _poll_session(self, request: web.Request) -> web.Response:
        if request.match_info["id"] != "cs_secret":
            return problem(404, "not_found", "cannot find this login")
        self.polls_until_approved -= 1
        if self.polls_until_approved > 0:
            return web.json_response(self._session("pending"))
        return web.json_response(self._session("approved") | {"token": TOKEN})

    def _session(self, status: str) -> dict[str, Any]:
        page = f"{self.url}/login?code=ABCD-EFGH"
        return {
            "sessionId": "cs_secret",
            "browserUrl": page,
            "userCode": "ABCD-EFGH",
            "status": status,
            "expiresAt": START.isoformat(),
        }

    async def _sweep(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"findings": self.findings, "heldBecause": self.held, "dryRun": body["dryRun"]})

    async def _explain(self, request: web.Request) -> web.Response:
        return web.json_response({"agent": self.agents[request.match_info["id"]]} | self.explanation)

    async def _ready(self, request: web.Request) -> web.Response:
        if self.is_ready:
            return web.json_response({"status": "ready"})
        return problem(503, "not_ready", "cannot serve: Headscale does not answer")

    async def _relay(self, request: web.Request) -> web.Response:
        return self.relay_answer or web.json_response({"ready": True})


def problem(status: int, code: str, detail: str, **headers: str) -> web.Response:
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
    return web.Response(
        status=status, text=json.dumps(body), content_type="application/problem+json", headers=headers or None
    )
