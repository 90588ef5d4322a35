"""Which machine a binary is for, in Go's names."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Platform:
    os: str
    arch: str

    def __str__(self) -> str:
        return f"{self.os}/{self.arch}"

    @classmethod
    def current(cls) -> Platform:
        machine = platform.machine().lower()
        return cls(sys.platform, _ARCHITECTURES.get(machine, machine))
