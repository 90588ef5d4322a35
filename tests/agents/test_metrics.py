"""What the control plane counts: a life, its failures, what a sweep found, and what Headscale costs."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from elizacloud.agents.metrics import Metrics
from elizacloud.agents.reconcile.diff import Kind
from elizacloud.errors import HeadscaleUnavailable, StoreUnavailable
from elizacloud.states import State
from tests.agents.reconcile.test_sweep import leave_behind
from tests.agents.world import World

pytestmark = pytest.mark.looptime


def text_of(metrics: Metrics) -> str:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


async def test_steps_their_failures_and_calls_to_headscale_are_counted(world: World) -> None:
    world.headscale.fail("create_preauth_key", times=2)
    async with world.running():
        await world.ready()
    text = text_of(world.lifecycle.metrics)
    step = "mint key and create instance"
    assert f'elizacloud_step_seconds_count{{step="{step}"}} 1.0' in text
    code = HeadscaleUnavailable.code
    assert f'elizacloud_step_failures_total{{code="{code}",step="{step}"}} 2.0' in text
    assert f'elizacloud_step_retries_total{{step="{step}"}} 2.0' in text
    assert 'elizacloud_headscale_call_seconds_count{call="create_preauth_key"} 3.0' in text
    assert f'elizacloud_headscale_errors_total{{call="create_preauth_key",code="{code}"}} 2.0' in text


async def test_what_a_sweep_finds_is_counted_once_and_what_it_repairs(world: World) -> None:
    await leave_behind(world)
    sweeper = world.lifecycle.sweeper
    await sweeper.sweep()
    text = text_of(world.lifecycle.metrics)
    assert f'elizacloud_drift{{kind="{Kind.ORPHAN_NODE}"}} 1.0' in text
    assert "elizacloud_repairs_total{" not in text
    await world.passes(10)
    await sweeper.sweep()
    await world.passes(10)
    await sweeper.sweep()
    text = text_of(world.lifecycle.metrics)
    assert f'elizacloud_drift{{kind="{Kind.ORPHAN_NODE}"}} 0.0' in text
    assert f'elizacloud_drift_found_total{{kind="{Kind.ORPHAN_NODE}"}} 1.0' in text
    assert f'elizacloud_repairs_total{{kind="{Kind.ORPHAN_NODE}",result="done"}} 1.0' in text
    assert "elizacloud_held 0.0" in text


async def test_addresses_in_use_are_told_beside_how_many_there_are(world: World) -> None:
    async with world.running():
        await world.ready("ada")
        await world.ready("bob")
        await world.lifecycle.sweeper.sweep()
    text = text_of(world.lifecycle.metrics)
    assert "elizacloud_headscale_addresses_used 2.0" in text
    assert "elizacloud_headscale_addresses 4.194304e+06" in text, "100.64.0.0/10 has other addresses"


async def test_what_is_held_is_shown(world: World) -> None:
    for number in range(4):
        await leave_behind(world, agent_id=f"z{number:015d}")
    await world.lifecycle.sweeper.sweep()
    await world.passes(10)
    verdict = await world.lifecycle.sweeper.sweep()
    assert f"elizacloud_held {float(len(verdict.held))}" in text_of(world.lifecycle.metrics)
    assert verdict.held


async def test_agents_are_counted_by_state_and_a_store_that_is_down_hides_nothing_else(world: World) -> None:
    async with world.running():
        await world.ready("ada")
        await world.ready("bob")
    counts = await world.store.agents.count_by_state()
    assert counts == {State.READY: 2}
    metrics = world.lifecycle.metrics
    metrics.states = lambda: counts
    text = text_of(metrics)
    assert 'elizacloud_agents{state="ready"} 2.0' in text
    assert 'elizacloud_agents{state="tombstone"} 0.0' in text

    def down() -> dict[State, int]:
        raise StoreUnavailable("cannot read the store")

    metrics.states = down
    text = text_of(metrics)
    assert "elizacloud_agents{" not in text
    assert "elizacloud_step_seconds_count" in text


async def test_no_label_names_an_agent(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await leave_behind(world)
        await world.passes(200)
    text = text_of(world.lifecycle.metrics)
    assert agent_id not in text
    assert "zzzz" not in text
