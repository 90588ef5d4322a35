"""When a removal is done and when it is held: two sweeps, not too many, no list that is suddenly empty, no older store."""

from __future__ import annotations

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
    assert "Headscale lists nothing" in verdict.why
    assert judge(found, empty, Seen(frozenset(found), instances=1, nodes=2)).repair == tuple(found)


def test_a_store_that_is_older_than_the_world_holds_removals() -> None:
    found = [Finding(Kind.ORPHAN_NODE, "a", "n1"), Finding(Kind.LATER_RUN, "b", "r9")]
    verdict = judge(found, outside(), seen(found, outside()))
    assert verdict.held == (found[0],)
    assert "backup" in verdict.why


def test_an_expired_key_is_nothing_and_is_not_counted() -> None:
    spent = [Finding(Kind.SPENT_KEY, "a", f"k{number}") for number in range(50)]
    assert judge(spent, outside(), Seen()).repair == ()
    assert judge(spent, outside(), seen(spent, outside())).repair == tuple(spent)
