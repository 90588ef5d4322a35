"""Random calls, crashes, clock jumps and faults against a simple model of what owners want, in virtual time.

When something fails, hypothesis shrinks it to the shortest story that still does. The stories are the same ones each time:
a few in `make test`, many in `make chaos`, where they also have to find each mutant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from elizacloud.errors import Conflict, NotFound
from elizacloud.states import Wanted
from tests.agents import mutants
from tests.agents.random_cloud import RandomCloud
from tests.agents.world import INSTALLATION

VERBS = {"start": Wanted.RUNNING, "restart": Wanted.RUNNING, "pause": Wanted.PAUSED, "stop": Wanted.STOPPED}
HEADSCALE = ["create_preauth_key", "expire_preauth_key", "delete_preauth_key", "get_node", "list_nodes", "delete_node"]
MOST_AGENTS = 4
LOOKED_AT_SECONDS = 2.5
"""Within these the control plane looks for nodes that joined, without a hint."""
pick = st.integers(min_value=0, max_value=1000)


pytestmark = pytest.mark.usefixtures("silence")
MANY = os.environ.get("CHAOS") == "all"


class Stories(RuleBasedStateMachine):
    agents = Bundle("agents")

    def __init__(self) -> None:
        super().__init__()
        self.cloud = RandomCloud()
        self.created = 0

    def teardown(self) -> None:
        try:
            self.cloud.heal()
            self.cloud.audit_settled()
        finally:
            self.cloud.close()

    @invariant()
    def holds(self) -> None:
        self.cloud.audit()
        self.cloud.audit_pins()

    # Owners.

    @initialize(target=agents, ready=st.booleans(), slow=st.booleans())
    def begin(self, ready: bool, slow: bool) -> Any:
        """With one agent that is ready while another one's key waits to be used, which is where the harm is near."""
        first = self.create("ann")
        self.cloud.passes(5 if ready else 0)
        self.joins_take(5.0 if slow else 0.2)
        second = self.create("bob")
        self.cloud.passes(0.05)
        return multiple(first, second)

    @precondition(lambda self: self.created < MOST_AGENTS)
    @rule(target=agents, owner=st.sampled_from(["ann", "bob"]))
    def create(self, owner: str) -> str:
        self.created += 1
        return self.cloud.create(owner, f"agent {self.created}")

    @rule(agent=agents, verb=st.sampled_from(sorted(VERBS)))
    def ask(self, agent: str, verb: str) -> None:
        try:
            self.cloud.want(agent, verb, VERBS[verb])
        except (NotFound, Conflict):
            assert self.cloud.wanted[agent] is Wanted.DELETED or verb == "pause"

    @rule(agent=consumes(agents))
    def delete(self, agent: str) -> None:
        self.cloud.want(agent, "delete", Wanted.DELETED)

    # Time and the control plane.

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.21, 0.5, 2, 15, 70, 130]))
    def time_passes(self, seconds: float) -> None:
        self.cloud.passes(seconds)

    @rule(seconds=st.sampled_from([-86_400.0, -3600.0, -30.0, 30.0, 3600.0]))
    def the_clock_jumps(self, seconds: float) -> None:
        self.cloud.jump(seconds)

    @rule()
    def the_control_plane_is_killed(self) -> None:
        self.cloud.crash()

    # Faults of what is outside.

    @rule(method=st.sampled_from(HEADSCALE), after=st.booleans(), times=st.integers(1, 3))
    def headscale_fails(self, method: str, after: bool, times: int) -> None:
        self.cloud.world.headscale.fail(method, times=times, after_acting=after)

    @rule(seconds=st.sampled_from([0.0, 0.3, 3.0]))
    def headscale_takes(self, seconds: float) -> None:
        self.cloud.headscale_seconds = seconds

    @rule(down=st.booleans())
    def headscale_goes(self, down: bool) -> None:
        self.cloud.world.headscale.down = down

    @rule(answers=st.booleans())
    def the_runtime_goes(self, answers: bool) -> None:
        self.cloud.world.runtime.answers = answers

    @rule(linked=st.booleans(), see=st.booleans())
    def the_relays_go(self, linked: bool, see: bool) -> None:
        self.cloud.world.relays.linked, self.cloud.world.relays_see = linked, see

    @precondition(lambda self: self.cloud.running)
    @rule(number=pick)
    def an_instance_dies(self, number: int) -> None:
        running = self.cloud.running
        self.cloud.instance_dies(running[number % len(running)])

    @precondition(lambda self: self.cloud.known)
    @rule(number=pick, volume=st.booleans())
    def an_instance_vanishes(self, number: int, volume: bool) -> None:
        known = self.cloud.known
        self.cloud.instance_vanishes(known[number % len(known)], volume=volume)

    @precondition(lambda self: self.cloud.nodes)
    @rule(number=pick)
    def a_node_is_deleted(self, number: int) -> None:
        nodes = self.cloud.nodes
        self.cloud.node_deleted(nodes[number % len(nodes)])

    @precondition(lambda self: self.cloud.nodes)
    @rule(number=pick)
    def a_node_gets_another_address(self, number: int) -> None:
        nodes = self.cloud.nodes
        self.cloud.node_changed(nodes[number % len(nodes)], ipv4=f"100.64.9.{number % 250 + 1}")

    @precondition(lambda self: self.cloud.nodes)
    @rule(number=pick)
    def a_node_is_renamed(self, number: int) -> None:
        nodes = self.cloud.nodes
        self.cloud.node_changed(nodes[number % len(nodes)], given_name="somebody-else")

    @rule(seconds=st.sampled_from([0.2, 5.0]))
    def joins_take(self, seconds: float) -> None:
        self.cloud.world.join_seconds = seconds

    @precondition(lambda self: self.cloud.nodes and self.cloud.hostile < 2)
    @rule(number=pick)
    def a_hostile_agent_uses_a_key(self, number: int) -> None:
        nodes = self.cloud.nodes
        self.cloud.key_used_by(nodes[number % len(nodes)])

    @precondition(lambda self: self.cloud.orphans < 1)
    @rule()
    def something_is_left_behind(self) -> None:
        self.cloud.orphans += 1
        self.cloud.leave_behind(INSTALLATION)

    @rule()
    def another_installation_works(self) -> None:
        self.cloud.stranger()


class Hunts(Stories):
    """The same, nearer to the harm: one agent is always ready while another one's key waits to be used, and whoever uses it is
    looked at before anything else happens."""

    @initialize(target=Stories.agents)
    def begin(self) -> Any:
        return Stories.begin(self, ready=True, slow=True)

    @precondition(lambda self: self.cloud.nodes and self.cloud.hostile < 2)
    @rule(number=pick)
    def a_hostile_agent_uses_a_key(self, number: int) -> None:
        Stories.a_hostile_agent_uses_a_key(self, number)
        self.cloud.passes(LOOKED_AT_SECONDS)


def _stories(examples: int, *phases: Phase) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(3600 if MANY else 180)
def test_whatever_happens_the_cloud_becomes_what_its_owners_want() -> None:
    run_state_machine_as_test(Stories, settings=_stories(300 if MANY else 20, Phase.generate, Phase.shrink))


@pytest.mark.skipif(not MANY, reason="told by `make chaos`")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_stories_find_a_rule_that_was_taken_out(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Hunts, settings=_stories(200, Phase.generate))
