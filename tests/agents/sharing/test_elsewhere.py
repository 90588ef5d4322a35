"""What one control plane has another one do or know: hints that arrive, hints that are lost, and questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from elizacloud.agents.reconcile import sweep
from elizacloud.agents.reconcile.diff import Kind
from elizacloud.agents.sharing import asking, elsewhere, follower
from elizacloud.agents.sharing.shards import SHARED
from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable, LeaseLost
from elizacloud.model import AgentSpec
from elizacloud.states import State
from tests.agents.reconcile.test_sweep import leave_behind
from tests.agents.sharing import several
from tests.agents.sharing.several import WITHIN, ControlPlane, SharedWorld, until
from tests.agents.world import ANN

pytestmark = pytest.mark.postgresql
Start = Callable[..., object]


@pytest.fixture(autouse=True)
def long_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody dies here, and a busy machine must not look like it."""
    monkeypatch.setattr(several, "LEASE_SECONDS", 12.0)


async def leader_and_other(start: Start) -> tuple[ControlPlane, ControlPlane]:
    one: ControlPlane = await start()  # type: ignore[misc]
    await one.until_it_holds(len(SHARED))
    two: ControlPlane = await start()  # type: ignore[misc]
    await two.until_it_holds(8)
    await one.until_it_holds(9)
    assert one.leases.lead() is not None
    return one, two


async def agent_of(plane: ControlPlane, world: SharedWorld) -> str:
    """A ready agent that this one drives."""
    operations = plane.lifecycle.operations
    agent_id = (await operations.create(ANN, "ada", AgentSpec(), agent_id=plane.an_id())).record.agent.id
    await world.until(agent_id, State.READY, within=WITHIN)
    return agent_id


def make_deaf(plane: ControlPlane, patch: pytest.MonkeyPatch) -> None:
    """It hears neither hints nor that there are events, as while its LISTEN is cut off."""
    patch.setattr(plane.store.hints, "heard", lambda text: None)
    patch.setattr(plane.store._bell, "ring", lambda agent_id: None)


async def test_what_an_owner_wants_is_done_though_every_hint_is_lost(
    world: SharedWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.3)
    one, two = await leader_and_other(start)
    agent_id = await agent_of(two, world)
    with monkeypatch.context() as patch:
        make_deaf(two, patch)
        await one.lifecycle.operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED, within=WITHIN)
        await one.lifecycle.operations.start(agent_id, ANN)
        await world.until(agent_id, State.READY, within=WITHIN)


