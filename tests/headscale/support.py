"""A supervised devcontrol, and programs that stand in for one that misbehaves."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from elizacloud.headscale.remembered import Binary, Kind
from elizacloud.headscale.server import SupervisedServer
from elizacloud.processes import Child


def devcontrol() -> Binary:
    return Binary(Kind.DEVCONTROL, Path(os.environ["ELIZACLOUD_DEVCONTROL_BIN"]), "v0.29.2+devcontrol.1")


def program(path: Path, script: str, *, kind: Kind = Kind.HEADSCALE) -> Binary:
    """A shell script that plays a control server's binary."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return Binary(kind, path, "v0.29.2")


def supervised(home: Path, binary: Binary) -> SupervisedServer:
    return SupervisedServer(home / "server", binary, run_dir=home / "run")


@asynccontextmanager
async def running(server: SupervisedServer) -> AsyncIterator[Child]:
    server.prepare()
    lines: list[bytes] = []
    async with await server.spawn(lines.append) as child:
        await server.wait_healthy(child, last_words=lambda: b"\n".join(lines[-5:]).decode())
        yield child
