"""An ASGI application served by uvicorn inside our own event loop, until the block ends.

uvicorn's own signal handling stays off: the process has one owner of signals, its `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from elizacloud.app.listening import listening_socket

STOP_SECONDS = 5
KEEP_ALIVE_SECONDS = 75
"""Longer than the relay keeps an idle connection to the API, so that it is the relay that closes."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(app: FastAPI, *, socket: Path | None = None, address: str | None = None) -> AsyncIterator[None]:
    """Serve at a unix socket (0600) or at host:port, which is the setting `report_listen`, while the block runs.

    Requests in flight get a few seconds to end. Raises Misconfigured when it cannot listen at that host and port.
    """
    if address is not None:
        host, _, port = address.rpartition(":")
        listener = listening_socket(host.strip("[]"), int(port), setting="report_listen")
        where: dict[str, Any] = {"fd": listener.fileno()}
    else:
        assert socket is not None
        socket.unlink(missing_ok=True)
        where = {"uds": str(socket)}
    config = uvicorn.Config(
        app,
        **where,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # The relay stands in front and says who the client is; it alone can reach the unix socket.
        proxy_headers=False,
    )
    server = _Server(config)
    before = os.umask(0o177)
    try:
        task = asyncio.create_task(server.serve(), name=f"serve {socket or address}")
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
    finally:
        os.umask(before)
    if task.done():
        task.result()
    if socket is not None:
        socket.chmod(0o600)
    try:
        yield
    finally:
        server.should_exit = True
        await task
