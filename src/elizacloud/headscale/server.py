"""A control server of our own, Headscale or devcontrol: where it lives, how it is started, when it is healthy.

Running it for ever is processes/'s part: give `spawn` to `supervise`. Stop it after its nodes' tailscaleds, with five
seconds of grace: Headscale ignores SIGTERM while the client of a deleted node stays connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from elizacloud.errors import HeadscaleUnavailable, Misconfigured
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.config import DATABASE, PREFIX_V4, ServerConfig, render
from elizacloud.headscale.protocol import Version
from elizacloud.headscale.remembered import Binary, Kind, Remembered, check_change, load, save, write_private
from elizacloud.processes import Child, LineSink, spawn

STOP_GRACE_SECONDS = 5.0
HEALTHY_WITHIN_SECONDS = 30.0
API_KEY_LIFETIME = "87600h"

_SOCKET_PATH_BYTES = 107
_FIRST_LOOK_SECONDS, _SLOWEST_LOOK_SECONDS = 0.01, 0.2


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute. The environment is complete: Headscale lets HEADSCALE_* override any line of its config."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class SupervisedServer:
    """One server in `directory` (made 0700), its socket in `run_dir` (short, 0700). Call `prepare` before the rest."""

    def __init__(
        self,
        directory: Path,
        binary: Binary,
        *,
        run_dir: Path,
        listen_host: str = "127.0.0.1",
        join_url: str | None = None,
        debug_listen: str | None = None,
    ) -> None:
        """`join_url` when agents join at another URL than http://listen_host:port; `debug_listen` is devcontrol's."""
        self.directory = directory.absolute()
        self.binary = binary
        self.socket = run_dir.absolute() / f"{binary.kind}.sock"
        self._listen_host = listen_host
        self._join_url = join_url
        self._debug_listen = debug_listen
        self._remembered: Remembered | None = None
        self._ipv6 = False

    def __repr__(self) -> str:
        return f"<SupervisedServer {self.binary.kind} {self.binary.version} in {self.directory}>"

    def prepare(self) -> None:
        """Make directory, ports and config. Raises Misconfigured when this binary or this port cannot be used here."""
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_BYTES:
            raise Misconfigured(f"cannot use the socket {self.socket}: its path is too long; use a shorter directory")
        try:
            for directory in (self.directory, self.socket.parent):
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(0o700)
            self._ipv6 = _can_bind(socket.SOCK_DGRAM, "::1", 0)
            self._remembered = self._choose(load(self.directory))
            save(self.directory, self._remembered)
            if self.binary.kind is Kind.HEADSCALE:
                write_private(self._config_file, render(self._config()))
                # Headscale would make it 0644; what SQLite puts beside it gets its mode.
                (self.directory / DATABASE).touch(mode=0o600)
                (self.directory / DATABASE).chmod(0o600)
        except OSError as error:
            raise Misconfigured(
                f"cannot prepare {self.binary.kind} in {self.directory}: {error.strerror or error};"
                " make the directory writable, with room on its disk"
            ) from error

    @property
    def url(self) -> str:
        """Where the control plane reaches the API."""
        return f"http://{_bracketed(self._reach_host)}:{self._known.port}"

    @property
    def join_url(self) -> str:
        return self._join_url or self.url

    @property
    def stun_port(self) -> int:
        return self._known.stun_port

    @property
    def metrics_url(self) -> str | None:
        if self.binary.kind is Kind.DEVCONTROL:
            return None
        return f"http://127.0.0.1:{self._known.metrics_port}/metrics"

    def serve_command(self) -> Command:
        if self.binary.kind is Kind.HEADSCALE:
            return self._command("--config", str(self._config_file), "serve")
        config = self._config()
        # A container bridge has a private address; devcontrol refuses any other.
        private = () if _is_loopback(config.listen_host) else ("--allow-private",)
        debug = ("--debug-listen", self._debug_listen) if self._debug_listen else ()
        return self._command(
            "serve",
            *("--listen", f"{_bracketed(config.listen_host)}:{config.port}"),
            *("--stun-listen", str(config.stun_port)),
            *("--state-dir", str(self.directory)),
            *("--unix-socket", str(self.socket)),
            *("--server-url", config.join_url),
            *("--prefix-v4", PREFIX_V4),
            *private,
            *debug,
        )

    def create_key_command(self) -> Command:
        """Prints an API key as JSON; it talks to the running server over its socket, there is no other way."""
        create = ("apikeys", "create", "--expiration", API_KEY_LIFETIME, "--output", "json")
        if self.binary.kind is Kind.HEADSCALE:
            return self._command("--config", str(self._config_file), *create)
        return self._command(*create, "--unix-socket", str(self.socket))

    async def spawn(self, log: LineSink) -> Child:
        """Start it, for `supervise` or a test; the caller stops the child, with STOP_GRACE_SECONDS."""
        command = self.serve_command()
        return spawn(command.argv, name=self.binary.kind, env=command.env, log=log, cwd=self.directory)

    async def wait_healthy(
        self,
        child: Child,
        *,
        within_seconds: float = HEALTHY_WITHIN_SECONDS,
        last_words: Callable[[], str] = lambda: "",
    ) -> None:
        """Return when it and its database answer. There is no event for that, so this looks, soon and then slower.

        Raises HeadscaleUnavailable when the child exits or the time is over; `last_words` is what it printed last.
        """
        client = HeadscaleClient(self.url, SecretStr(""))
        exited = asyncio.create_task(child.wait(), name=f"wait for the exit of {self.binary.kind}")
        pause = _FIRST_LOOK_SECONDS
        try:
            async with asyncio.timeout(within_seconds):
                while not exited.done():
                    with contextlib.suppress(HeadscaleUnavailable):
                        return await client.health()
                    await asyncio.wait([exited], timeout=pause)
                    pause = min(pause * 1.5, _SLOWEST_LOOK_SECONDS)
            raise HeadscaleUnavailable(f"cannot start {self.binary.kind}: {exited.result()}{_said(last_words())}")
        except TimeoutError as error:
            raise HeadscaleUnavailable(
                f"cannot start {self.binary.kind}: not healthy after {within_seconds:g} s{_said(last_words())}"
            ) from error
        finally:
            exited.cancel()
            await client.close()

    def remember(self, version: Version) -> None:
        """Keep what the running server was found to be, for the check at the next start."""
        remembered = replace(self._known, version=self.binary.version, level=version.api)
        if remembered != self._remembered:
            save(self.directory, remembered)
            self._remembered = remembered

    @property
    def _known(self) -> Remembered:
        if self._remembered is None:
            raise Misconfigured(f"cannot use {self!r}: call prepare() first")
        return self._remembered

    @property
    def _config_file(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def _reach_host(self) -> str:
        """An address of ours to call it at: the one it listens on, loopback when that is all of them."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._listen_host, self._listen_host)

    def _config(self) -> ServerConfig:
        known = self._known
        return ServerConfig(
            directory=self.directory,
            unix_socket=self.socket,
            join_url=self.join_url,
            listen_host=self._listen_host,
            port=known.port,
            stun_port=known.stun_port,
            metrics_port=known.metrics_port,
            ipv6=self._ipv6,
        )

    def _command(self, *arguments: str) -> Command:
        env = {"PATH": os.defpath, "HOME": str(self.directory)}
        return Command((str(self.binary.path), *arguments), env)

    def _choose(self, before: Remembered | None) -> Remembered:
        """Check the binary against what was there before, and settle the ports."""
        stun_host = "::" if self._ipv6 else "0.0.0.0"
        if before is None:
            port = _free_port(socket.SOCK_STREAM, self._listen_host)
            stun = _free_port(socket.SOCK_DGRAM, stun_host)
            metrics = _free_port(socket.SOCK_STREAM, "127.0.0.1")
            chosen = Remembered(self.binary.kind, self.binary.version, None, port, stun, metrics)
            check_change(chosen, self.binary)
            return chosen
        check_change(before, self.binary)
        if not _can_bind(socket.SOCK_STREAM, self._listen_host, before.port):
            raise Misconfigured(
                f"cannot listen on {self._listen_host}:{before.port}: another program has it, and agents keep joining"
                " there; stop that program",
                code="port_in_use",
            )
        # Agents learn the STUN port anew at each connection, and nobody keeps the metrics port: those may move.
        if not _can_bind(socket.SOCK_DGRAM, stun_host, before.stun_port):
            before = replace(before, stun_port=_free_port(socket.SOCK_DGRAM, stun_host))
        if not _can_bind(socket.SOCK_STREAM, "127.0.0.1", before.metrics_port):
            before = replace(before, metrics_port=_free_port(socket.SOCK_STREAM, "127.0.0.1"))
        return before


def _bound(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        if kind is socket.SOCK_STREAM:
            # As Go does: connections that linger from the last run are no reason to refuse.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _can_bind(kind: socket.SocketKind, host: str, port: int) -> bool:
    try:
        _bound(kind, host, port).close()
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES):
            return False
        raise
    return True


def _free_port(kind: socket.SocketKind, host: str) -> int:
    with _bound(kind, host, 0) as bound:
        return int(bound.getsockname()[1])


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _said(words: str) -> str:
    return f"; it said: {words.strip()}" if words.strip() else ""
