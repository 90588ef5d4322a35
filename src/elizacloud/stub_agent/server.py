"""Listen, live, end: the agent as a process, and `running` for tests that want it in their own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import uvloop

from elizacloud.stub_agent.agent import Agent
from elizacloud.stub_agent.config import Address, Config, TcpAddress, UnixAddress, read_config
from elizacloud.stub_agent.http import Connection
from elizacloud.stub_agent.routes import Routes


@contextlib.asynccontextmanager
async def running(config: Config, exit_process: Callable[[int], object] = os._exit) -> AsyncIterator[Address]:
    """The agent, listening, for as long as the block lasts; gives the address that it listens on."""
    agent = Agent(config)
    routes = Routes(agent, exit_process)
    loop = asyncio.get_running_loop()
    listener, address = _bind(config.listen)
    open_connections: set[Connection] = set()
    async with asyncio.TaskGroup() as tasks:

        def connection() -> Connection:
            return Connection(routes, tasks, open_connections)

        if isinstance(address, UnixAddress):
            server: asyncio.AbstractServer = await loop.create_unix_server(connection, sock=listener)
        else:
            server = await loop.create_server(connection, sock=listener)
        try:
            yield address
        finally:
            server.close()
            for open_connection in open_connections:
                open_connection.cut()


async def live(config: Config) -> int:
    """Run until SIGTERM or SIGINT, or as the faults say; return the exit code."""
    started = time.monotonic()
    faults = config.faults
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if faults.exit_after_seconds is not None:
        loop.call_later(faults.exit_after_seconds, os._exit, faults.exit_code)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if faults.never_listen else faults.start_delay_seconds):
            await ended.wait()
            return 0
    async with running(config) as address:
        _say(f"{config.agent_name} (stub agent) listens on {address} after {time.monotonic() - started:.2f} s")
        await ended.wait()
    _say(f"{config.agent_name} (stub agent) ends")
    return 0


def main() -> None:
    """The process. A wrong configuration is one line on standard error and exit code 2."""
    try:
        config = read_config(os.environ)
        code = uvloop.run(live(config))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"cannot start the stub agent: {error}\n")
        code = 2
    sys.exit(code)


def _bind(address: Address) -> tuple[socket.socket, Address]:
    """A bound socket and its address, with the port that it got."""
    if isinstance(address, UnixAddress):
        listener = socket.socket(socket.AF_UNIX)
        # A socket file that a killed predecessor left would make the bind fail.
        Path(address.path).unlink(missing_ok=True)
        listener.bind(address.path)
        return listener, address
    listener = socket.create_server((address.host, address.port), family=_family(address.host), backlog=1024)
    return listener, TcpAddress(address.host, listener.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
