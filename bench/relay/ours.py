"""`elizacloud relay` as it is shipped, with a table of one agent on disk and no control plane: what static stability is for."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from bench.relay.load import ROOT
from bench.relay.programs import Programs, free_port
from bench.relay.upstream import AGENT
from elizacloud import __version__
from elizacloud.app.data_dir import open_data_dir
from elizacloud.auth.tokens import token_sha256
from elizacloud.cipher import Cipher
from elizacloud.model import DEFAULT_CELL_ID, Scope
from elizacloud.relay.compiled import COMPILED
from elizacloud.relay.link.snapshot import SnapshotFile
from elizacloud.settings import Settings, child_environment
from elizacloud.upstreams import KnownToken, Snapshot, Upstream

TOKEN = "ec_benchbench01_secret"  # noqa: S105 - of this run only
HEADERS = (f"Authorization: Bearer {TOKEN}",)
PATH = f"/api/relay/{AGENT}"
VERSION = f"{__version__} compiled" if COMPILED else __version__
SILENT = {"access_log": "0"}
"""Settings without an access log, as the others have none."""


@dataclass(frozen=True, slots=True)
class Relay:
    port: int
    pid: int


async def start(
    programs: Programs,
    name: str,
    *,
    tailscaled: Path,
    node_id: str,
    ip: str,
    settings: Mapping[str, str],
    interpreted: bool = False,
) -> Relay:
    """Start one worker beside the tailscaled at this socket, for the agent at this address; `settings` by their names.

    It is compiled where this process is, unless `interpreted`.

    What it logs goes to a file, as it would under a supervisor, and not through the process that measures it.
    """
    directory = programs.private_dir(name.replace(" ", "-"))
    _write_table(directory, node_id, ip)
    no_config = directory / "none.toml"
    no_config.touch()
    port = free_port()
    chosen = {"tailscaled_socket": str(tailscaled), **settings}
    log = directory / "relay.log"
    argv = (sys.executable, "-m", "elizacloud", "relay", "--data-dir", directory, "--port", str(port))
    environment = child_environment(config=no_config)
    if interpreted:
        environment["PYTHONPATH"] = str(ROOT / "src")
    started = programs.start(
        ["sh", "-c", 'exec "$@" >>"$0" 2>&1', log, *argv],
        name,
        cores=programs.cores.relay,
        env=environment | {f"ELIZACLOUD_{key.upper()}": value for key, value in chosen.items()},
    )
    try:
        await started.until_listening(port)
    except RuntimeError as error:
        raise RuntimeError(f"{error}: {log.read_text()[-1000:]}") from error
    return Relay(port, started.child.pid)


def _write_table(directory: Path, node_id: str, ip: str) -> None:
    settings = Settings(data_dir=directory)
    data = open_data_dir(settings)
    upstream = Upstream(AGENT, "owner", 1, 1, DEFAULT_CELL_ID, node_id, ip, SecretStr("eca_bench"))
    token = KnownToken("benchbench01", token_sha256(TOKEN), "owner", frozenset({Scope.OWNER}))
    snapshot = Snapshot(epoch="bench", revision=1, upstreams=(upstream,), agents=(), tokens=(token,))
    SnapshotFile(data.relay / "upstreams.sealed", Cipher(data.secret_key(settings))).save(snapshot, time.time())
