"""What the checks start from: the settings, what runs on this machine, and which server and token the CLI would use."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from elizacloud.cli.context import Context, load_context
from elizacloud.errors import Misconfigured
from elizacloud.settings import Settings, load_settings

RUN_FILE = "run.json"
"""Written by `up` while it runs: url, pid, headscale {url, kind, version}, sockets {api, link, tailscaled, process_host}."""
API_KEY_FILE = Path("control-server") / "api.key"


@dataclass(frozen=True)
class Running:
    """What an `up` on this machine says of itself."""

    url: str
    pid: int
    headscale_url: str
    headscale_kind: str
    headscale_version: str
    sockets: Mapping[str, Path] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@dataclass(frozen=True)
class Facts:
    settings: Settings
    running: Running | None
    context: Context

    @property
    def headscale_url(self) -> str | None:
        """Where the control plane reaches Headscale's API; None when nothing says."""
        if self.running is not None:
            return self.running.headscale_url
        if self.settings.headscale_api_url is not None:
            return self.settings.headscale_api_url
        return self.settings.headscale if "://" in self.settings.headscale else None

    @property
    def headscale_key(self) -> SecretStr | None:
        """The API key: the setting, else the one that `up` made for the server of its own."""
        if self.settings.headscale_api_key is not None:
            return self.settings.headscale_api_key
        try:
            return SecretStr((self.settings.data_dir.expanduser() / API_KEY_FILE).read_text().strip())
        except OSError:
            return None

    @property
    def tailscaled_socket(self) -> Path | None:
        if self.settings.tailscaled_socket is not None:
            return self.settings.tailscaled_socket
        return self.running.sockets.get("tailscaled") if self.running is not None else None


def gather(data_dir: Path | None) -> Facts:
    """Raises Misconfigured when settings, context or run file cannot be read: that is a finding of its own."""
    settings = load_settings({"data_dir": data_dir}).settings
    return Facts(settings, read_run_file(settings.data_dir.expanduser() / RUN_FILE), load_context())


def read_run_file(path: Path) -> Running | None:
    """None when nothing runs, also when a killed `up` left its file."""
    try:
        content: Any = json.loads(path.read_text())
        running = Running(
            url=str(content["url"]),
            pid=int(content["pid"]),
            headscale_url=str(content["headscale"]["url"]),
            headscale_kind=str(content["headscale"]["kind"]),
            headscale_version=str(content["headscale"]["version"]),
            sockets={name: Path(socket) for name, socket in content.get("sockets", {}).items()},
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(f"cannot read {path}: {error}; delete it if `elizacloud up` does not run") from error
    return running if running.alive else None
