"""A machine that a person puts on the tailnet by hand: tailscaled and `tailscale up`, with what the product printed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from elizacloud.processes import LogFile, spawn
from elizacloud.tailnet import Tailscaled
from elizacloud.tailnet.tailscaled import udp_port_of


@asynccontextmanager
async def machine(environment: Mapping[str, str]) -> AsyncIterator[Path]:
    """Joined as the seed's script does it, by the CLI; yields the LocalAPI socket. Its tailnet port 2138 is this host's."""
    directory = Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))
    binary = Path(os.environ["ELIZACLOUD_TAILSCALED_BIN"])
    daemon = Tailscaled(binary, directory / "state", directory / "run" / "ts.sock", environment["HEADSCALE_URL"], 0)
    daemon.prepare()
    daemon = Tailscaled(binary, daemon.state_dir, daemon.socket, daemon.join_url, udp_port_of(daemon.state_dir))
    log = LogFile(directory / "log")
    key = directory / "key"
    key.write_text(environment["HEADSCALE_AUTH_KEY"])
    try:
        async with spawn(daemon.argv(), name="tailscaled", env=daemon.environment(), log=log.write):
            up: list[str | Path] = [binary, f"--socket={daemon.socket}", "up", "--timeout=30s"]
            up += [f"--login-server={daemon.join_url}", "--accept-dns=false"]
            up += [f"--auth-key=file:{key}", f"--hostname=milaidy-{environment['CONTAINER_ID']}"]
            cli = spawn(up, name="tailscale up", env={**daemon.environment(), "TS_BE_CLI": "1"}, log=log.write)
            assert (await cli.wait()).clean, log.recent()
            await cli.stop()
            yield daemon.socket
    finally:
        log.close()
        shutil.rmtree(directory)
