"""Rules of the design, each taken out: a test that calls one has to fail, or it would not find the next mistake either."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from elizacloud.agents import lookout
from elizacloud.agents.reconcile import diff, guards, sweep
from elizacloud.agents.steps import joining
from elizacloud.errors import Conflict
from elizacloud.model import TAG_AGENT, Agent
from elizacloud.store import Record
from elizacloud.store.agents import Agents


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """A write that was overtaken wins over the one that overtook it."""
    save = Agents.save

    async def forced(self: Agents, agent: Agent, **arguments: Any) -> Agent:
        try:
            return await save(self, agent, **arguments)
        except Conflict as conflict:
            if conflict.reason != "stale":
                raise
            present = (await self.record(agent.id)).agent
            return await save(self, replace(agent, revision=present.revision), **arguments)

    patch.setattr(Agents, "save", forced)


def no_tag_check(patch: pytest.MonkeyPatch) -> None:
    """A node counts as joined by its key alone."""
    patch.setattr(lookout, "has_joined", lambda node, generation: node.preauth_key_id == generation.preauth_key_id)


def no_two_sweeps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep, "judge", lambda findings, outside, before, **_: guards.Verdict(tuple(findings)))


def no_installation_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(diff, "installation_tag", lambda _: TAG_AGENT)


def no_expiry_of_keys(patch: pytest.MonkeyPatch) -> None:
    async def kept(_: Any, record: Record) -> Record:
        return record

    patch.setattr(joining, "retire_key", kept)
    patch.setattr(diff, "_of_key", lambda *_, **__: ())


MUTANTS = [no_fence, no_tag_check, no_two_sweeps, no_installation_check, no_expiry_of_keys]
