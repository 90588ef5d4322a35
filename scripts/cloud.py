"""`elizacloud up` as a process, for the demo and the benchmarks: ended with the block that started it, however that ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from elizacloud.errors import Unavailable
from elizacloud.processes import LogFile, spawn
from elizacloud.settings import child_environment

READY_SECONDS = 120
STOP_SECONDS = 30
_SAID = b"Ctrl-C stops everything"


@asynccontextmanager
async def running_cloud(directory: Path, *, headscale: str = "auto") -> AsyncIterator[dict[str, Any]]:
    """A cloud on free ports whose data dir is in `directory`; yields what its ready file says."""
    ready_file = directory / "ready.json"
    ready = asyncio.Event()
    log = LogFile(directory / "up.log")

    def hear(line: bytes) -> None:
        log.write(line)
        if _SAID in line:
            ready.set()

    argv = [sys.executable, "-m", "elizacloud", "up", "--port", "0", "--headscale", headscale]
    argv += ["--data-dir", str(directory / "data"), "--ready-file", str(ready_file)]
    child = spawn(argv, name="elizacloud up", env=child_environment({}), log=hear, when_parent_dies=signal.SIGTERM)
    try:
        waiting = {
            asyncio.create_task(ready.wait(), name="ready"),
            asyncio.create_task(child.wait(), name="exit of up"),
        }
        try:
            await asyncio.wait(waiting, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if not ready.is_set():
            raise Unavailable(f"cannot bring the cloud up: {log.recent() or 'it says nothing'}")
        yield json.loads(ready_file.read_text())
    finally:
        await child.stop(grace_seconds=STOP_SECONDS)
        log.close()
