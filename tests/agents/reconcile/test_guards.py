"""When a removal is done and when it is held: two sweeps, not too many, no list that is suddenly empty, no older store."""

from __future__ import annotations

import pytest

from elizacloud.agents.reconcile.diff import Finding, Kind
from elizacloud.agents.reconcile.guards import FEW_REMOVALS, Seen, judge, seen
from elizacloud.agents.reconcile.observe import Outside
from tests.agents.reconcile.test_diff import instance, key, node


def orphans(count: int) -> list[Finding]:
    return [Finding(Kind.ORPHAN_NODE, "a", f"n{number}") for number in range(count)]


def outside(nodes: int = 10) -> Outside:
    return Outside((instance(),), tuple(node(f"n{number}") for number in range(nodes)), (key(),))


def test_a_removal_needs_two_sweeps_in_a_row() -> None:
    found = orphans(1)
    assert judge(found, outside(), Seen()).repair == ()
    before = seen(found, outside())
    assert judge(found, outside(), before).repair == tuple(found)
    between = seen([], outside())
    assert judge(found, outside(), between).repair == ()


def test_what_destroys_nothing_is_done_at_once() -> None:
    found = [Finding(Kind.INSTANCE_GONE, "a", "r1"), Finding(Kind.LIVE_KEY, "a", "k1")]
    assert judge(found, outside(), Seen()).repair == tuple(found)


def test_many_removals_at_once_are_held() -> None:
    few, many = orphans(FEW_REMOVALS), orphans(FEW_REMOVALS + 1)
    assert judge(few, outside(), seen(few, outside())).held == ()
    verdict = judge(many, outside(), seen(many, outside()))
    assert (verdict.repair, verdict.held) == ((), tuple(many))
    assert "too many" in verdict.why
    assert judge(many, outside(200), seen(many, outside(200))).held == ()


def test_a_list_that_is_suddenly_empty_holds_removals() -> None:
    found = [Finding(Kind.ORPHAN_KEY, "a", "k1")]
    empty = Outside((instance(),), (), (key(),))
    verdict = judge(found, empty, Seen(frozenset(found), instances=1, nodes=50))
    assert verdict.held == tuple(found)
    assert "Headscale lists no node" in verdict.why
    assert judge(found, empty, Seen(frozenset(found), instances=1, nodes=2)).repair == tuple(found)


def test_a_store_that_is_older_than_the_world_holds_removals() -> None:
    found = [Finding(Kind.ORPHAN_NODE, "a", "n1"), Finding(Kind.LATER_RUN, "b", "r9")]
    verdict = judge(found, outside(), seen(found, outside()))
    assert verdict.held == tuple(found)
    assert "backup" in verdict.why
    assert judge(found, outside(), seen(found, outside()), accepted=True).repair == tuple(found)


@pytest.mark.parametrize("kind", [Kind.SPENT_KEY, Kind.EXTRA_KEY])
def test_a_key_that_nobody_will_use_is_nothing_and_is_not_counted(kind: Kind) -> None:
    spent = [Finding(kind, "a", f"k{number}") for number in range(50)]
    assert judge(spent, outside(), Seen()).repair == ()
    assert judge(spent, outside(), seen(spent, outside())).repair == tuple(spent)


def test_a_store_that_is_not_trusted_removes_nothing_until_it_is_accepted() -> None:
    found = [Finding(Kind.ORPHAN_VOLUME, "a", "v1"), Finding(Kind.INSTANCE_GONE, "b", "r1")]
    before = seen(found, outside())
    held = judge(found, outside(), before, suspicion="the database went back")
    assert (held.repair, held.held, held.why) == ((found[1],), (found[0],), "the database went back")
    assert judge(found, outside(), before, suspicion="x", accepted=True).held == ()


def test_an_id_that_was_given_twice_holds_removals() -> None:
    found = [Finding(Kind.ORPHAN_NODE, "a", "n1"), Finding(Kind.ID_TWICE, "b", "node n2")]
    verdict = judge(found, outside(), seen(found, outside()))
    assert (verdict.repair, verdict.held, verdict.alarms) == ((), (found[0],), (found[1],))
    assert "second time" in verdict.why


def test_a_headscale_without_any_node_holds_what_follows_from_that() -> None:
    gone = [Finding(Kind.NODE_GONE, f"a{number}", f"n{number}") for number in range(FEW_REMOVALS + 1)]
    empty = Outside((instance(),), (), (key(),))
    verdict = judge(gone, empty, Seen())
    assert (verdict.repair, verdict.held) == ((), tuple(gone))
    assert "begun anew" in verdict.why
    assert judge(gone, empty, Seen(), accepted=True).repair == tuple(gone)
    assert judge(gone[:FEW_REMOVALS], empty, Seen()).repair == tuple(gone[:FEW_REMOVALS])
    assert judge(gone, outside(1), Seen()).repair == tuple(gone)


def test_an_alarm_is_told_when_it_was_seen_twice_and_nothing_is_done_about_it() -> None:
    found = [Finding(Kind.UNKNOWN_RELAY, "", "n1")]
    assert judge(found, outside(), Seen()).waiting == tuple(found)
    verdict = judge(found, outside(), seen(found, outside()), accepted=True)
    assert (verdict.alarms, verdict.repair) == (tuple(found), ())


def test_state_of_an_agent_that_the_store_never_knew_is_held_by_itself() -> None:
    found = [Finding(Kind.UNKNOWN_VOLUME, "a", f"v{number}") for number in range(9)]
    found.append(Finding(Kind.ORPHAN_NODE, "b", "n1"))
    before = seen(found, outside())
    verdict = judge(found, outside(), before)
    assert (verdict.repair, verdict.held) == ((found[-1],), tuple(found[:-1]))
    assert "never knew" in verdict.why
    assert judge(found, outside(), before, accepted=True).repair == tuple(found)
