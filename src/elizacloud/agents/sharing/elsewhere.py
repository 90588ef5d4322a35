"""What only one control plane can do, done for whichever one is asked: the leader sweeps, the driver gives an environment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from typing import Any

from pydantic import SecretStr

from elizacloud.agents.parts import Parts
from elizacloud.agents.reconcile.diff import Finding, Kind
from elizacloud.agents.reconcile.guards import Verdict
from elizacloud.agents.reconcile.sweep import Sweeper
from elizacloud.agents.sharing.asking import Asking
from elizacloud.agents.sharing.hold import Holds
from elizacloud.errors import Error, LeaseLost
from elizacloud.runtime.protocol import InstanceSecrets
from elizacloud.store.hints import Hint

SWEEP_SECONDS = 110.0
"""A sweep ends what it removes, politely at first; the command line waits a little longer than this."""
HANDOVER_SECONDS = 20.0
"""How long the environment of an agent that is started by hand may take."""


class Elsewhere:
    """`run` it once. `wake` is the driver's."""

    def __init__(self, parts: Parts, holds: Holds, sweeper: Sweeper, wake: Callable[[str], None], me: str) -> None:
        self._parts = parts
        self._holds = holds
        self._sweeper = sweeper
        self._wake = wake
        self._asking = Asking(
            parts.store.hints,
            me,
            {"sweep": self._sweep, "findings": self._findings, "environment": self._environment},
        )

    async def run(self) -> None:
        """Answer the others until cancelled."""
        await self._asking.run()

    async def sweep(self, *, dry_run: bool, accept: bool) -> Verdict:
        """As Sweeper.sweep, at the control plane that leads; LeaseLost when none says so."""
        answer = await self._asking.ask("sweep", dry_run=dry_run, accept=accept)
        told = await _within(SWEEP_SECONDS, answer)
        groups = {name: tuple(map(_finding, told[name])) for name in ("repair", "held", "waiting", "alarms")}
        return Verdict(why=told["why"], **groups)

    async def findings(self, agent_id: str) -> tuple[Finding, ...]:
        """What the last sweep found about the agent, as the control plane that leads knows it."""
        answer = await self._asking.ask("findings", agent=agent_id)
        return tuple(map(_finding, await _within(HANDOVER_SECONDS, answer)))

    async def environment(self, agent_id: str) -> asyncio.Future[InstanceSecrets | None]:
        """Returns once the control plane that drives the agent knows that its next secrets are wanted here. The future brings
        them, or None when there are none to be had in time."""
        answer = await self._asking.ask("environment", agent=agent_id)

        async def secrets() -> InstanceSecrets | None:
            try:
                told = await _within(HANDOVER_SECONDS, answer)
            except Error:
                return None
            return None if told is None else _secrets(told)

        return asyncio.create_task(secrets(), name=f"environment of {agent_id} from another")

    # The other side

    def _sweep(self, asked: Hint) -> Awaitable[Any] | None:
        if self._holds.lead() is None:
            return None
        return self._swept(dry_run=bool(asked["dry_run"]), accept=bool(asked["accept"]))

    async def _swept(self, *, dry_run: bool, accept: bool) -> Any:
        return asdict(await self._sweeper.sweep(dry_run=dry_run, accept=accept))

    def _findings(self, asked: Hint) -> Awaitable[Any] | None:
        return None if self._holds.lead() is None else self._found(str(asked["agent"]))

    async def _found(self, agent_id: str) -> Any:
        return [asdict(finding) for finding in self._sweeper.findings if finding.agent_id == agent_id]

    def _environment(self, asked: Hint) -> Awaitable[Any] | None:
        agent_id = str(asked["agent"])
        if self._holds.of(agent_id) is None:
            return None
        expected = self._parts.handover.expect(agent_id)
        self._wake(agent_id)
        return self._given(agent_id, expected)

    async def _given(self, agent_id: str, expected: asyncio.Future[InstanceSecrets]) -> Any:
        try:
            await asyncio.wait({expected}, timeout=HANDOVER_SECONDS)
            if expected.cancelled() or not expected.done():
                return None
            secrets = expected.result()
            shown = {field.name: getattr(secrets, field.name) for field in fields(secrets)}
            return {name: value and value.get_secret_value() for name, value in shown.items()}
        finally:
            # Somebody else may wait for the next ones by now.
            self._parts.handover.give_up(agent_id, expected)


async def _within(seconds: float, answer: asyncio.Future[Any]) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise LeaseLost(
            "cannot tell what became of it: the control plane that was at it does not answer any more; try again",
            retry_after_seconds=1,
        ) from None


def _finding(told: dict[str, Any]) -> Finding:
    return Finding(**{**told, "kind": Kind(told["kind"])})


def _secrets(told: dict[str, str | None]) -> InstanceSecrets:
    def secret(name: str) -> SecretStr:
        return SecretStr(told[name] or "")

    key = None if told["preauth_key"] is None else secret("preauth_key")
    return InstanceSecrets(key, secret("agent_token"), secret("join_token"), secret("busy_token"))