async def test_a_withdrawal_that_was_not_heard_vetoes_until_it_is(
    world: SharedWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await leader_and_other(start)
    agent_id = await agent_of(one, world)
    with monkeypatch.context() as patch:
        make_deaf(two, patch)
        assert not await one.shared.withdraw(agent_id, within_seconds=0.1)
    assert await one.shared.withdraw(agent_id, within_seconds=20)


async def test_what_a_container_says_at_another_one_is_known_to_its_driver(world: SharedWorld, start: Start) -> None:
    one, two = await leader_and_other(start)
    world.relays_see = False
    created = await one.lifecycle.operations.create(ANN, "ada", AgentSpec(), agent_id=two.an_id())
    agent_id = created.record.agent.id
    await world.until(agent_id, State.STARTED, within=WITHIN)
    ((_, secrets),) = world.runtime.started
    await one.lifecycle.containers.report_address(agent_id, secrets.join_token, "100.64.0.1")
    known = two.lifecycle._parts.lookout
    await until(lambda: known._of(agent_id).reported_at is not None, "its driver knows that it reported")
    await world.until(agent_id, State.READY, within=WITHIN)
    ends = await one.lifecycle.containers.busy(agent_id, secrets.busy_token, 3)
    await one.lifecycle.operations.pause(agent_id, ANN)
    held = await world.until(agent_id, lambda agent: agent.failure is not None, within=WITHIN)
    assert held.agent.failure is not None
    assert "working" in held.agent.failure.reason
    await world.until(agent_id, State.PAUSED, within=WITHIN)
    assert world.clock() >= ends


async def test_what_the_leaders_sweep_suspects_is_looked_at_by_whoever_drives_it(
    world: SharedWorld, start: Start
) -> None:
    one, two = await leader_and_other(start)
    agent_id = await agent_of(two, world)
    (node,) = world.nodes
    world.headscale._nodes[node.id] = replace(node, ipv4="100.64.0.99")
    for plane in (one, two):
        table = plane.relays.table
        await until(
            lambda table=table: agent_id in table.upstreams and table.upstreams[agent_id].ip == "100.64.0.99",  # type: ignore[misc]
            f"the relays of {plane.me} know its new address",
        )


async def test_who_asked_at_another_one_and_got_nothing_ends_nobody_elses_wait(
    world: SharedWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "HANDOVER_SECONDS", 0.0)
    one: ControlPlane = await start()  # type: ignore[misc]
    await one.until_it_holds(len(SHARED))
    there, handover, agent_id = one.lifecycle._elsewhere, one.lifecycle._parts.handover, one.an_id()
    assert there is not None
    asked = there._environment({"agent": agent_id})
    assert asked is not None
    others = handover.expect(agent_id)
    assert await asked is None
    assert handover.is_expected(agent_id)
    assert not others.cancelled()


async def test_what_is_left_behind_at_another_one_is_swept_soon(
    world: SharedWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SWEEP_SECONDS", 1000.0)
    monkeypatch.setattr(follower, "UNTIDY_GAP_SECONDS", 0.1)
    _, two = await leader_and_other(start)
    world.headscale.fail("create_preauth_key", after_acting=True)
    await agent_of(two, world)
    await until(lambda: len(world.keys) == 1, "the key whose id nobody knows is gone")


async def test_a_sweep_is_made_by_the_leader_wherever_it_is_asked_for(
    world: SharedWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_PART_CHARACTERS", 200)
    monkeypatch.setattr(sweep, "SOON_SECONDS", 1000.0)  # no sweep of its own comes between
    one, two = await leader_and_other(start)
    agent_id = await agent_of(two, world)
    await leave_behind(world)
    there = two.lifecycle.oversight
    verdict = await there.sweep(dry_run=True, accept=False)
    assert {found.kind for found in verdict.waiting} >= {Kind.ORPHAN_NODE, Kind.ORPHAN_INSTANCE, Kind.ORPHAN_KEY}
    assert verdict == await one.lifecycle.oversight.sweep(dry_run=True, accept=False)
    await there.sweep(dry_run=False, accept=False)
    async with asyncio.timeout(WITHIN):
        while (await there.sweep(dry_run=False, accept=False)).waiting:
            pass
    assert [node.id for node in world.nodes] == [(await world.record(agent_id)).generation.node_id]
    assert not {"delete_node", "remove"}.intersection(two.calls)
    # What the last sweep found is known to the leader alone.
    (node,) = world.nodes
    world.headscale._nodes[node.id] = replace(node, machine_key="mkey:another")
    (found,) = (await there.sweep(dry_run=True, accept=False)).repair
    assert (found.kind, found.agent_id) == (Kind.NODE_CHANGED, agent_id)
    assert (await there.explain(agent_id)).findings.found == (found,)
    world.headscale.down = True
    with pytest.raises(HeadscaleUnavailable, match="is down"):
        await there.sweep(dry_run=False, accept=False)


async def test_without_a_leader_that_says_so_a_sweep_is_refused_and_findings_are_not_known(
    world: SharedWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "HEARD_SECONDS", 0.3)
    one, two = await leader_and_other(start)
    agent_id = await agent_of(two, world)
    make_deaf(one, monkeypatch)
    with pytest.raises(LeaseLost, match="try again"):
        await two.lifecycle.oversight.sweep(dry_run=True, accept=False)
    explained = await two.lifecycle.oversight.explain(agent_id)
    assert (explained.findings.found, "try again" in explained.findings.error) == ((), True)


async def test_another_headscale_is_accepted_at_any_for_all(world: SharedWorld, start: Start) -> None:
    one, two = await leader_and_other(start)
    for plane in (one, two):
        await plane.lifecycle.memory.check_headscale()
    world.headscale.key = "mkey:another"
    for plane in (one, two):
        with pytest.raises(HeadscaleRefused):
            await plane.lifecycle.memory.check_headscale()
    await two.lifecycle.oversight.sweep(dry_run=False, accept=True)
    for plane in (one, two):
        await plane.lifecycle.checks["headscale"]()


async def test_another_headscale_is_accepted_also_where_none_leads(
    world: SharedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "HEARD_SECONDS", 0.3)
    waits = ControlPlane("1", world.store, world, None, blind=False).lifecycle
    await waits.memory.check_headscale()
    world.headscale.key = "mkey:another"
    with pytest.raises(HeadscaleRefused):
        await waits.memory.check_headscale()
    with pytest.raises(HeadscaleRefused, match="--accept"):
        await waits.oversight.sweep(dry_run=True, accept=True)
    with pytest.raises(LeaseLost):  # the sweep itself; what waits for its Headscale begins
        await waits.oversight.sweep(dry_run=False, accept=True)
    await waits.memory.check_headscale()


async def test_an_agent_that_is_started_by_hand_gets_its_environment_at_any(world: SharedWorld, start: Start) -> None:
    one, two = await leader_and_other(start)
    said: list[str] = []
    for plane in (one, two):
        send = plane.store.hints.send

        async def spied(hint: object, send: Callable[..., object] = send) -> None:
            said.append(str(hint))
            await send(hint)  # type: ignore[misc]

        plane.store.hints.send = spied  # type: ignore[method-assign]
    here = one.lifecycle.operations
    created = await here.create(ANN, "ada", AgentSpec(), external=True, agent_id=two.an_id())
    agent_id = created.record.agent.id
    restarted = await here.restart(agent_id, ANN)
    environments = [created.environment, restarted.environment]
    keys = []
    for environment in environments:
        assert environment is not None
        keys.append(environment["HEADSCALE_AUTH_KEY"].get_secret_value())
        for name in ("HEADSCALE_AUTH_KEY", "ELIZACLOUD_JOIN_TOKEN", "ELIZACLOUD_BUSY_TOKEN", "ELIZA_API_TOKEN"):
            value = environment[name].get_secret_value()
            assert value
            assert not [hint for hint in said if value in hint]
    assert any("environment" in hint for hint in said)
    assert keys[0] != keys[1]
    assert len(world.live_keys) == 1


async def test_an_environment_that_nobody_gives_is_none_and_not_a_failure(
    world: SharedWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "HANDOVER_SECONDS", 0.5)
    one, two = await leader_and_other(start)
    world.headscale.fail("create_preauth_key", times=1000)
    here = one.lifecycle.operations
    created = await here.create(ANN, "ada", AgentSpec(), external=True, agent_id=two.an_id())
    assert created.environment is None
