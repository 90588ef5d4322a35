"""Everywhere that a secret could come to light in a running cloud: files, processes, what was printed and answered.

A sink is a name and the bytes that can be read there. `leaks` says which secrets are in which sinks; the names say where
they may be: `file:` and the path in the data dir, `argv:` or `environ:` and the process's role, `printed:`, `answered:`.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote_from_bytes

LOOK_SECONDS = 0.03
_PART_BYTES = 20
"""So much of a secret counts as all of it. What comes before may be public, as an API token's id is."""

_ROLES = {
    "elizacloud.stub_agent": "agent",
    "elizacloud.runtime.process.host": "process host",
    "tailscaled --tun": "tailscaled",
    "elizacloud serve": "control plane",
    "elizacloud relay": "relay",
    "elizacloud.app.relay_worker": "relay",
    "elizacloud up": "up",
    "elizacloud doctor": "command line",
    "devcontrol": "control server",
    "headscale": "control server",
}
"""By the first part that is found in the command line. An agent's tailscaled is called by the agent's id, too."""


@dataclass(frozen=True)
class Secret:
    """One value that must be nowhere but in the sinks that match `allowed`."""

    name: str
    value: str
    allowed: tuple[str, ...] = ()

    def is_in(self, data: bytes) -> bool:
        """True also when it was cut at either end, quoted as in a URL, or encoded as Base64."""
        raw = self.value.encode()
        third = len(raw) // 3
        forms = (
            raw[third : third + _PART_BYTES],
            raw[-_PART_BYTES:],
            quote_from_bytes(raw, safe="").encode(),
            base64.b64encode(raw).rstrip(b"=")[:-1],
        )
        return any(form in data for form in forms)


@dataclass(frozen=True)
class Shape:
    """What all secrets of a kind look like, for those whose values nobody outside ever learns."""

    name: str
    pattern: re.Pattern[bytes]
    allowed: tuple[str, ...] = ()

    def is_in(self, data: bytes) -> bool:
        return self.pattern.search(data) is not None


def leaks(sinks: Mapping[str, bytes], secrets: Iterable[Secret | Shape]) -> list[tuple[str, str]]:
    """Which secret is in which sink, and must not."""
    return [
        (secret.name, sink)
        for secret in secrets
        for sink, data in sinks.items()
        if not any(fnmatchcase(sink, pattern) for pattern in secret.allowed) and secret.is_in(data)
    ]


class Processes:
    """Looks at the processes of one data dir again and again, so that the short-lived ones are seen, too."""

    def __init__(self, data_dir: Path) -> None:
        self._mark = str(data_dir).encode()
        self._seen: dict[tuple[int, bytes], bytes] = {}
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, name="look at processes")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def sinks(self) -> dict[str, bytes]:
        """Arguments and environment by role; those of one role are joined."""
        found: dict[str, bytes] = {}
        for (_, argv), environment in list(self._seen.items()):
            role = _role_of(argv.replace(b"\0", b" ").decode(errors="replace"))
            for sink, data in ((f"argv:{role}", argv), (f"environ:{role}", environment)):
                found[sink] = found.get(sink, b"") + data + b"\0\0"
        return found

    def look(self) -> None:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                argv = (entry / "cmdline").read_bytes()
                if (int(entry.name), argv) in self._seen:
                    continue
                environment = (entry / "environ").read_bytes()
                if argv and argv == (entry / "cmdline").read_bytes() and self._mark in argv + environment:
                    self._seen[int(entry.name), argv] = environment
            except OSError:
                continue  # it has ended, or is another user's

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self.look()


def _role_of(command: str) -> str:
    return next((role for part, role in _ROLES.items() if part in command), "other")
