"""A Docker without cgroups for its containers, as a rootless one without systemd's: it limits none, freezes none, and counts its
whole machine instead of one."""

from __future__ import annotations

import structlog

from elizacloud.errors import RuntimeRefused, RuntimeUnavailable
from elizacloud.runtime.docker.engine import Engine
from elizacloud.runtime.docker.usage import USAGE_UNKNOWN

log = structlog.get_logger()
_ADVICE = "use cgroups v2, delegated to Docker's user by systemd if it is rootless"


class Cgroups:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._missing: bool | None = None

    def forget(self) -> None:
        """Docker or its host were started anew."""
        self._missing = None

    async def look(self) -> None:
        """So that it is said once, and not only when it is asked for."""
        await self._are_missing()

    async def check_counts(self) -> None:
        """Raise RuntimeUnavailable when it counts nothing of a container by itself."""
        if await self._are_missing():
            raise RuntimeUnavailable(
                f"cannot see what the instance uses: Docker at {self._engine.url} has no cgroups to count by; {_ADVICE}",
                code=USAGE_UNKNOWN,
            )

    async def check_freezes(self) -> None:
        """Raise RuntimeRefused when it cannot freeze a container."""
        if await self._are_missing():
            raise RuntimeRefused(
                f"cannot pause the instance: Docker at {self._engine.url} has no cgroups to freeze it with; {_ADVICE}, or stop "
                "agents without a pause (stopAfterSeconds: 0)",
                code="cannot_freeze",
            )

    async def _are_missing(self) -> bool:
        if self._missing is None:
            async with self._engine.asked("look at the Docker host") as docker:
                self._missing = (await docker.system.info()).get("CgroupDriver") == "none"
            if self._missing:
                log.warning(
                    "agents are not limited: their Docker has no cgroups for them", docker=self._engine.url, fix=_ADVICE
                )
        return self._missing
