"""Every secret of a running cloud, looked for everywhere. SECURITY.md's table says where each may be; this proves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import string
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic import SecretStr

from elizacloud.cipher import Cipher
from elizacloud.client import Client
from elizacloud.states import State
from tests.disk import files, open_to_others
from tests.e2e.cloud import Cloud
from tests.e2e.sinks import Processes, Secret, Shape, leaks

WITHIN_SECONDS = 40
LETTERS = string.ascii_letters + string.digits

ITS_OWN = ("printed:banner", "environ:command line")
"""Where a person sees the API token, and puts it."""
VOLUME = "file:agents/*/*"
TAILSCALE = (f"{VOLUME}/tailscale/*", "file:relay/tailscaled/*")
SHAPES = (
    Shape("an agent's, join or busy token", re.compile(rb"ec[ajb]_[\w-]{43}"), ("environ:agent", f"{VOLUME}/*-token")),
    Shape("an API token", re.compile(rb"ec_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}"), (*ITS_OWN, "environ:up")),
    Shape("a session or a ticket", re.compile(rb"ec[st]_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}")),
    Shape("a private signing key", re.compile(rb'"d": ?"[\w-]{43}"')),
    Shape("a pre-auth key", re.compile(rb"hskey-auth-[\w-]{12}-[\w-]{64}")),
    Shape("an API key of Headscale", re.compile(rb"hskey-api-[\w-]{12}-[\w-]{64}"), ("file:control-server/api.key",)),
    Shape(
        "a WireGuard, node or machine key", re.compile(rb"privkey:[0-9a-f]{64}"), (*TAILSCALE, "file:control-server/*")
    ),
)


def canary(prefix: str = "canary-") -> str:
    return prefix + "".join(secrets.choice(LETTERS) for _ in range(40))


def api_token() -> str:
    """One that looks like ours, and is nobody's."""
    return f"ec_{canary('')[:12]}_{canary('xyz')}"


