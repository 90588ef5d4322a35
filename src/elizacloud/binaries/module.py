"""The Go module that we ship: the development control server, and the pins and tags that tailscaled is built with."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from elizacloud.binaries.errors import BuildFailed
from elizacloud.binaries.versions import Kind, Version

TAILSCALED_PACKAGE = "tailscale.com/cmd/tailscaled"


def locate_module() -> Path:
    """In an installed package `_devcontrol` beside this package's modules; in a checkout `devcontrol/`."""
    package = Path(str(resources.files("elizacloud")))
    installed, checkout = package / "_devcontrol", package.parents[1] / "devcontrol"
    return installed if installed.is_dir() else checkout


@dataclass(frozen=True)
class Module:
    path: Path

    @cached_property
    def least_go(self) -> Version:
        """The `go` line: what the toolchain must at least be."""
        major, minor, patch = self._in_go_mod(r"^go (\d+)\.(\d+)(?:\.(\d+))?$")
        return Version(int(major), int(minor), int(patch or 0))

    @cached_property
    def tailscale_version(self) -> str:
        (version,) = self._in_go_mod(r"^\s*(?:require )?tailscale\.com v(\d+\.\d+\.\d+)$")
        return version

    @cached_property
    def tailscaled_tags(self) -> str:
        return self._read("tailscaled.tags").decode().strip()

    def name(self, kind: Kind) -> str:
        """What a build of this is called: another digest when anything that goes into it differs."""
        files = ["go.mod", "go.sum", "tailscaled.tags"]
        version = ""
        if kind is Kind.TAILSCALED:
            version = self.tailscale_version
        else:
            sources = sorted(str(file.relative_to(self.path)) for file in self.path.rglob("*.go"))
            files += [name for name in sources if not name.endswith("_test.go")]
        digest = hashlib.sha256()
        for file in files:
            content = self._read(file)
            digest.update(f"{file} {len(content)}\n".encode() + content)
        return "-".join(part for part in (kind, version, digest.hexdigest()[:12]) if part)

    def _in_go_mod(self, pattern: str) -> tuple[str, ...]:
        match = re.search(pattern, self._read("go.mod").decode(), re.MULTILINE)
        if match is None:
            raise BuildFailed(f"cannot build from {self.path}: no line of go.mod matches {pattern!r}")
        return match.groups()

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise BuildFailed(
                f"cannot build from {self.path}: {name} cannot be read ({error.strerror}); reinstall elizacloud"
            ) from error
