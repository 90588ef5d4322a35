"""A running instance: the agent and its tailscaled, started side by side. When either ends, both are ended.

An agent may end while its tailscaled still joins. Headscale may have its node and its key may be spent then, and tailscaled does
not know it yet: the next run would find neither a node nor a key. So the end of a first run waits a moment for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import structlog

from elizacloud.errors import RuntimeRefused
from elizacloud.processes import Child, Exit, LogFile, spawn
from elizacloud.processes.usage import usage_of_trees
from elizacloud.runtime.environment import Listen, agent_environment
from elizacloud.runtime.process.membership import Report, be_member
from elizacloud.runtime.process.volume import Volume
from elizacloud.runtime.protocol import EXIT_KEY_DEAD, OF_TAILNET, STOPPED, InstanceSecrets, InstanceSpec, Usage
from elizacloud.tailnet import JoinPrefs, KeyRefused, LocalApi, Tailscaled
from elizacloud.tailnet.tailscaled import udp_port_of

EXIT_TAILSCALED = 69  # EX_UNAVAILABLE of sysexits.h
EXIT_OURS = 70  # EX_SOFTWARE
TAILSCALED_GRACE_SECONDS = 2.0
IDENTITY_SECONDS = 5.0
"""How long tailscaled may still join when the agent has ended; Headscale 0.27 takes up to 2.5 s to let a node in."""
TAILSCALED_LOG_BYTES = 1024 * 1024
STUB_AGENT = (sys.executable, "-m", "elizacloud.stub_agent")

E = TypeVar("E", bound=BaseException)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Machine:
    """What all units of a host share."""

    tailscaled: Path
    memory_limit: str
    inherited: Mapping[str, str]
    """The host's own environment, of which PATH and LANG are passed on."""
    http: aiohttp.ClientSession


class UnitEnded(Exception):
    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason


class Unit:
    """Made by `begin_unit`. `run` is its owner's task; the other methods may be called while that runs."""

    def __init__(
        self, agent: Child, tailscaled: Child, api: LocalApi, *, own_log: LogFile, tailscaled_log: LogFile
    ) -> None:
        self._agent = agent
        self._tailscaled = tailscaled
        self._api = api
        self._own_log = own_log
        self._tailscaled_log = tailscaled_log
        self._stop_asked = asyncio.Event()
        self._grace_seconds = 5.0

    def freeze(self) -> None:
        self._agent.signal(signal.SIGSTOP)
        self._tailscaled.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._tailscaled.signal(signal.SIGCONT)
        self._agent.signal(signal.SIGCONT)

    def usage(self) -> Usage:
        cpu_seconds, memory_bytes = usage_of_trees((self._agent.pid, self._tailscaled.pid))
        return Usage(cpu_seconds, memory_bytes, memory_limit_bytes=None, received_bytes=None, sent_bytes=None)

    def ask_to_stop(self, grace_seconds: float) -> None:
        """Make `run` return: the agent gets this long to end by itself."""
        self._grace_seconds = grace_seconds
        self._stop_asked.set()

    async def run(self, spec: InstanceSpec, secrets: InstanceSecrets, listen: Listen, machine: Machine) -> UnitEnded:
        """Live until something ends it, and say what; nothing of the unit runs when this returns."""
        report = None
        if spec.report_url:
            report = Report(spec.report_url, spec.labels.agent_id, secrets.join_token)
        identified = asyncio.Event()
        if secrets.preauth_key is None:
            identified.set()  # an earlier run joined
        member = be_member(
            self._api,
            JoinPrefs(spec.join_url, spec.hostname),
            secrets.preauth_key,
            serve_target=listen.serve_target,
            report=report,
            http=machine.http,
            say=self._say,
            identified=identified,
        )
        ended = UnitEnded(EXIT_OURS, "ended for no known reason")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._until_agent_exits(identified), name=f"agent of {spec.hostname}")
                tasks.create_task(self._until_tailscaled_exits(), name=f"tailscaled of {spec.hostname}")
                tasks.create_task(self._until_asked_to_stop(), name=f"stop of {spec.hostname}")
                tasks.create_task(member, name=f"membership of {spec.hostname}")
        except* UnitEnded as group:
            ended = _first(group)
        except* KeyRefused as group:
            ended = UnitEnded(EXIT_KEY_DEAD, f"{OF_TAILNET}{_first(group)}")
        except* Exception as group:
            # One instance's unforeseen trouble must not end the host, and with it all the others.
            log.exception("unit failed", agent=spec.labels.agent_id)
            ended = UnitEnded(EXIT_OURS, f"internal: {_first(group)!r}")
        finally:
            own_end = self._agent.exit
            await self._end()
        if own_end is not None:  # whatever else ended while tailscaled could still join
            ended = _of_agent(own_end)
        if self._stop_asked.is_set() and self._agent.exit is not None:
            ended = UnitEnded(_exit_code(self._agent.exit), STOPPED)
        return ended

    def _say(self, text: str) -> None:
        self._own_log.write(f"[elizacloud] {text}".encode())

    async def _until_agent_exits(self, identified: asyncio.Event) -> None:
        exit_ = await self._agent.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDENTITY_SECONDS):
                await identified.wait()
        raise _of_agent(exit_)

    async def _until_tailscaled_exits(self) -> None:
        exit_ = await self._tailscaled.wait()
        raise UnitEnded(EXIT_TAILSCALED, f"{OF_TAILNET}tailscaled ended: {exit_}")

    async def _until_asked_to_stop(self) -> None:
        await self._stop_asked.wait()
        raise UnitEnded(0, STOPPED)

    async def _end(self) -> None:
        await self._api.close()
        try:
            await self._agent.stop(self._grace_seconds)
        finally:
            await self._tailscaled.stop(TAILSCALED_GRACE_SECONDS)
            self._tailscaled_log.close()


