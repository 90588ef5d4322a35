"""`elizacloud up`: the whole cloud on one machine, as supervised children of this process.

    control server   Headscale or devcontrol, unless it runs elsewhere
    relay tailscaled the relay's node on the tailnet
    process host     agents, as its children: they outlive the control plane, and end with `up`; none with Docker
    control plane    `elizacloud serve`
    relay            `elizacloud relay`, on the listening socket that this process owns: a restart drops no connection;
                     its workers are its own children

Started in this order, stopped in reverse; a child that dies is started again. When this process is killed, the kernel
tells its children, and the next start ends what was left all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

import aiohttp
import structlog
from pydantic import SecretStr

from elizacloud.app import announce
from elizacloud.app.announce import OwnerTokens, Running
from elizacloud.app.children import Children, ChildSpec, Kept, ready_or_exit
from elizacloud.app.control_server import Remote, obtain
from elizacloud.app.data_dir import DataDir, open_data_dir
from elizacloud.app.docker_host import prepare_docker, stop_agents
from elizacloud.app.listening import listening_socket, remembered_report_address, url_of
from elizacloud.app.relay import NOT_THE_RELAYS
from elizacloud.app.relay_node import RelayNode
from elizacloud.app.running import Signals, run_until_signal
from elizacloud.app.stuck import restart_when_stuck
from elizacloud.app.tailnet_mode import prepare_machine, release_machine
from elizacloud.binaries import Binaries, show_progress
from elizacloud.errors import Misconfigured, Unavailable
from elizacloud.headscale.bootstrap import bootstrap, ensure_policy
from elizacloud.headscale.client import USER, HeadscaleClient
from elizacloud.headscale.remembered import Kind
from elizacloud.headscale.server import STOP_GRACE_SECONDS, SupervisedServer
from elizacloud.processes import end_leftovers
from elizacloud.settings import Settings, child_environment, is_loopback
from elizacloud.tailnet.localapi import LocalApi

READY_SECONDS = 60.0
LOOK_SECONDS = 0.05
AGENT_MEMORY_LIMIT = "64MiB"
TAILSCALED_EVERY_SECONDS = 1.0
TAILSCALED_DEADLINE_SECONDS = 2.0
TAILSCALED_PATIENCE = 5
"""Looks. Patient, because what tailscaled knows of its peers is lost with it while Headscale is down."""

log = structlog.get_logger()


def run(settings: Settings, *, ready_file: Path | None = None, config: Path | None = None) -> None:
    """Run until SIGINT or SIGTERM; children read the settings file `config`, too.

    Raises an Error, with nothing left running, when it cannot start.
    """
    prepare_machine(settings)
    data = open_data_dir(settings)
    data.lock("up", "elizacloud up")
    end_leftovers(data.path / "processes")
    run_until_signal(partial(_run, settings, data, ready_file, config))


async def _run(
    settings: Settings, data: DataDir, ready_file: Path | None, config: Path | None, signals: Signals
) -> None:
    stop = signals.stop
    cloud = _Cloud(settings, data, config)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    try:
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(stop.wait(), name="wait for a signal")
            starting = group.create_task(cloud.start(group), name="start")
            group.create_task(cloud.renew(signals.renew), name="wait for SIGHUP")
            await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and not stop.is_set():
                await _announce(starting.result(), cloud, data, ready_file)
                await stop.wait()
            log.info("stopping")
            raise _Stopping
    except* _Stopping:
        pass
    finally:
        # After the group, so that no error of its tasks can break off the stop.
        try:
            await cloud.stop()
        finally:
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
            data.run_file.unlink(missing_ok=True)


class _Stopping(Exception):
    """Ends the group and all that watches in it."""


async def _announce(running: Running, cloud: _Cloud, data: DataDir, ready_file: Path | None) -> None:
    tokens = OwnerTokens(running.sockets["api"], cloud.operator_token)
    first = None if await tokens.exist() else await tokens.create("first")
    announce.write_run_file(data.run_file, running)
    if ready_file is not None:
        announce.write_ready_file(ready_file, running, first or await tokens.create(ready_file.name))
    sys.stdout.write(announce.welcome(running, first))
    sys.stdout.flush()


class _Cloud:
    """The children, and what each needs of those before it."""

    def __init__(self, settings: Settings, data: DataDir, config: Path | None) -> None:
        self._settings = settings
        self._data = data
        self._config = config
        self._children: Children | None = None
        self._headscale: HeadscaleClient | None = None
        self._front: socket.socket | None = None
        self._tailscaled: LocalApi | None = None
        self._relay: Kept | None = None
        self._inside = ""
        self._stun_port: int | None = None
        self.operator_token = data.operator_token(settings)
        data.secret_key(settings)
        self._sockets = {
            "api": settings.api_socket or data.sockets / "api.sock",
            "link": settings.link_socket or data.sockets / "link.sock",
            "tailscaled": settings.tailscaled_socket or data.sockets / "relay" / "tailscaled.sock",
            "process_host": settings.process_host_socket or data.sockets / "agents" / "host.sock",
        }

    async def start(self, group: asyncio.TaskGroup) -> Running:
        """Start every child; return when a request through the front door finds all of them ready."""
        settings, data = self._settings, self._data
        # Kept for as long as this process lives: connections wait in its queue while the relay is started again.
        self._front = front = listening_socket(settings.host, settings.port)
        here = url_of(front, tls=settings.tls_certificate_file is not None)
        with show_progress() as progress:
            tailscaled = (await Binaries.from_settings(settings, progress).tailscaled()).path
            server = await obtain(settings, data.control_server, progress)
        _check_exposure(settings, None if isinstance(server, Remote) else server.kind)
        on_docker = settings.runtime == "docker"
        # Containers reach this machine at Docker's bridge, where its own processes reach it, too.
        self._inside = inside = await prepare_docker(settings, tailscaled) if on_docker else "127.0.0.1"
        self._children = children = Children(group, data.logs)

        needed = [] if on_docker else [children.keep(self._process_host(tailscaled))]
        if isinstance(server, Remote):
            api_url, join_url, kind = server.url, settings.headscale_join_url or server.url, Kind.HEADSCALE
            key, key_setting = self._remote_key(), None
            self._headscale = HeadscaleClient(api_url, key)
            version = (await self._headscale.version()).text
            await self._headscale.ensure_user(USER)
            await ensure_policy(self._headscale)
        else:
            supervised = SupervisedServer(
                data.control_server,
                server,
                run_dir=data.sockets / "control",
                listen_host=inside,
                join_url=settings.headscale_join_url,
                debug_listen=settings.devcontrol_debug_listen,
            )
            supervised.prepare()
            await self._start_server(supervised, group)
            api_url, join_url, kind, version = supervised.url, supervised.join_url, server.kind, server.version
            self._stun_port = supervised.stun_port
            key_setting = f"file:{data.control_server / 'api.key'}"
        assert self._headscale is not None

        node = RelayNode(
            tailscaled,
            data.relay / "tailscaled",
            self._sockets["tailscaled"],
            join_url=join_url,
            installation_id=data.installation_id,
            memory_limit=settings.relay_tailscaled_memory,
            tun=settings.tailnet_mode == "tun",
        )
        tailscaled_kept = children.keep(node.child())
        environment = self._environment(api_url, join_url, key_setting)
        control_plane = children.keep(self._elizacloud("control plane", "serve", environment))
        await node.join(self._headscale)
        relay_environment = self._environment(api_url, join_url, None, without=NOT_THE_RELAYS)
        self._relay = children.keep(self._elizacloud("relay", "relay", relay_environment, listen_fd=front.fileno()))
        self._watch_tailscaled(tailscaled_kept, group)
        needed.append(control_plane)
        await ready_or_exit(needed, _until_ready(here), within_seconds=READY_SECONDS)
        return Running(settings.public_url or here, os.getpid(), api_url, kind, version, data.path, self._sockets)

    async def stop(self) -> None:
        """Stop all that was started; nothing of the group that `start` got may run any more."""
        if self._children is not None:
            try:
                await self._children.stop()
            finally:
                if self._settings.runtime == "docker":
                    await stop_agents(self._settings, self._data.installation_id)
                release_machine(self._settings)
        if self._headscale is not None:
            await self._headscale.close()
        if self._tailscaled is not None:
            await self._tailscaled.close()
        if self._front is not None:
            self._front.close()

    async def renew(self, told: asyncio.Event) -> NoReturn:
        """Pass on to the relay that its workers are to be replaced."""
        while True:
            await told.wait()
            told.clear()
            if self._relay is not None and self._relay.child is not None:
                self._relay.child.signal(signal.SIGHUP)

    def _watch_tailscaled(self, kept: Kept, group: asyncio.TaskGroup) -> None:
        self._tailscaled = LocalApi(self._sockets["tailscaled"])
        answers = partial(self._tailscaled.answers, within_seconds=TAILSCALED_DEADLINE_SECONDS)
        watching = restart_when_stuck(
            kept, answers, every_seconds=TAILSCALED_EVERY_SECONDS, patience=TAILSCALED_PATIENCE
        )
        group.create_task(watching, name=f"health of {kept.name}")

    async def _start_server(self, server: SupervisedServer, group: asyncio.TaskGroup) -> None:
        assert self._children is not None
        command = server.serve_command()
        kept = self._children.keep(
            ChildSpec(str(server.binary.kind), command.argv, command.env, grace_seconds=STOP_GRACE_SECONDS)
        )
        child = await kept.started()
        await server.wait_healthy(child, within_seconds=READY_SECONDS, last_words=kept.log.recent)
        self._headscale = await bootstrap(server)
        watching = restart_when_stuck(kept, self._headscale.health)
        group.create_task(watching, name=f"health of {kept.name}")

    def _remote_key(self) -> SecretStr:
        if self._settings.headscale_api_key is None:
            raise Misconfigured(
                "cannot use a remote Headscale without its API key: make one with `headscale apikeys create` and set "
                "ELIZACLOUD_HEADSCALE_API_KEY"
            )
        return self._settings.headscale_api_key

    def _process_host(self, tailscaled: Path) -> ChildSpec:
        argv: list[str | Path] = [
            *(sys.executable, "-m", "elizacloud.runtime.process.host"),
            *("--socket", self._sockets["process_host"]),
            *("--data-dir", self._data.path),
            *("--tailscaled", tailscaled),
            *("--tailscaled-memory-limit", AGENT_MEMORY_LIMIT),
            *("--log-level", self._settings.log_level),
        ]
        return ChildSpec("process host", argv, child_environment(), when_parent_dies=signal.SIGTERM, grace_seconds=15)

    def _elizacloud(
        self, name: str, command: str, environment: Mapping[str, str], *, listen_fd: int | None = None
    ) -> ChildSpec:
        """A process of this program: the relay if it gets the front door's socket, else the control plane, whose lines are
        shown, too, as they tell what becomes of the agents."""
        argv = [sys.executable, "-m", "elizacloud", command]
        if listen_fd is not None:
            argv += ["--listen-fd", str(listen_fd)]
        grace_seconds = self._settings.drain_seconds + 10  # the relay's workers have 5 s less
        if listen_fd is None:
            return ChildSpec(name, argv, environment, grace_seconds=grace_seconds, shown=True)
        return ChildSpec(
            name,
            argv,
            environment,
            pass_fds=(listen_fd,),
            when_parent_dies=signal.SIGTERM,
            grace_seconds=grace_seconds,
        )

    def _environment(
        self, api_url: str, join_url: str, key_setting: str | None, *, without: Collection[str] = ()
    ) -> dict[str, str]:
        """The settings of this process for its children; secrets stay in files, or in a variable that we got ourselves."""
        settings = self._settings
        chosen = {
            "data_dir": str(self._data.path),
            "host": settings.host,
            "runtime": settings.runtime,
            "headscale_api_url": api_url,
            "headscale_join_url": join_url,
            "report_url": f"http://{(report := remembered_report_address(self._data, self._inside))}",
            "report_listen": report,
            "api_socket": str(self._sockets["api"]),
            "link_socket": str(self._sockets["link"]),
            "tailscaled_socket": str(self._sockets["tailscaled"]),
            "process_host_socket": str(self._sockets["process_host"]),
            "tailnet_mode": settings.tailnet_mode,
            "workers": str(settings.workers),
            "log_level": settings.log_level,
            "log_json": str(not sys.stderr.isatty() if settings.log_json is None else settings.log_json).lower(),
        }
        if self._stun_port is not None:
            chosen["docker_stun_port"] = str(self._stun_port)
        if key_setting is not None:
            chosen["headscale_api_key"] = key_setting
        return child_environment(chosen, without=without, config=self._config)


def _check_exposure(settings: Settings, kind: Kind | None) -> None:
    """The process runtime does not isolate, and devcontrol is for development: neither may be reached from outside."""
    if is_loopback(settings.host):
        return
    if kind is Kind.DEVCONTROL:
        what = "devcontrol is for development"
    elif settings.runtime == "process":
        what = "the process runtime does not isolate agents"
    else:
        return
    raise Misconfigured(f"cannot listen on {settings.host}: {what}, so `up` stays on loopback; use --host 127.0.0.1")


async def _until_ready(url: str) -> None:
    """Ask through the front door until everything behind it is ready; there is no event for that.

    Our own socket on loopback is asked, and no secret is sent, so its certificate need not name this address.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, Unavailable):
                async with session.get(f"{url}/readyz", ssl=False) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(LOOK_SECONDS)
