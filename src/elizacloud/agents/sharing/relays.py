"""The relays of every control plane, as one: what is said here is said to our own workers, and hinted to the others.

A withdrawal waits for the word of every control plane that runs; one that does not answer in time vetoes, as a worker does.
The workers of a control plane that has ended are not waited for: they serve the table that they have until it is back.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from elizacloud.errors import Error
from elizacloud.store.hints import Hint, Hints
from elizacloud.upstreams import AssertionKey, KnownAgent, KnownIssuer, KnownToken, Probe, Relays, Upstream, WakeRefusal

log = structlog.get_logger()


@dataclass(slots=True)
class _Asked:
    """A withdrawal, and those whose word on it is still due."""

    silent: set[str]
    idle: bool = True
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class SharedRelays:
    """`here` are our own workers; `members` the control planes that run, ours by the name of `me`. `run` it once."""

    def __init__(self, here: Relays, hints: Hints, members: Callable[[], frozenset[str]], me: str) -> None:
        self.here = here
        self._hints = hints
        self._members = members
        self.me = me
        self._unsent: asyncio.Queue[Hint] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        hints.listen(self._hear)

    async def run(self) -> None:
        """Send hints until cancelled. One that cannot be sent is dropped: the others look by themselves now and then."""
        while True:
            hint = await self._unsent.get()
            try:
                await self._hints.send(hint)
            except Error as error:
                log.warning("cannot tell the other control planes", kind=hint["kind"], reason=str(error))

    def say(self, kind: str, **facts: object) -> None:
        """Tell the other control planes, if there are any; the hint comes back to us too."""
        if self._members() - {self.me}:
            self._unsent.put_nowait({"kind": kind, "from": self.me, **facts})

    # upstreams.Relays

    def publish(self, upstream: Upstream) -> None:
        self.here.publish(upstream)

    def describe(self, agents: Iterable[KnownAgent]) -> None:
        self.here.describe(agents)

    async def withdraw(self, agent_id: str, *, within_seconds: float) -> bool:
        others = set(self._members() - {self.me})
        if not others:
            return await self.here.withdraw(agent_id, within_seconds=within_seconds)
        number, asked = next(self._numbers), _Asked(others)
        self._asked[number] = asked
        try:
            self.say("withdraw", agent=agent_id, number=number, within=within_seconds)
            async with asyncio.TaskGroup() as tasks:
                here = tasks.create_task(
                    self.here.withdraw(agent_id, within_seconds=within_seconds), name=f"withdraw {agent_id} here"
                )
                elsewhere = tasks.create_task(_idle(asked, within_seconds), name=f"withdraw {agent_id} elsewhere")
        finally:
            del self._asked[number]
        return here.result() and elsewhere.result()

    async def probe(self, upstream: Upstream, *, within_seconds: float) -> Probe:
        return await self.here.probe(upstream, within_seconds=within_seconds)

    def refuse_wake(self, refusal: WakeRefusal) -> None:
        """To our own workers: it was one of them that asked."""
        self.here.refuse_wake(refusal)

    def add_token(self, token: KnownToken) -> None:
        self.here.add_token(token)
        self.say("token", token=token.token_id)

    def revoke_token(self, token_id: str) -> None:
        self.here.revoke_token(token_id)
        self.say("token", token=token_id)

    def forget_expired(self, now: datetime) -> None:
        self.here.forget_expired(now)

    def trust(self, issuers: Iterable[KnownIssuer], assertion_key: AssertionKey | None) -> None:
        self.here.trust(issuers, assertion_key)

    def _hear(self, hint: Hint) -> None:
        asked = self._asked.get(hint.get("number", 0))
        if hint.get("kind") != "withdrawn" or hint.get("to") != self.me or asked is None:
            return
        asked.silent.discard(str(hint["from"]))
        asked.idle = asked.idle and hint["idle"] is True
        if not asked.silent:
            asked.answered.set()


async def _idle(asked: _Asked, within_seconds: float) -> bool:
    """True when all others said in time that nothing is in flight at their workers."""
    try:
        # Each of them takes up to that time itself, and then its word has to come.
        async with asyncio.timeout(within_seconds + 1.0):
            await asked.answered.wait()
    except TimeoutError:
        log.warning("a control plane did not say that its relays are idle", silent=sorted(asked.silent))
        return False
    return asked.idle


if TYPE_CHECKING:
    _: type[Relays] = SharedRelays
