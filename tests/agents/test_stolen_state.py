"""A machine that has a stopped agent's state or key: told to the operator while it is online, and left as it is."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from elizacloud.agents.reconcile.diff import Kind
from elizacloud.states import State
from elizacloud.store import Record
from tests.agents.world import ANN, World

pytestmark = pytest.mark.looptime

OFFLINE_SECONDS = 10.0
"""After which Headscale says that a machine has ended."""


async def stopped(world: World) -> Record:
    record = await world.ready()
    await world.lifecycle.operations.stop(record.agent.id, ANN)
    return await world.until(record.agent.id, State.STOPPED)


async def goes_offline(world: World, record: Record) -> None:
    assert record.generation.node_id is not None
    await world.passes(OFFLINE_SECONDS)
    await world.headscale.set_online(record.generation.node_id, False)


def found(world: World) -> list[Kind]:
    return [finding.kind for finding in world.lifecycle.sweeper.findings]


async def test_an_ordinary_stop_is_no_alarm(world: World) -> None:
    async with world.running():
        with capture_logs() as logs:
            record = await stopped(world)
            for _ in range(2):
                await world.lifecycle.sweeper.sweep()
                await world.passes(6)
            assert found(world) == []
            await goes_offline(world, record)
            await world.passes(600)
    assert found(world) == []
    assert not [line for line in logs if line["event"] == "found"]


async def test_a_machine_that_joins_as_it_is_told_and_left_as_it_is(world: World) -> None:
    async with world.running():
        record = await stopped(world)
        agent_id, node_id = record.agent.id, record.generation.node_id
        assert node_id is not None
        await goes_offline(world, record)
        await world.passes(300)
        await world.headscale.set_online(node_id, True)
        with capture_logs() as logs:
            await world.passes(300)
        told = [line for line in logs if line["event"] == "found"]
        assert [(line["kind"], line["agent"], line["about"]) for line in told] == [
            ("node of a stopped agent online", agent_id, node_id)
        ]
        assert told[0]["log_level"] == "error"
        metrics = world.lifecycle.metrics
        assert metrics.drift.labels("node of a stopped agent online")._value.get() == 1
        (shown,) = (await world.lifecycle.oversight.explain(agent_id)).findings.found
        assert shown.kind is Kind.NODE_ONLINE
        assert "does another machine have its state or key?" in shown.detail
        verdict = await world.lifecycle.sweeper.sweep(accept=True)
        assert (verdict.alarms, verdict.repair, verdict.held) == ((shown,), (), ())
        assert [node.id for node in world.nodes] == [node_id]
        assert (await world.record(agent_id)).agent == record.agent

        await world.headscale.set_online(node_id, False)
        await world.passes(100)
        assert found(world) == []


async def test_it_has_to_be_seen_twice(world: World) -> None:
    async with world.running():
        record = await stopped(world)
        await goes_offline(world, record)
    await world.passes(300)
    assert record.generation.node_id is not None
    await world.headscale.set_online(record.generation.node_id, True)
    first = await world.lifecycle.sweeper.sweep()
    assert ([finding.kind for finding in first.waiting], first.alarms) == ([Kind.NODE_ONLINE], ())
    await world.passes(10)
    assert [finding.kind for finding in (await world.lifecycle.sweeper.sweep()).alarms] == [Kind.NODE_ONLINE]
