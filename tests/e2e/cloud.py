"""The whole cloud as a process: `elizacloud up` in a data dir of its own, seen only from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOP_SECONDS = 40


@dataclass
class Cloud:
    """`start` it, use `url` and `token`, `stop` or `kill` it, start it again on the same data dir."""

    headscale: str
    data_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp")))
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    python: Path = Path(sys.executable)
    directory: Path | None = None
    """Where to run it; here unless given."""
    through: Sequence[str] = ()
    """A program, with arguments, that becomes the cloud."""
    facts: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    printed: str = ""
    """What it wrote to standard output so far; all of it once it has ended."""

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    @property
    def token(self) -> str:
        return str(self.facts["apiToken"])

    @property
    def run_file(self) -> dict[str, Any]:
        """What runs now, with its sockets."""
        return dict(json.loads((self.data_dir / "data" / "run.json").read_text()))

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def log(self) -> str:
        return (self.data_dir / "up.log").read_text()

    def command(self, *arguments: str) -> list[str]:
        return [*self.through, str(self.python), "-m", "elizacloud", *arguments]

    def popen(self) -> subprocess.Popen[str]:
        """Start it and do not wait."""
        ready_file = self.data_dir / "ready.json"
        with (self.data_dir / "up.log").open("a") as log:
            return subprocess.Popen(
                [
                    *self.command("up", "--data-dir", str(self.data_dir / "data"), "--port", str(self.port)),
                    *("--headscale", self.headscale, "--ready-file", str(ready_file)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                cwd=self.directory,
                env={**_inherited(), **self.environment},
            )

    def start(self) -> Cloud:
        """Return when it says that it is ready; AssertionError with its log when it ends before."""
        self.process = self.popen()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if "Ctrl-C stops everything" in line:
                self.facts = json.loads((self.data_dir / "ready.json").read_text())
                return self
        raise AssertionError(f"up ended with {self.process.wait()}:\n{self.log}")

    def stop(self) -> int:
        """Ctrl-C."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self._ended()

    def kill(self) -> int:
        """kill -9 of `up` itself."""
        assert self.process is not None
        self.process.kill()
        return self._ended()

    def _ended(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.printed += self.process.stdout.read()
        code = self.process.wait(timeout=STOP_SECONDS)
        self.process.stdout.close()
        self.process = None
        return code

    def remove(self) -> None:
        """End it if it runs, and delete its data."""
        if self.process is not None:
            self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def processes(self) -> dict[int, str]:
        """Every live process that belongs to this data dir, by its command line: asked of the kernel, not of us."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, IndexError):
                continue
            ours = str(self.data_dir) in command or str(self.data_dir) in environment
            if ours and state != "Z" and int(entry.name) != os.getpid():
                found[int(entry.name)] = command
        return found

    def pid_of(self, part: str) -> int:
        """The one process whose command line holds `part`."""
        pids = [pid for pid, command in self.processes().items() if part in command]
        assert len(pids) == 1, (part, self.processes())
        return pids[0]


def _inherited() -> dict[str, str]:
    """Our own environment; the list of Headscales to test on is no setting of a cloud."""
    return {name: value for name, value in os.environ.items() if name != "ELIZACLOUD_HEADSCALE_BIN"}
