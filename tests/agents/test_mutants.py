"""Stories told by heart, one for each rule that is worth a mutant: with the rule it ends well, without it, it does not.

The random stories look for these, too; what they find depends on chance, and these do not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from elizacloud.states import Wanted
from tests.agents import mutants
from tests.agents.random_cloud import RandomCloud
from tests.agents.world import INSTALLATION

pytestmark = pytest.mark.usefixtures("silence")


def deleted_while_its_key_is_minted(cloud: RandomCloud) -> None:
    cloud.headscale_seconds = 1.0
    agent = cloud.create("ann", "a")
    cloud.passes(0.5)
    cloud.want(agent, "delete", Wanted.DELETED)
    cloud.heal()
    cloud.audit_settled()


def its_key_is_used_by_another_agent(cloud: RandomCloud) -> None:
    cloud.create("ann", "hostile")
    cloud.passes(5)
    cloud.world.join_seconds = 5.0
    cloud.create("bob", "victim")
    cloud.passes(0.1)
    (attacker,) = cloud.nodes
    cloud.key_used_by(attacker)
    assert cloud.hostile == 1
    for _ in range(40):
        cloud.passes(0.25)
        cloud.audit_pins()
    cloud.heal()
    cloud.audit_settled()


def something_is_left_behind(cloud: RandomCloud) -> None:
    cloud.create("ann", "a")
    cloud.passes(5)
    cloud.leave_behind(INSTALLATION)
    cloud.heal()
    cloud.audit_settled()


def another_installation_is_on_the_same_headscale(cloud: RandomCloud) -> None:
    cloud.create("ann", "a")
    cloud.stranger()
    cloud.heal()
    cloud.audit_settled()


def it_has_joined(cloud: RandomCloud) -> None:
    cloud.create("ann", "a")
    cloud.passes(5)
    cloud.audit_settled()


STORIES: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[RandomCloud], None]]] = [
    (mutants.no_fence, deleted_while_its_key_is_minted),
    (mutants.no_tag_check, its_key_is_used_by_another_agent),
    (mutants.no_two_sweeps, something_is_left_behind),
    (mutants.no_installation_check, another_installation_is_on_the_same_headscale),
    (mutants.no_expiry_of_keys, it_has_joined),
]


def tell(story: Callable[[RandomCloud], None]) -> None:
    cloud = RandomCloud()
    try:
        story(cloud)
    finally:
        cloud.close()


@pytest.mark.parametrize(("mutant", "story"), STORIES, ids=lambda part: part.__name__)
def test_a_story_ends_well_and_without_the_rule_it_does_not(
    mutant: Callable[[pytest.MonkeyPatch], None],
    story: Callable[[RandomCloud], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell(story)
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        tell(story)


def test_each_mutant_has_a_story() -> None:
    assert [mutant for mutant, _ in STORIES] == mutants.MUTANTS
