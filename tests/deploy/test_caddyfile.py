"""The Caddyfile in a real Caddy: well formed, and of Headscale it makes public what a tailscaled needs, to the letter."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deploy.compose import DEPLOY
from tests.deploy.programs import caddy, run
from tests.ports import free_port

CADDYFILE = DEPLOY / "caddy" / "Caddyfile"
NAMES = {
    "HEADSCALE_HOST": "headscale.test",
    "CLOUD_HOST": "cloud.test",
    "AGENTS_DOMAIN": "agents.test",
    "TLS": "internal",
    "AGENTS_TLS": "internal",
}
START_SECONDS = 30

PUBLIC = ["/key?v=130", "/ts2021", "/derp", "/derp/probe", "/derp/latency-check"]
INSIDE = [
    *("/", "/health", "/version", "/metrics", "/verify", "/swagger", "/apple", "/windows", "/bootstrap-dns"),
    *("/api/v1/node", "/api/v1/apikey", "/register/x", "/oidc/callback", "/debug/", "/machine/register"),
    *("/key/", "/key/../api/v1/node", "/derp/../api/v1/node", "/derp/%2e%2e/api/v1/node", "/derp/..%2fapi/v1/node"),
    *(
        "/derp/x",
        "/derp/probe/../../api/v1/node",
        "/keys",
        "/ts2021/..;/api/v1/node",
        "//api/v1/node",
        "/%2fapi/v1/node",
    ),
]


class _Server(ThreadingHTTPServer):
    called = ""


class _Upstream(BaseHTTPRequestHandler):
    """Answers with its server's name, the path that it was asked for, and what a proxy said of the client."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        called = self.server.called
        told = "|".join(
            self.headers.get(name, "-") for name in ("X-Real-IP", "True-Client-IP", "X-Forwarded-For", "Host")
        )
        body = f"{called} {self.path} {told}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@dataclass
class Front:
    port: int
    http_port: int
    trusted: ssl.SSLContext

    def get(self, name: str, path: str, **headers: str) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain:
            connection = http.client.HTTPConnection(name, self.port, timeout=10)
            connection.sock = self.trusted.wrap_socket(plain, server_hostname=name)
            with closing(connection):
                connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
                for field, value in {"Host": f"{name}:{self.port}", **headers}.items():
                    connection.putheader(field, value)
                connection.endheaders()
                response = connection.getresponse()
                return response.status, response.read().decode()


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    """Caddy with its own authority, before two upstreams that answer everything."""
    program = caddy()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp")))
        upstreams = {}
        for name in ("headscale", "relay"):
            server = _Server(("127.0.0.1", 0), _Upstream)
            server.called = name
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            upstreams[f"{name.upper()}_UPSTREAM"] = f"127.0.0.1:{server.server_address[1]}"
        ports = [free_port() for _ in range(2)]
        environment = {
            **NAMES,
            **upstreams,
            "HTTPS_PORT": str(ports[0]),
            "HTTP_PORT": str(ports[1]),
            "CADDY_ADMIN": f"unix/{directory}/admin",
            "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
            "HOME": str(directory),
        }
        process = stack.enter_context(
            subprocess.Popen(
                [program, "run", "--config", CADDYFILE, "--adapter", "caddyfile"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.terminate)
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "serving initial configuration" in line:
                break
        else:
            raise AssertionError("".join(told))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        trusted = ssl.create_default_context(cafile=directory / "caddy" / "pki" / "authorities" / "local" / "root.crt")
        made = Front(ports[0], ports[1], trusted)
        for name in ("headscale.test", "cloud.test", "a.agents.test"):
            until_served(made, name)
        yield made


def until_served(front: Front, name: str) -> None:
    """Certificates are made after the start."""
    waiting = threading.Event()
    for _ in range(START_SECONDS * 20):
        try:
            front.get(name, "/")
            return
        except (OSError, ssl.SSLError):
            waiting.wait(0.05)
    raise AssertionError(f"{name} has no certificate")


@pytest.mark.parametrize("tls", ["ops@example.com", "internal"])
def test_caddy_takes_it_as_production_has_it(tls: str, tmp_path: Path) -> None:
    environment = {**NAMES, "TLS": tls, "HOME": str(tmp_path)}
    checked = run(caddy(), "validate", "--config", CADDYFILE, "--adapter", "caddyfile", **environment)
    assert checked.returncode == 0, checked.stderr


def test_it_is_formatted() -> None:
    checked = run(caddy(), "fmt", "--diff", CADDYFILE)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", PUBLIC)
def test_a_tailscaled_gets_through(front: Front, path: str) -> None:
    status, body = front.get("headscale.test", path)
    assert (status, body.split()[:2]) == (200, ["headscale", path])


@pytest.mark.parametrize("path", INSIDE)
def test_nothing_else_of_headscale_is_public(front: Front, path: str) -> None:
    assert front.get("headscale.test", path) == (404, "")


@pytest.mark.parametrize("name", ["cloud.test", "a.agents.test"])
@pytest.mark.parametrize("path", ["/", "/api/relay/x/y%2fz?q=%20", "/healthz", "/key", "/derp"])
def test_the_other_names_are_the_relays(front: Front, name: str, path: str) -> None:
    status, body = front.get(name, path)
    assert (status, body.split()[:2]) == (200, ["relay", path])


def test_headscale_is_told_the_clients_address_and_nothing_a_client_made_up(front: Front) -> None:
    lies = {"X-Real-IP": "203.0.113.9", "True-Client-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.9"}
    _, body = front.get("headscale.test", "/key", **lies)
    assert body.split()[2].split("|")[:3] == ["127.0.0.1", "-", "127.0.0.1"]


def test_the_relay_is_told_the_host_and_the_clients_address(front: Front) -> None:
    _, body = front.get("a.agents.test", "/", **{"X-Forwarded-For": "203.0.113.9"})
    assert body.split()[2].split("|")[2:] == ["127.0.0.1", f"a.agents.test:{front.port}"]


def test_a_name_that_is_not_ours_gets_no_certificate(front: Front) -> None:
    with pytest.raises(ssl.SSLError):
        front.get("stranger.test", "/")


def test_plain_http_is_sent_to_https(front: Front) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.http_port, timeout=10)
    with closing(connection):
        connection.request("GET", "/x", headers={"Host": "cloud.test"})
        response = connection.getresponse()
        assert response.status == 308
        assert (response.getheader("Location") or "").startswith("https://cloud.test")