async def begin_unit(
    spec: InstanceSpec, secrets: InstanceSecrets, volume: Volume, own_log: LogFile, machine: Machine
) -> tuple[Unit, Listen]:
    """Spawn the two processes. Raises RuntimeRefused, SpawnFailed or OSError, and then nothing runs."""
    listen = _listen(spec, volume)
    places = volume.places
    volume.write(places.join_token, secrets.join_token.get_secret_value().encode())
    volume.write(places.busy_token, secrets.busy_token.get_secret_value().encode())
    environment, refused = agent_environment(spec, secrets, places, listen, machine.inherited)
    for name in refused:
        own_log.write(f"[elizacloud] the variable {name} is reserved and was not set".encode())
    daemon = Tailscaled(
        binary=machine.tailscaled,
        state_dir=volume.tailscale,
        socket=volume.tailscaled_socket,
        join_url=spec.join_url,
        udp_port=udp_port_of(volume.tailscale),
        memory_limit=machine.memory_limit,
    )
    daemon.prepare()
    tailscaled_log = LogFile(volume.tailscaled_log, max_bytes=TAILSCALED_LOG_BYTES, keep=1)
    try:
        # First, because the way to the tailnet is the longer one.
        tailscaled = spawn(
            daemon.argv(),
            name=f"tailscaled {spec.labels.agent_id}",
            env=daemon.environment(),
            log=tailscaled_log.write,
        )
        try:
            agent = spawn(
                spec.agent.command or STUB_AGENT,
                name=f"agent {spec.labels.agent_id}",
                env=environment,
                log=own_log.write,
                cwd=places.state,
            )
        except BaseException:
            await tailscaled.stop(0)
            raise
    except BaseException:
        tailscaled_log.close()
        raise
    api = LocalApi(volume.tailscaled_socket)
    return Unit(agent, tailscaled, api, own_log=own_log, tailscaled_log=tailscaled_log), listen


def _listen(spec: InstanceSpec, volume: Volume) -> Listen:
    built_in = spec.agent.command is None
    if built_in and os.geteuid() == 0:  # for others tailscaled serves no unix socket (ipn/localapi/serve.go, v1.102.3)
        volume.agent_socket.unlink(missing_ok=True)
        return Listen(socket=volume.agent_socket)
    with socket.socket() as probe:
        # As a server would bind it, so that connections of an earlier run that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", spec.agent.port or 0))
        except OSError as error:
            raise RuntimeRefused(
                f"cannot start the agent: port {spec.agent.port} of 127.0.0.1 is taken ({error.strerror}); "
                "leave `port` out, and the agent gets a free one in PORT",
                code="port_in_use",
            ) from error
        return Listen(port=probe.getsockname()[1], exactly=built_in)


def _of_agent(exit_: Exit) -> UnitEnded:
    return UnitEnded(_exit_code(exit_), f"agent: {exit_}")


def _exit_code(exit_: Exit) -> int:
    """As a shell says it: 128 and the signal's number for one that was killed."""
    return exit_.code if exit_.code >= 0 else 128 - exit_.code


def _first(group: BaseExceptionGroup[E]) -> E:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
