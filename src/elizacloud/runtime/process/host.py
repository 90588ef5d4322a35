"""`python -m elizacloud.runtime.process.host`: the process that agents are children of, so that they outlive the control plane.

It survives its clients and ends with `up`: on SIGTERM or SIGINT it stops every instance in a bounded time; after a
`kill -9` the kernel ends its children, and its next start what those left. One host owns a data dir.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web

from elizacloud.errors import Error, Misconfigured
from elizacloud.log import configure_logging
from elizacloud.processes import end_leftovers
from elizacloud.runtime.process.instances import Instances
from elizacloud.runtime.process.routes import make_app
from elizacloud.runtime.process.unit import Machine

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """`socket`'s directory also gets the agents' own sockets: keep its path under about 60 bytes."""

    socket: Path
    data_dir: Path
    tailscaled: Path
    memory_limit: str = ""
    grace_seconds: float = 5.0
    group_may_ask: bool = False
    """Then the control plane can be another user, of this one's group: agents run as this one."""


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT. Raises Misconfigured when the data dir or the socket cannot be used."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    volumes = options.data_dir / "agents"
    for directory in (options.data_dir, volumes):
        _make_private(directory, 0o700)
    _make_private(options.socket.parent, 0o750 if options.group_may_ask else 0o700)
    with _only_host_of(options.data_dir):
        await asyncio.to_thread(end_leftovers, options.data_dir / "process-host.mark")
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
            machine = Machine(options.tailscaled, options.memory_limit, inherited, http)
            instances = Instances(machine, volumes=volumes, sockets=options.socket.parent, tasks=tasks)
            instances.load()
            runner = web.AppRunner(
                make_app(instances), access_log=None, shutdown_timeout=0.1, handler_cancellation=True
            )
            await runner.setup()
            await _listen(runner, options.socket, 0o660 if options.group_may_ask else 0o600)
            log.info("process host listens", socket=str(options.socket))
            try:
                await stop.wait()
            finally:
                await runner.cleanup()
                await instances.end_all(options.grace_seconds)
    log.info("process host ended")


def _make_private(directory: Path, mode: int) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o777 != mode:
            directory.chmod(mode)
    except OSError as error:
        raise Misconfigured(f"cannot use {directory}: {error.strerror}; check its owner and the disk") from error


@contextmanager
def _only_host_of(data_dir: Path) -> Iterator[None]:
    descriptor = os.open(data_dir / "process-host.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Misconfigured(f"cannot use {data_dir}: another process host has it; stop that one") from error
        yield
    finally:
        os.close(descriptor)


async def _listen(runner: web.AppRunner, socket: Path, mode: int) -> None:
    """Listen on a socket that only those of this mode can open. One that an earlier host left is replaced: it had the lock."""
    socket.unlink(missing_ok=True)
    before = os.umask(0o777 & ~mode)
    try:
        await web.UnixSite(runner, str(socket)).start()
    except OSError as error:
        raise Misconfigured(f"cannot listen on {socket}: {error}; use a path of at most 107 bytes") from error
    finally:
        os.umask(before)


def _parse(arguments: Sequence[str] | None) -> tuple[Options, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="elizacloud process host", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument("--data-dir", type=Path, required=True, help="volumes are in its agents/")
    parser.add_argument("--tailscaled", type=Path, required=True, help="the tailscaled binary")
    parser.add_argument("--tailscaled-memory-limit", default="", help='GOMEMLIMIT of each, as "64MiB"')
    parser.add_argument("--grace-seconds", type=float, default=5.0, help="how long agents get to end by themselves")
    parser.add_argument("--group-may-ask", action="store_true", help="let this user's group open the socket, too")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-json", action=argparse.BooleanOptionalAction, default=None)
    given = parser.parse_args(arguments)
    options = Options(
        given.socket.absolute(),
        given.data_dir.absolute(),
        given.tailscaled.absolute(),
        given.tailscaled_memory_limit,
        given.grace_seconds,
        given.group_may_ask,
    )
    return options, given


def main(arguments: Sequence[str] | None = None) -> None:
    options, given = _parse(arguments)
    configure_logging(level=given.log_level, json=given.log_json, process="process host")
    try:
        asyncio.run(serve(options))
    except* Error as group:
        sys.exit("; ".join(str(error) for error in group.exceptions))


if __name__ == "__main__":
    main()
