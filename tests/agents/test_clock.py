"""Clocks that are put back or forward by seconds or days, at the moments when something waits for a time."""

from __future__ import annotations

import pytest

from elizacloud.states import State, Wanted
from tests.agents.random_cloud import RandomCloud

JUMPS = [-10 * 86_400.0, -3600.0, -30.0, 30.0, 3600.0, 10 * 86_400.0]

pytestmark = [pytest.mark.usefixtures("silence"), pytest.mark.parametrize("jump", JUMPS)]


@pytest.fixture
def cloud() -> RandomCloud:
    return RandomCloud()


def end(cloud: RandomCloud) -> None:
    try:
        cloud.audit_settled()
    finally:
        cloud.close()


def test_while_an_agent_joins(cloud: RandomCloud, jump: float) -> None:
    cloud.world.join_seconds = 5
    cloud.create("ann", "a")
    cloud.passes(1)
    cloud.jump(jump)
    cloud.passes(120)
    end(cloud)


def test_while_a_failed_step_waits_for_its_next_try(cloud: RandomCloud, jump: float) -> None:
    cloud.world.headscale.down = True
    cloud.create("ann", "a")
    cloud.passes(60)
    cloud.jump(jump)
    cloud.world.headscale.down = False
    cloud.passes(60)
    end(cloud)


def test_while_an_instance_that_dies_waits_for_its_next_start(cloud: RandomCloud, jump: float) -> None:
    cloud.create("ann", "a")
    cloud.passes(5)
    for _ in range(4):
        for instance in cloud.running:
            cloud.instance_dies(instance)
        cloud.passes(2)
    cloud.jump(jump)
    cloud.passes(140)  # a key that lives again, because its end is ahead again, is found by the next sweep
    end(cloud)


def test_while_all_is_well(cloud: RandomCloud, jump: float) -> None:
    cloud.create("ann", "a")
    cloud.passes(5)
    cloud.jump(jump)
    cloud.passes(300)
    (record,) = cloud.records()
    assert (record.agent.state, record.agent.run) == (State.READY, 1)
    end(cloud)


def test_while_an_agent_is_deleted(cloud: RandomCloud, jump: float) -> None:
    agent = cloud.create("ann", "a")
    cloud.passes(5)
    cloud.want(agent, "delete", Wanted.DELETED)
    cloud.passes(0.5)
    cloud.jump(jump)
    cloud.passes(60)
    end(cloud)
