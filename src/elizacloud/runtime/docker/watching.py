"""Every instance of a Docker host as it is, then every change of one, out of Docker's stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from elizacloud.errors import NotFound, RuntimeUnavailable
from elizacloud.processes import Backoff
from elizacloud.runtime.docker.engine import Engine, unix_time
from elizacloud.runtime.docker.labels import Role, filters, read, ref_of
from elizacloud.runtime.docker.unit import Unit
from elizacloud.runtime.docker.units import Units
from elizacloud.runtime.protocol import Instance

BACKOFF = Backoff(first_seconds=0.1, cap_seconds=5.0, jitter=0.0)
SEEN = ["create", "start", "pause", "unpause", "die", "destroy"]
ENDS = frozenset({"die", "destroy"})
"""What is news of a sidecar by itself: all else happens to the agent next, and until then its end is an earlier one's."""


class Watch:
    """Beside telling, it sees to it that both containers of a unit end: it kills the sidecar of an agent that is gone."""

    def __init__(self, engine: Engine, units: Units, restarted: Callable[[], None] = lambda: None) -> None:
        """`restarted` is called when Docker was away."""
        self._engine = engine
        self._units = units
        self._restarted = restarted
        self._told: dict[str, Instance] = {}

    async def changes(self) -> AsyncGenerator[Instance, None]:
        """For ever. Begins again when Docker restarts."""
        failures = 0
        while True:
            self._told.clear()
            try:
                async with aclosing(self._until_docker_ends()) as changes:
                    async for instance in changes:
                        failures = 0
                        yield instance
            except RuntimeUnavailable:
                pass
            failures += 1
            self._restarted()
            await asyncio.sleep(BACKOFF.delay_seconds(failures, 0))

    async def _until_docker_ends(self) -> AsyncGenerator[Instance, None]:
        async with self._engine.asked("watch the instances") as docker:
            now = unix_time((await docker.system.info())["SystemTime"])
        wanted = {"type": ["container"], "event": SEEN, **filters()}
        # From before the list is made: what happens in between is told twice rather than never.
        async with self._engine.events("watch the instances", since=now, filters=wanted) as events:
            for unit in await self._units.find():
                if (instance := await self._news(unit.ref, unit)) is not None:
                    yield instance
            async for event in events:
                ref = _ref_in(event)
                if ref is None:
                    continue
                try:
                    unit = await self._units.get(ref)
                except NotFound:
                    self._told.pop(ref, None)
                    continue
                if (instance := await self._news(ref, unit)) is not None:
                    yield instance

    async def _news(self, ref: str, unit: Unit) -> Instance | None:
        """The unit as it is, when that was not told yet."""
        if unit.sidecar_left_behind:
            await self._units.end_what_is_left(unit)
        if not unit.whole:
            return None  # it is being made, or removed
        instance = await self._units.seen(unit)
        if self._told.get(ref) == instance:
            return None
        self._told[ref] = instance
        return instance


def _ref_in(event: Mapping[str, Any]) -> str | None:
    known = read(event.get("Actor", {}).get("Attributes"))
    if known is None or (known[1] is Role.TAILNET and event["Action"] not in ENDS):
        return None
    return ref_of(known[0])
