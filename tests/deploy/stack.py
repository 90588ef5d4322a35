"""The services of compose.yaml as processes of this machine: their own commands and environments, with addresses replaced.

What cannot be had as a program is stood in for, and nothing else: devcontrol for Headscale unless a real one is given, a
process host for the Docker Engine, PostgreSQL from PyPI. Certificates are those of Caddy's own authority, which tailscaled
is told to trust.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from elizacloud.headscale.bootstrap import obtain_api_key
from elizacloud.headscale.remembered import Binary, Kind
from elizacloud.headscale.server import STOP_GRACE_SECONDS, SupervisedServer
from elizacloud.processes import Child, LogFile, spawn
from tests.deploy.compose import DEPLOY, EXAMPLE, Service, load
from tests.deploy.programs import caddy
from tests.e2e.looking import a_moment
from tests.ports import free_port

WITHIN_SECONDS = 90
TAILSCALED = "ELIZACLOUD_TAILSCALED_BIN"

VARIABLES = {
    **EXAMPLE,
    "HEADSCALE_HOST": "localhost",  # tailscaled looks names up by itself, and this one is known everywhere
    "CLOUD_HOST": "127.0.0.1",
    "AGENTS_DOMAIN": "agents.test",
    "TLS": "internal",
    "AGENTS_TLS": "internal",
}


@dataclass
class Stack:
    """`start` one service after the other; what was started last ends first."""

    directory: Path
    binary: Binary
    database_url: str
    stack: AsyncExitStack
    children: dict[str, Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = load(VARIABLES).services
        self.https, self.http, self.relay, self.headscale, self.metrics, self.stun = (free_port() for _ in range(6))
        self.server: SupervisedServer | None = None
        for name in ("secrets", "host"):
            (self.directory / name).mkdir(mode=0o700)

    @property
    def cloud_url(self) -> str:
        return f"https://127.0.0.1:{self.https}"

    @property
    def join_url(self) -> str:
        return f"https://localhost:{self.https}"

    @property
    def authority(self) -> Path:
        return self.volume("caddy-data") / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    def volume(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def secret(self, name: str, value: str) -> None:
        (self.directory / "secrets" / name).write_text(f"{value}\n")

    def argv(self, service: Service, words: list[str] | None = None) -> list[str]:
        program, *arguments = words or service.argv
        tailscaled = os.environ[TAILSCALED]
        found = {
            "elizacloud": [sys.executable, "-m", "elizacloud"],
            "python": [sys.executable],
            "headscale": [str(self.binary.path)],
            "tailscaled": [tailscaled],
            "tailscale": [tailscaled],
        }
        return [*(found.get(program) or [str(caddy())]), *(self._replaced(service, word) for word in arguments)]

    def environment(self, service: Service, **more: str) -> dict[str, str]:
        own = {name: self._replaced(service, value) for name, value in service.environment.items()}
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), **own, **self._addresses(service.name), **more}

    async def start(self, name: str, **more: str) -> None:
        """Return when its health check says so."""
        service = self.services[name]
        await self.run_on(name, self.argv(service), self.environment(service, **more))
        async with asyncio.timeout(WITHIN_SECONDS):
            while await self._wrong_with(service):
                assert self.children[name].exit is None, self.log(name)
                await a_moment(0.1)

    async def run_on(self, name: str, argv: list[str], environment: Mapping[str, str]) -> None:
        log = LogFile(self.directory / f"{name}.log")
        self.stack.callback(log.close)
        self.children[name] = child = spawn(argv, name=name, env=environment, log=log.write)
        self.stack.push_async_callback(child.stop, STOP_GRACE_SECONDS)

    async def finish(self, name: str, **more: str) -> str:
        """A service that ends after a moment; what it said."""
        service = self.services[name]
        return await self.output(self.argv(service), self.environment(service, **more))

    async def output(self, argv: list[str], environment: Mapping[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(WITHIN_SECONDS):
            output, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        return output.decode()

    async def tailscale(self, *arguments: str) -> str:
        """The command in the relay's tailscaled."""
        service = self.services["relay-tailscaled"]
        words = [*service.health_check[:2], *arguments]
        return await self.output(self.argv(service, words), self.environment(service, TS_BE_CLI="1"))

    async def start_control_server(self) -> str:
        """Headscale by compose's own command where there is one, else devcontrol; its API key."""
        if self.binary.kind is Kind.HEADSCALE:
            service = self.services["headscale"]
            (self.directory / "config.yaml").write_text(
                self._replaced(service, (DEPLOY / "headscale-config" / "config.yaml").read_text())
            )
            await self.start("headscale")
            words = (DEPLOY / "start").read_text().partition("exec -T headscale ")[2].partition(" |")[0].split()
            return (await self.output(self.argv(service, words), self.environment(service))).strip()
        self.server = server = SupervisedServer(
            self.volume("headscale-data"), self.binary, run_dir=self.directory / "control", join_url=self.join_url
        )
        server.prepare()
        self.headscale = int(server.url.rpartition(":")[2])
        command = server.serve_command()
        await self.run_on("headscale", list(command.argv), command.env)
        await server.wait_healthy(self.children["headscale"])
        return (await obtain_api_key(server)).get_secret_value()

    async def start_process_host(self) -> None:
        """Where agents run here, in the Docker Engine's place."""
        argv = [sys.executable, "-m", "elizacloud.runtime.process.host", "--data-dir", str(self.volume("agents"))]
        argv += ["--socket", str(self.directory / "host" / "s"), "--tailscaled", os.environ[TAILSCALED]]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "SSL_CERT_FILE": str(self.authority)}
        await self.run_on("process host", argv, environment)

    async def _wrong_with(self, service: Service) -> bool:
        if service.name == "caddy":  # its check is a wget of its image's, at Caddy's own port
            return not self.authority.exists()
        process = await asyncio.create_subprocess_exec(
            *self.argv(service, service.health_check),
            env=self.environment(service, TS_BE_CLI="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return bool(await process.wait())

    def _replaced(self, service: Service, text: str) -> str:
        """A path in a container by where it lies here, an address of the deployment by one of this machine."""
        places = {"/run/secrets/": f"{self.directory}/secrets/", "/var/run/headscale/": f"{self.directory}/"}
        for target, source in service.mounts.items():
            if source.startswith("./"):
                places[target] = str(DEPLOY / source)
            elif not source.startswith("/"):
                places[target] = str(self.volume(source))
        addresses = {
            "https://localhost": self.join_url,
            "https://127.0.0.1": self.cloud_url,
            "http://127.0.0.1:8420": f"http://127.0.0.1:{self.relay}",
            "172.30.84.2:8080": f"127.0.0.1:{self.headscale}",
            "0.0.0.0:8080": f"127.0.0.1:{self.headscale}",
            "0.0.0.0:9090": f"127.0.0.1:{self.metrics}",
            "127.0.0.1:50443": "127.0.0.1:0",
            "[::]:3478": f"[::]:{self.stun}",
            "172.30.85.2": "127.0.0.1",
            "172.30.86.2": "127.0.0.1",
            "0.0.0.0:9101": "127.0.0.1:0",
            "0.0.0.0:9102": "127.0.0.1:0",
            "--port=41641": "--port=0",
        }
        for before, after in {**places, **addresses}.items():
            text = text.replace(before, after)
        return text

    def _addresses(self, service: str) -> dict[str, str]:
        """What compose leaves to the defaults of an image, or to another machine."""
        return {
            "caddy": {
                "HTTP_PORT": str(self.http),
                "HTTPS_PORT": str(self.https),
                "CADDY_ADMIN": f"unix/{self.directory}/caddy-admin",
                "HEADSCALE_UPSTREAM": f"127.0.0.1:{self.headscale}",
                "RELAY_UPSTREAM": f"127.0.0.1:{self.relay}",
            },
            "headscale": {"HEADSCALE_CONFIG": str(self.directory / "config.yaml")},
            "control-plane": {
                "ELIZACLOUD_RUNTIME": "process",
                "ELIZACLOUD_PROCESS_HOST_SOCKET": str(self.directory / "host" / "s"),
            },
            "relay": {"ELIZACLOUD_HOST": "127.0.0.1", "ELIZACLOUD_PORT": str(self.relay)},
            "relay-tailscaled": {"SSL_CERT_FILE": str(self.authority)},
        }.get(service, {})


@asynccontextmanager
async def brought_up(binary: Binary, database_url: str) -> AsyncIterator[Stack]:
    """All of it, in the order of `depends_on`."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="ec-", dir="/tmp", ignore_cleanup_errors=True)))
        made = Stack(directory, binary, database_url, stack)
        made.secret("headscale_api_key", await made.start_control_server())
        made.secret("database_url", database_url)
        made.secret("operator_token", "ecop_for-the-tests-of-the-deployment")
        made.secret("secret_key", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MDA=")
        await made.start("caddy")
        await made.start_process_host()
        await made.start("control-plane")
        # Whatever goes over the tailnet from here goes through the DERP relay behind Caddy.
        service = made.services["relay-tailscaled"]
        environment = made.environment(service, TS_DEBUG_ALWAYS_USE_DERP="1")
        await made.run_on("relay-tailscaled", made.argv(service), environment)
        assert "is on the tailnet" in await made.finish("join-relay")
        await made.tailscale("status", "--peers=false")  # its health check
        await made.start("relay")
        yield made
