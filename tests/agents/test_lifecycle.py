"""The life of an agent from end to end, in virtual time, on the real store and on fakes of everything outside."""

from __future__ import annotations

import pytest

from tests.agents.world import World

pytestmark = pytest.mark.looptime


async def test_an_agent_becomes_ready_and_its_key_is_expired(world: World) -> None:
    async with world.running():
        record = await world.ready()
    generation = record.generation
    assert generation.node_id == world.nodes[0].id
    assert generation.ipv4 == world.nodes[0].ipv4
    assert generation.preauth_key_expired
    assert world.live_keys == []
    assert world.relays.table.upstreams[record.agent.id].routable
    assert await world.events(record.agent.id) == [
        ("create", "requested"),
        ("mint key and create instance", "keyed"),
        ("start instance", "started"),
        ("await join", "joined"),
        ("await ready", "ready"),
    ]
