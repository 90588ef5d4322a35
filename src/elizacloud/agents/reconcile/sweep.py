"""The periodic full sweep: observe, diff, judge, repair. It finds what no event told of; events do the daily work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from random import Random
from socket import AF_INET, inet_pton

import structlog

from elizacloud.agents.parts import Parts
from elizacloud.agents.pruning import prune
from elizacloud.agents.reconcile.diff import REMOVALS, Finding, Kind, diff, relay_nodes
from elizacloud.agents.reconcile.guards import Seen, Verdict, judge, seen
from elizacloud.agents.reconcile.observe import Outside
from elizacloud.agents.reconcile.repair import repair
from elizacloud.agents.sharing.hold import Alone, Hold, Holds
from elizacloud.errors import Error, LeaseLost

log = structlog.get_logger()

SWEEP_SECONDS = 60.0
CONFIRM_SECONDS = 5.0
"""How long after it was first seen a thing has to be there still, to be removed."""
PIECES_AT_ONCE = 200
"""Of a comparison, in one turn of the loop: some 1 ms. In a thread of its own it would hold up each turn by 5 ms (the GIL)."""
SOON_SECONDS = CONFIRM_SECONDS + 1.0


class Sweeper:
    """`wake_suspect` is called with the id of each living agent that something is odd about. Of several control planes the
    one that holds the lease for it sweeps."""

    def __init__(
        self,
        parts: Parts,
        wake_suspect: Callable[[str], None],
        *,
        holds: Holds | None = None,
        random: Random | None = None,
    ) -> None:
        self._parts = parts
        self._holds = holds or Alone()
        self._under: Hold | None = None
        """The lease under which the last sweep was made."""
        self._wake_suspect = wake_suspect
        self._random = random or Random()
        self._before = Seen()
        self._before_at = -inf
        self._confirmed: frozenset[Finding] = frozenset()
        """Those of `_before` that had been there in the sweep before that, too."""
        self._told: frozenset[Finding] = frozenset()
        self._last: frozenset[Finding] = frozenset()
        self._failed: frozenset[Finding] = frozenset()
        """What the last sweep could not repair."""
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled: at once, then every SWEEP_SECONDS or so; soon again after a step failed, while something that was
        found waits to be seen once more, after a removal, which may leave something, and while a sweep cannot be made. After a
        repair that failed once, too; one that fails each time does not make sweeps more frequent."""
        untidy, before = self._parts.untidy, frozenset[Finding]()
        while True:
            await self._holds.leading()
            untidy.clear()
            try:
                verdict = await self.sweep()
                removed = frozenset(finding for finding in verdict.repair if finding.kind in REMOVALS)
                unsettled = removed | self._failed
                if verdict.waiting or unsettled - before:
                    untidy.set()
                before = unsettled
                await prune(self._parts.store, self._parts.settings)
            except Error as error:
                log.warning("cannot sweep", reason=str(error))
                untidy.set()
            await asyncio.sleep(SOON_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS * (0.9 + self._random.random() / 5) - SOON_SECONDS):
                    await untidy.wait()

    @property
    def findings(self) -> frozenset[Finding]:
        """What the last sweep found."""
        return self._last

    async def sweep(self, *, dry_run: bool = False, accept: bool = False) -> Verdict:
        """One sweep; with `dry_run` it says what it would do. `accept`: the operator wants what is held done, and says that
        database, Headscale and relays are right as they are.

        Raises when the runtime, Headscale or store does not answer, HeadscaleRefused when Headscale is another one, and
        LeaseLost when another control plane sweeps.
        """
        async with self._turn:
            with self._parts.metrics.sweep_seconds.time():
                if dry_run:
                    return await self._sweep(self._parts, dry_run=True, accept=False)
                hold = self._holds.lead()
                if hold is None:
                    raise LeaseLost(
                        "cannot sweep: another control plane does that now; ask that one", retry_after_seconds=1
                    )
                if hold is not self._under:
                    # What was seen before somebody else swept confirms nothing.
                    self._under, self._before, self._confirmed = hold, Seen(), frozenset()
                async with hold.under():
                    return await self._sweep(self._parts.under(hold), dry_run=False, accept=accept)

    async def _sweep(self, parts: Parts, *, dry_run: bool, accept: bool) -> Verdict:
        memory = parts.memory
        if accept:
            await memory.accept_headscale()
        await memory.check_headscale()
        await memory.check_store()
        # The world first: what is made meanwhile is in the store before it is in the world's list.
        outside = await parts.outside.get(since=asyncio.get_running_loop().time())
        records = await parts.store.agents.records()
        known = {record.agent.id for record in records}
        gone = await parts.store.agents.gone({volume.agent_id for volume in outside.volumes} - known)
        relays = {node.machine_key for node in relay_nodes(outside.nodes, parts.place.installation_id)}
        findings = await _compared(
            diff(
                records,
                outside,
                installation_id=parts.place.installation_id,
                now=parts.now(),
                gone=gone,
                relays=await memory.relays(relays, learn=not dry_run),
            )
        )
        before = self._known()
        self._last = frozenset(findings)
        verdict = judge(findings, outside, before, suspicion=memory.suspicion, accepted=accept)
        if dry_run:
            return verdict
        await (memory.accept(relays) if accept else memory.remember())
        self._remember(findings, outside, before)
        self._tell(findings, verdict, outside)
        repaired = {finding: await repair(parts, finding, wake=self._wake_suspect) for finding in verdict.repair}
        self._failed = frozenset(finding for finding, done in repaired.items() if not done)
        parts.metrics.swept_at.set(parts.now().timestamp())
        return verdict

    def _known(self) -> Seen:
        """What the last sweep saw. To one that comes soon after it, as an operator's, that confirms nothing."""
        if asyncio.get_running_loop().time() - self._before_at >= CONFIRM_SECONDS:
            return self._before
        return replace(self._before, findings=self._confirmed)

    def _remember(self, findings: Sequence[Finding], outside: Outside, before: Seen) -> None:
        metrics, now = self._parts.metrics, seen(findings, outside)
        for finding in now.findings - self._before.findings:
            metrics.found.labels(finding.kind.value).inc()
        if before is self._before:
            self._before_at = asyncio.get_running_loop().time()
            self._confirmed = now.findings & before.findings
            self._before = now
        else:
            self._before = replace(now, findings=now.findings & self._before.findings)

    def _tell(self, findings: Sequence[Finding], verdict: Verdict, outside: Outside) -> None:
        """Log and count; each alarm is logged once while it lasts."""
        metrics, kinds = self._parts.metrics, Counter(finding.kind for finding in findings)
        if verdict.held:
            log.error("removals are held", why=verdict.why, count=len(verdict.held))
        for alarm in verdict.alarms:
            if alarm not in self._told:
                log.error("found", kind=alarm.kind.value, agent=alarm.agent_id, about=alarm.about, detail=alarm.detail)
        self._told = frozenset(verdict.alarms)
        for kind in Kind:
            metrics.drift.labels(kind.value).set(kinds[kind])
        metrics.held.set(len(verdict.held))
        metrics.nodes.set(len(outside.nodes))
        metrics.keys.set(len(outside.keys))
        prefix = self._parts.settings.headscale_ipv4_prefix
        metrics.pool.set(prefix.num_addresses)
        # By number: to make ten thousand addresses would hold up all else for 25 ms.
        first, last = int(prefix[0]), int(prefix[-1])
        numbers = (int.from_bytes(inet_pton(AF_INET, node.ipv4)) for node in outside.nodes if node.ipv4 is not None)
        metrics.addresses.set(sum(first <= number <= last for number in numbers))


async def _compared(pieces: Iterable[Iterable[Finding]]) -> list[Finding]:
    findings: list[Finding] = []
    for number, some in enumerate(pieces, 1):
        findings += some
        if number % PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return findings
