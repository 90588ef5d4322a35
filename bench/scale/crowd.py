"""Thousands of ready agents at once: rows in the store, and the nodes, keys, instances and volumes that fakes list."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa
from pydantic import SecretStr
from tests.agents.world import INSTALLATION, World
from tests.fakes.headscale import _StoredKey
from tests.fakes.runtime import _Held
from tests.fakes.store import CELL, HOST

from elizacloud.headscale.protocol import Node, PreAuthKey
from elizacloud.model import (
    TAG_AGENT,
    Agent,
    AgentSpec,
    Generation,
    Run,
    agent_tag,
    installation_tag,
    new_agent_id,
    utc_now,
)
from elizacloud.runtime.protocol import Instance, InstanceSpec, Labels, Phase
from elizacloud.states import State, Wanted
from elizacloud.store import Cipher, Store, rows, tables

OWNER = "ann"
_AT_ONCE = 500


async def fill(store: Store, cipher: Cipher, world: World, count: int) -> None:
    """`count` agents of one owner, each with a configuration, a secret and a credential, as one that has run for a while."""
    await store.owners.ensure(OWNER)
    for first in range(0, count, _AT_ONCE):
        numbers = range(first, min(count, first + _AT_ONCE))
        ids = [new_agent_id() for _ in numbers]
        values: dict[sa.Table, list[dict[str, object]]] = {tables.agents: [], tables.generations: [], tables.runs: []}
        for number, agent_id in zip(numbers, ids, strict=True):
            agent, generation, run = _rows_of(agent_id, number)
            values[tables.agents].append(rows.agent_to_row(agent, cipher))
            values[tables.generations].append(rows.generation_to_row(generation))
            values[tables.runs].append(rows.run_to_row(run, cipher))
            _outside(world, generation, run)
        async with store._database.write() as connection:
            for table, some in values.items():
                await connection.execute(sa.insert(table), some)
    async with store._database.write() as connection:
        await connection.execute(sa.text("ANALYZE"))  # as autovacuum does within a minute


def _rows_of(agent_id: str, number: int) -> tuple[Agent, Generation, Run]:
    at = utc_now() - timedelta(seconds=number)
    spec = AgentSpec(
        image="ghcr.io/milady/agent:1",
        environment={"LOG_LEVEL": "info"},
        secrets={"API_KEY": SecretStr(f"secret-{number}")},
        config={"name": f"agent {number}", "bio": "x" * 200},
    )
    agent = Agent(
        id=agent_id,
        owner_id=OWNER,
        name=f"agent-{number}",
        spec=spec,
        wanted=Wanted.RUNNING,
        state=State.READY,
        cell_id=CELL.id,
        host_id=HOST.id,
        run=1,
        agent_ready=True,
        revision=6,
        created_at=at,
        updated_at=at,
    )
    generation = Generation(
        agent_id,
        1,
        preauth_key_id=str(number + 1),
        preauth_key_expired=True,
        node_id=str(number + 1),
        node_key=f"nodekey:{number}",
        machine_key=f"mkey:{agent_id}/1",
        ipv4=f"100.{64 + number // 65536}.{number // 256 % 256}.{number % 256}",
        ipv6=f"fd7a:115c:a1e0::{number + 1:x}",
        joined_at=at,
        created_at=at,
    )
    run = Run(
        agent_id,
        1,
        1,
        runtime_ref=f"{agent_id}.1.1",
        agent_token=SecretStr(f"eca_{number:043d}"),
        join_token_sha256="0" * 64,
        busy_token_sha256="0" * 64,
        started_at=at,
        ready_at=at,
    )
    return agent, generation, run


def _outside(world: World, generation: Generation, run: Run) -> None:
    headscale, runtime, agent_id = world.headscale, world.runtime, generation.agent_id
    assert generation.node_id is not None
    assert run.runtime_ref is not None
    tags = tuple(sorted((TAG_AGENT, agent_tag(agent_id), installation_tag(INSTALLATION))))
    node = Node(
        id=generation.node_id,
        name=f"milaidy-{agent_id}",
        given_name=f"milaidy-{agent_id}",
        node_key=generation.node_key or "",
        machine_key=generation.machine_key or "",
        ipv4=generation.ipv4,
        ipv6=generation.ipv6,
        tags=tags,
        preauth_key_id=generation.preauth_key_id,
        online=True,
        last_seen=generation.joined_at,
        created_at=generation.joined_at,
    )
    headscale._nodes[node.id] = node
    key = PreAuthKey(node.id, tags, True, False, generation.joined_at)
    headscale._keys[key.id] = _StoredKey(key, f"hskey-auth-{key.id}")
    headscale._last_node_id = headscale._last_key_id = max(int(node.id), headscale._last_node_id)
    labels = Labels(INSTALLATION, agent_id, 1, 1)
    spec = InstanceSpec(labels, node.name, "https://hs.test", None, AgentSpec())
    instance = replace(Instance(run.runtime_ref, labels, Phase.RUNNING), started_at=run.started_at)
    runtime._held[run.runtime_ref] = _Held(instance, spec)
    runtime.volumes.add((agent_id, 1))
    runtime.joined_volumes.add((agent_id, 1))
    runtime._volumes_of[(agent_id, 1)] = INSTALLATION