@dataclass
class Answers:
    """All that the cloud answered and must not hold a secret: status line, headers and body, by what was asked."""

    cloud: Cloud
    sinks: dict[str, bytes] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None, raw: bytes = b""
    ) -> int:
        data = raw or (b"" if body is None else json.dumps(body).encode())
        sent = {"Authorization": f"Bearer {self.cloud.token}", "Content-Type": "application/json", **(headers or {})}
        return await self.ask_raw(
            f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(self.cloud.url).netloc}\r\nConnection: close\r\n".encode()
            + "".join(f"{name}: {value}\r\n" for name, value in sent.items()).encode()
            + b"Content-Length: %d\r\n\r\n" % len(data)
            + data
        )

    async def ask_raw(self, message: bytes) -> int:
        """Send these bytes; return the answer's status."""
        address = urlsplit(self.cloud.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(message)
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                answer = await reader.readuntil(b"\r\n\r\n")
                if b"text/event-stream" not in answer:
                    answer += await reader.read()
        finally:
            writer.close()
        self.sinks[f"answered:{len(self.sinks)} {message[:60]!r}"] = answer
        return int(answer.split(b" ", 2)[1])


def mislaid(agent_id: str, secret: str) -> list[tuple[str, str, dict[str, str], Any]]:
    """Requests with a secret where none belongs: method, path, headers, body."""
    agents, relayed = "/api/v1/agents", f"/api/relay/{agent_id}/api/health"
    wrong_token = {"Authorization": f"Bearer {secret}"}
    return [
        *[("GET", path, wrong_token, None) for path in (agents, relayed, "/api/v1/tokens", "/")],
        *[
            ("GET", path, {"Authorization": scheme + secret}, None)
            for path in (agents, relayed)
            for scheme in ("Basic ", "")
        ],
        *[("GET", path, {"Authorization": "", "Cookie": f"token={secret}"}, None) for path in (agents, relayed)],
        *[("GET", f"{path}?token={secret}", {"Authorization": ""}, None) for path in (agents, relayed)],
        *[("GET", f"{agents}?{query}", {}, None) for query in (f"cursor={secret}", f"limit={secret}", f"{secret}=1")],
        *[
            ("GET", path, {}, None)
            for path in (f"{agents}/{secret}", f"/api/relay/{secret}/x", f"/{secret}", f"/x?{secret}")
        ],
        *[(method, f"{agents}/{secret}/{what}", {}, None) for method, what in (("POST", "start"), ("GET", "logs"))],
        ("GET", f"{agents}/{agent_id}/events?after={secret}", {}, None),
        ("GET", f"{agents}/{agent_id}/events", {"Accept": "text/event-stream", "Last-Event-ID": secret}, None),
        ("GET", relayed, {"Authorization": "", "Origin": f"http://{secret}.example"}, None),
        ("GET", agents, {"Elizacloud-Owner": secret}, None),
        ("DELETE", f"/api/v1/tokens/{secret}/x", {}, None),
        ("GET", f"/api/auth/cli-session/{secret}", {}, None),
        ("POST", "/api/auth/cli-approval", {}, {"userCode": secret}),
        (secret.replace("_", ""), agents, {}, None),
        *[
            ("POST", agents, {}, body)
            for body in (
                secret,
                [secret],
                {"agentName": [secret]},
                {"agentName": f"{secret}\x00"},
                {"agentName": secret * 9},
                {"agentName": "x", "agentConfig": secret},
                {"agentName": "x", "secrets": secret},
                {"agentName": "x", "secrets": [secret]},
                {"agentName": "x", "secrets": {"NAME": {"value": secret}}},
                {"agentName": "x", "secrets": {"NAME": f"{secret}\x00"}},
                {"agentName": "x", "secrets": {"HEADSCALE_AUTH_KEY": secret}},
                {"agentName": "x", "secrets": {f"{secret}=1": "x"}},
                {"agentName": "x", "environment": {"TS_AUTHKEY": secret}},
                {"agentName": "x", "command": secret},
                {"agentName": "x", "health": secret},
                {"agentName": "x", "port": secret},
                {"agentName": "x", "image": secret * 9},
                {"agentName": "x", "apiKey": secret},
                {"agentName": "x", secret: "x"},
                {"agentName": "x", "ownerId": secret},
            )
        ],
        ("PATCH", f"{agents}/{agent_id}", {}, {"secrets": {"A": [secret]}}),
        ("POST", "/api/v1/tokens", {}, {"name": "x", "scopes": [secret]}),
        ("POST", "/api/v1/tokens", {}, {"name": "x", "expiresInSeconds": secret}),
        ("POST", f"/containers/{agent_id}/rekey", wrong_token, None),
        ("POST", f"/containers/{agent_id}/networking", wrong_token, {"headscaleIp": secret}),
        ("POST", f"/containers/{secret}/busy", wrong_token, {"seconds": secret}),
        ("POST", agents, {"Content-Type": "text/plain"}, {"agentName": secret}),
        ("POST", agents, {"Idempotency-Key": secret * 9}, {"agentName": "x"}),
    ]


def malformed(agent_id: str, secret: str) -> list[bytes]:
    host, bearer = "Host: localhost", f"Authorization: Bearer {secret}"
    path = f"/api/relay/{agent_id}/x"
    heads = (
        f"GET {path} HTTP/9.{secret}\r\n{host}\r\n{bearer}",
        f"GET {path} {secret}\r\n{host}",
        f"GET {path} HTTP/1.1\r\n{host}\r\n{bearer}\r\n{bearer}",
        f"GET {path} HTTP/1.1\r\n{host}\r\nAuthorization : Bearer {secret}",
        f"GET {path} HTTP/1.1\r\n{host}\r\n{secret}",
        f"GET {path} HTTP/1.1\r\n{host}\r\nX-Secret: {secret}\x00",
        f"GET {path} HTTP/1.1\r\nHost: {secret} x",
        f"GET {path} HTTP/1.1\r\n{host}\r\nContent-Length: {secret}",
        f"GET {path} HTTP/1.1\r\n{host}\r\nTransfer-Encoding: {secret}",
        f"POST {path} HTTP/1.1\r\n{host}\r\n{bearer}\r\nTransfer-Encoding: chunked\r\n\r\n{secret}",
        f"GET {path}\x01{secret} HTTP/1.1\r\n{host}",
        f"GET /{secret * 300} HTTP/1.1\r\n{host}",
        f"CONNECT {secret}:443 HTTP/1.1\r\n{host}",
    )
    return [f"{head}\r\nConnection: close\r\n\r\n".encode() for head in heads]


@dataclass
class Planted:
    """The secrets of a cloud, as they come to be."""

    cloud: Cloud
    found: list[Secret] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.cloud.data_dir / "data"

    def add(self, name: str, value: str, *allowed: str) -> str:
        assert len(value) >= 20, name
        self.found.append(Secret(name, value, allowed))
        return value

    def installation(self) -> None:
        """What a first start makes."""
        self.add("the first owner's API token", self.cloud.token, *ITS_OWN)
        self.add("the secret key", (self.data / "secret.key").read_text().strip(), "file:secret.key")
        key = self.data / "control-server" / "api.key"
        self.add("Headscale's API key", key.read_text().strip(), "file:control-server/api.key")

    def agent(self, agent_id: str) -> None:
        """What the present run of an agent of the process runtime got."""
        (volume,) = (self.data / "agents" / agent_id).iterdir()
        for name in ("join-token", "busy-token"):
            self.add(f"{name} of {agent_id}", (volume / name).read_text(), f"{VOLUME}/{name}")
        for pid, command in self.cloud.processes().items():
            environment = _environment_of(pid)
            if "stub_agent" in command and environment.get("CONTAINER_ID") == agent_id:
                self.add(f"token of {agent_id}", environment["MILADY_API_TOKEN"], "environ:agent")
                return
        raise AssertionError(f"no process of {agent_id}")

    def external(self, environment: Mapping[str, str]) -> None:
        """What an answer told the person that starts the agent."""
        names = {name for name in environment if name.endswith(("TOKEN", "KEY", "AUTHKEY"))}
        assert names == {
            *("HEADSCALE_AUTH_KEY", "TS_AUTHKEY", "ELIZACLOUD_JOIN_TOKEN", "ELIZACLOUD_BUSY_TOKEN"),
            *("MILADY_API_TOKEN", "ELIZA_API_TOKEN"),
        }
        for name in names:
            kept = kept_keys(environment[name]) if name in ("HEADSCALE_AUTH_KEY", "TS_AUTHKEY") else ()
            self.add(f"{name} of an external agent", environment[name], *kept)


def kept_keys(key: str) -> tuple[str, ...]:
    """Headscale hashes pre-auth keys since 0.28, which is when they got a prefix; before, its database has them as they are."""
    return () if key.startswith("hskey-auth-") else ("file:control-server/db.sqlite*",)


def _environment_of(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {}


async def test_no_secret_is_anywhere_but_where_it_belongs(own_cloud: Cloud) -> None:
    planted = Planted(own_cloud)
    own_cloud.environment = {
        "ELIZACLOUD_TOKEN": planted.add(
            "the token of a login in the shell", api_token(), "environ:up", "environ:command line"
        ),
        "ELIZACLOUD_OPERATOR_TOKEN": planted.add(
            "an operator token given in a variable",
            canary("ecop_"),
            "environ:up",
            "environ:control plane",
            "environ:command line",
        ),
    }
    processes = Processes(own_cloud.data_dir)
    answers = Answers(own_cloud)
    with processes.watched():
        await asyncio.to_thread(own_cloud.start)
        planted.installation()
        agent_id = await _live(own_cloud, planted)
        for secret in (planted.add("an unknown token", api_token()), own_cloud.token):
            for method, path, headers, body in mislaid(agent_id, secret):
                await answers.ask(method, path, headers=headers, body=body)
            for message in malformed(agent_id, secret):
                assert await answers.ask_raw(message) >= 400
        for path in ("agents", f"agents/{agent_id}", f"agents/{agent_id}/events", f"agents/{agent_id}/logs", "tokens"):
            assert await answers.ask("GET", f"/api/v1/{path}") == 200
        assert (
            await answers.ask("POST", "/api/v1/agents", raw=b'{"secrets": {"A": "%s"' % own_cloud.token.encode()) == 400
        )
        control = await _plant_controls(own_cloud, processes, answers, agent_id)
        told = {
            "printed:banner": own_cloud.printed.encode(),
            "printed:errors": own_cloud.log.encode(),
            "printed:settings": _cli(own_cloud, "settings"),
            "printed:doctor": _cli(own_cloud, "doctor", "--data-dir", str(planted.data), "--json"),
        }
        sinks = {**files(planted.data), **processes.sinks(), **answers.sinks, **told}
        public = open_to_others(planted.data)
        _check_snapshot(planted, agent_id)
    banner = len(own_cloud.printed)
    assert await asyncio.to_thread(own_cloud.stop) == 0
    told["printed:errors"] = own_cloud.log.encode()
    told["printed:after the banner"] = own_cloud.printed[banner:].encode()
    for name, data in {**files(planted.data), **told}.items():
        sinks[name] = sinks.get(name, b"") + data
    _check_controls(sinks, control)
    found = leaks(sinks, [*planted.found, *SHAPES])
    assert not found, "\n".join(f"{secret} in {sink}" for secret, sink in found)
    assert not public, "\n".join(public)


async def _live(cloud: Cloud, planted: Planted) -> str:
    """Have the cloud do everything that it does with secrets; returns a ready agent's id."""
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        owned = planted.add("a secret of the owner's", canary(), "environ:agent")
        config = planted.add("a secret in agentConfig", canary(), f"{VOLUME}/agent-config.json")
        made = await client.create_agent(
            "ada", config={"apiKey": config}, options={"secrets": {"SECRET": owned}}, idempotency_key=canary()
        )
        await client.wait_until(made.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        planted.agent(made.agent_id)
        changed = planted.add("a secret that replaced another", canary(), "environ:agent")
        await client.update_agent(made.agent_id, {"secrets": {"SECRET": changed}})
        await client.restart_agent(made.agent_id)
        await client.wait_until(made.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        planted.agent(made.agent_id)
        crashing = {"secrets": {"SECRET": planted.add("a crashing agent's secret", canary(), "environ:agent")}}
        await client.create_agent(
            "bob", options={**crashing, "environment": {"STUB_EXIT_AFTER_SECONDS": "0"}}, wait_seconds=3
        )
        token = await client.create_token("spare", agent_id=made.agent_id)
        planted.add("a token for one agent", token.token.get_secret_value())
        async with Client(cloud.url, token.token) as bound, bound.relay("GET", made.agent_id, "/api/health") as answer:
            assert answer.status == 200
        await _browser(cloud, client, planted, made.agent_id)
        session = await client.open_cli_session()
        planted.add("a login's session id", session.session_id.get_secret_value())
        await client.poll_cli_session(session.session_id)
        await _external(cloud, client, planted)
        os.kill(cloud.pid_of("elizacloud serve"), signal.SIGKILL)
        async with asyncio.timeout(WITHIN_SECONDS):
            while not await _is_ready(client):
                pass
        await client.wait_until(made.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        return made.agent_id


async def _browser(cloud: Cloud, client: Client, planted: Planted, agent_id: str) -> None:
    """A ticket that becomes a session, one that is refused, and a JWT; each is used."""
    jwt = planted.add("a JWT", (await client.create_jwt(agent_id=agent_id)).token.get_secret_value())
    host = f"{agent_id}.localhost:{urlsplit(cloud.url).port}"
    cookies: list[str] = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser:
        ticket = (await client.create_ticket(agent_id)).ticket.get_secret_value()
        page = f"{cloud.url}/.elizacloud/session?elizacloud_ticket={planted.add('a ticket', ticket)}"
        for status in (303, 401):
            async with browser.get(page, headers={"Host": host}, allow_redirects=False) as answer:
                assert answer.status == status
                cookies += [cookie.value for cookie in answer.cookies.values() if cookie.value]
        (session,) = cookies
        planted.add("a session", session)
        for credential in ({"Cookie": f"__Host-elizacloud={session}"}, {"Authorization": f"Bearer {jwt}"}):
            async with browser.get(f"{cloud.url}/api/health", headers={"Host": host, **credential}) as answer:
                assert answer.status == 200
        for wrong in (session, ticket, jwt):
            async with browser.get(
                f"{cloud.url}/api/v1/agents", headers={"Authorization": f"Bearer {wrong}"}
            ) as answer:
                assert answer.status in (401, 403)


async def _is_ready(client: Client) -> bool:
    with contextlib.suppress(Exception):
        return bool(await client.ready())
    return False


async def _external(cloud: Cloud, client: Client, planted: Planted) -> None:
    """An agent whose environment is told, and a container that uses its tokens for and against the rules."""
    created = await client.create_agent("by-hand", external=True, idempotency_key=canary())
    assert created.environment is not None
    environment = {name: value.get_secret_value() for name, value in created.environment.items()}
    planted.external(environment)
    containers = f"{environment['ELIZACLOUD_API_URL']}/containers/{created.agent_id}"
    headers = {"Authorization": f"Bearer {environment['ELIZACLOUD_JOIN_TOKEN']}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{containers}/networking", json={"headscaleIp": "100.64.99.99"}) as answer:
            assert answer.status in (202, 409)
        async with session.post(f"{containers}/rekey") as answer:
            if answer.status == 200:
                key = (await answer.json())["headscaleAuthKey"]
                planted.add("a key of a rekey", key, *kept_keys(key))


def _cli(cloud: Cloud, *arguments: str) -> bytes:
    environment = {**os.environ, **cloud.environment, "ELIZACLOUD_URL": cloud.url, "ELIZACLOUD_TOKEN": cloud.token}
    done = subprocess.run(cloud.command(*arguments), capture_output=True, timeout=60, check=False, env=environment)
    return done.stdout + done.stderr


def _check_snapshot(planted: Planted, agent_id: str) -> None:
    """The scan finds nothing in the relay's snapshot because it is sealed, not because nothing is in it."""
    sealed = (planted.data / "relay" / "upstreams.sealed").read_bytes()
    key = SecretStr((planted.data / "secret.key").read_text().strip())
    opened = Cipher(key).open(sealed, bound_to="the relay's last table")
    (*_, token) = [secret for secret in planted.found if secret.name == f"token of {agent_id}"]
    assert token.is_in(opened)


async def _plant_controls(cloud: Cloud, processes: Processes, answers: Answers, agent_id: str) -> Secret:
    """Put a value that is no secret into every kind of sink: what the scan does not find there, it does not look for."""
    control = Secret("the control", canary())
    data = cloud.data_dir / "data"
    assert await answers.ask("PATCH", f"/api/v1/agents/{agent_id}", body={"agentName": control.value}) == 200
    for log in [*data.glob("logs/*.log"), *data.glob("agents/*/*/*.log")]:
        with log.open("a") as file:
            file.write(f"{control.value}\n")
    with (cloud.data_dir / "up.log").open("a") as file:
        file.write(f"{control.value}\n")
    idle = [sys.executable, "-c", "input()", "devcontrol", str(data), control.value]
    process = await asyncio.create_subprocess_exec(
        *idle, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, env={"CONTROL": control.value}
    )
    processes.look()
    await process.communicate(b"\n")
    return control


def _check_controls(sinks: Mapping[str, bytes], control: Secret) -> None:
    holding = {sink for _, sink in leaks(sinks, [control])}
    logs = {sink for sink in sinks if sink.endswith(".log")}
    names = ("control-plane", "relay", "relay-tailscaled", "process-host", "devcontrol", "headscale")
    assert {f"file:logs/{name}.log" for name in names[:4]} <= logs
    assert any(f"file:logs/{name}.log" in logs for name in names[4:])
    assert logs <= holding
    assert {"argv:control server", "environ:control server", "printed:errors"} <= holding
    assert any(sink.startswith("file:store.db") for sink in holding)
    assert any(sink.startswith("answered:") for sink in holding)
    roles = {"up", "control plane", "relay", "process host", "tailscaled", "control server", "agent"}
    assert {f"{kind}:{role}" for role in roles for kind in ("argv", "environ")} <= set(sinks)
    assert {"file:run.json", "file:installation.json", "file:relay/upstreams.sealed"} <= set(sinks)
