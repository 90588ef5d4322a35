"""What a container may tell and ask of its own agent, with the tokens of its present run. All of it is bounded.

A wrong token and a wrong id look the same, so that nobody learns which ids are taken.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import SecretStr

from elizacloud.agents.backoff import is_within
from elizacloud.agents.credentials import check_busy_token, check_join_token
from elizacloud.agents.drive import Driver
from elizacloud.agents.hints import Hints
from elizacloud.agents.identity import has_joined
from elizacloud.agents.parts import BUSY_MAX_SECONDS, Parts
from elizacloud.agents.sharing.follower import Follower
from elizacloud.agents.steps.launching import EXTERNAL_KEY_LIFETIME_SECONDS, forget_node, mint
from elizacloud.errors import Conflict, Invalid, NotFound, TooMany
from elizacloud.headscale.protocol import MintedKey
from elizacloud.model import Run
from elizacloud.states import State, Wanted
from elizacloud.store import Record

REKEY = "rekey"
REKEY_GAP_SECONDS = 30.0
BUSY_GAP_SECONDS = 2.0
"""What moves the end of its work by less is not worth a write."""
REPORT_GAP_SECONDS = 5.0
"""A report that differs from the record costs Headscale a call; so often at most."""
_ALIVE = frozenset({State.STARTED, State.JOINED, State.READY})


@dataclass(frozen=True, slots=True)
class Rekeyed:
    key: MintedKey
    join_url: str


class Containers:
    def __init__(self, parts: Parts, driver: Driver, hints: Hints, others: Follower | None = None) -> None:
        """`others` passes hints on to the control plane that drives the agent."""
        self._others = others
        self._parts = parts
        self._driver = driver
        self._hints = hints
        self._looked_at: dict[str, datetime] = {}
        """By agent, the latest last: when a look was made for its report, of those too young for another one."""

    async def report_address(self, agent_id: str, token: SecretStr, address: str) -> bool:
        """True when Headscale has that address for it; False when Headscale has none yet; Conflict when it differs.

        The report is a hint to look, and is never stored.
        """
        record = await self._load(agent_id)
        check_join_token(record.run if record else None, token)
        assert record is not None
        try:
            reported = str(ipaddress.ip_address(address))
        except ValueError:
            raise Invalid("cannot read headscaleIp: give one IPv4 or IPv6 address", code="invalid_address") from None
        generation = record.generation
        # Also of a run whose start is not written down yet: a container may join before its runtime has said that it runs.
        self._parts.lookout.reported(agent_id)
        if record.agent.state is State.STARTED:
            self._hints.hint(agent_id)
            if self._others is not None:
                self._others.reported(agent_id)
        if generation.node_id is None:
            return False
        if reported in (generation.ipv4, generation.ipv6):
            return True
        if self._may_look(agent_id):
            node = await self._parts.place.headscale.get_node(generation.node_id)
            if node is None:
                return False
            if reported in (node.ipv4, node.ipv6):
                self._driver.wake(agent_id, suspected=True)
                return True
        raise Conflict("cannot accept the address: Headscale has another one for this node", code="address_differs")

    async def rekey(self, agent_id: str, token: SecretStr) -> Rekeyed:
        """A new key for the same generation, when its node is missing or its instance ended with a dead key.

        Raises Conflict `not_needed` otherwise, TooMany, and what Headscale's client raises.
        """
        async with self._driver.turn(agent_id):
            record = await self._load(agent_id)
            check_join_token(record.run if record else None, token)
            assert record is not None
            agent = record.agent
            if agent.wanted is not Wanted.RUNNING or agent.state not in _ALIVE:
                raise Conflict("cannot give it a new key: it is not meant to run now", code="not_running")
            if not await self._has_lost_its_node(record):
                raise Conflict("cannot give it a new key: it needs none", code="not_needed")
            return await self._give_new_key(await self._claim_rekey(record))

    async def busy(self, agent_id: str, token: SecretStr, seconds: float) -> datetime:
        """It works and must not be paused until then; at most BUSY_MAX_SECONDS from now."""
        record = await self._load(agent_id)
        check_busy_token(record.run if record else None, token)
        if not 0 <= seconds <= BUSY_MAX_SECONDS:
            raise Invalid(
                f"cannot be busy for {seconds} seconds: give 0 to {BUSY_MAX_SECONDS:.0f}", code="invalid_lease"
            )
        assert record is not None
        assert record.run is not None
        until, before = self._parts.now() + timedelta(seconds=seconds), record.run.busy_until
        if before is None or abs((until - before).total_seconds()) >= BUSY_GAP_SECONDS:
            await self._parts.store.agents.busy(record.run, until)
        return until

    async def _load(self, agent_id: str) -> Record | None:
        try:
            return await self._parts.journal.load(agent_id)
        except NotFound:
            return None

    def _may_look(self, agent_id: str) -> bool:
        now = self._parts.now()
        while self._looked_at and not is_within(REPORT_GAP_SECONDS, next(iter(self._looked_at.values())), now):
            del self._looked_at[next(iter(self._looked_at))]
        if agent_id in self._looked_at:
            return False
        self._looked_at[agent_id] = now
        return True

    async def _has_lost_its_node(self, record: Record) -> bool:
        """Seen by us and not said by the container: its node is not there, or its instance ended with a dead key."""
        generation, run = record.generation, record.run
        if generation.node_id is not None:
            return await self._parts.place.headscale.get_node(generation.node_id) is None
        if run is not None and run.runtime_ref is not None:
            instance = await self._parts.place.runtime.inspect(run.runtime_ref)
            return instance is not None and instance.key_is_dead
        nodes = await self._parts.place.headscale.list_nodes()
        return self._key_is_over(run) and not any(has_joined(node, generation) for node in nodes)

    def _key_is_over(self, run: Run | None) -> bool:
        """An agent that was started by hand too late finds its key expired."""
        lifetime = timedelta(seconds=EXTERNAL_KEY_LIFETIME_SECONDS)
        return run is not None and run.started_at is not None and self._parts.now() - run.started_at > lifetime

    async def _claim_rekey(self, record: Record) -> Record:
        """Write that it gets a new key, by compare-and-set, before one is minted: of two who ask at once one gets it,
        whichever control planes they ask, and a restart does not make one forget."""
        store, agent = self._parts.store, record.agent
        last = await store.events.last(agent.id, step=REKEY)
        too_soon = last is not None and is_within(REKEY_GAP_SECONDS, last.at, self._parts.now())
        try:
            if not too_soon:
                saved = await store.agents.save(agent, step=REKEY, reason="it asked for a new key")
                return replace(record, agent=saved)
        except Conflict as conflict:
            if conflict.reason != "stale":
                raise
        raise TooMany(
            "cannot give it a new key so soon after the last one, or while it changes: try later",
            code="rekeyed_too_soon",
            retry_after_seconds=REKEY_GAP_SECONDS if too_soon else 1.0,
        )

    async def _give_new_key(self, record: Record) -> Rekeyed:
        if record.generation.preauth_key_id is not None:
            await self._parts.place.headscale.expire_preauth_key(record.generation.preauth_key_id)
        key = await mint(self._parts, record)
        generation = replace(forget_node(record.generation), preauth_key_id=key.id)
        self._parts.lookout.expect(record.agent.id)
        await self._parts.journal.save(
            record, step=REKEY, to=State.STARTED, reason="its node is gone; it got a new key", generation=generation
        )
        self._parts.untidy.set()
        return Rekeyed(key, self._parts.place.join_url)
