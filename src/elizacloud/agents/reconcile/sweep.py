"""The periodic full sweep: observe, diff, judge, repair. It finds what no event told of; events do the daily work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import structlog

from elizacloud.agents.parts import Parts
from elizacloud.agents.reconcile.diff import diff
from elizacloud.agents.reconcile.guards import Seen, Verdict, judge, seen
from elizacloud.agents.reconcile.repair import repair
from elizacloud.errors import Error

log = structlog.get_logger()

SWEEP_SECONDS = 60.0


class Sweeper:
    """`wake_suspect` is called with the id of each living agent that something is odd about."""

    def __init__(self, parts: Parts, wake_suspect: Callable[[str], None], *, random: Random | None = None) -> None:
        self._parts = parts
        self._wake_suspect = wake_suspect
        self._random = random or Random()
        self._before = Seen()

    async def run(self) -> None:
        """Until cancelled: at once, then every SWEEP_SECONDS or so."""
        while True:
            try:
                await self.sweep()
                await self._parts.store.idempotency.sweep()
                await self._parts.store.sessions.sweep()
            except Error as error:
                log.warning("cannot sweep", reason=str(error))
            await asyncio.sleep(SWEEP_SECONDS * (0.9 + self._random.random() / 5))

    async def sweep(self, *, dry_run: bool = False) -> Verdict:
        """One sweep; with `dry_run` it says what it would do. Raises when the runtime, Headscale or store does not answer."""
        parts = self._parts
        # The world first: what is made meanwhile is in the store before it is in the world's list.
        outside = await parts.outside.get(since=asyncio.get_running_loop().time())
        records = await parts.store.agents.records()
        findings = diff(records, outside, installation_id=parts.place.installation_id, now=parts.now())
        verdict = judge(findings, outside, self._before)
        if dry_run:
            return verdict
        self._before = seen(findings, outside)
        if verdict.held:
            log.error("removals are held", why=verdict.why, count=len(verdict.held))
        for finding in verdict.repair:
            await repair(parts, finding, wake=self._wake_suspect)
        return verdict
