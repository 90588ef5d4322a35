"""The table of upstreams: revisions in order, the latest word on an agent wins, nothing half applied."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from elizacloud.model import Scope
from elizacloud.upstreams import (
    AssertionKey,
    Change,
    KnownAgent,
    KnownIssuer,
    KnownToken,
    Probe,
    PublicKey,
    Snapshot,
    Upstream,
    UpstreamTable,
)


def an_upstream(agent_id: str = "a", *, run: int = 1, ip: str = "100.64.0.7") -> Upstream:
    return Upstream(agent_id, "owner", 1, run, "cell", "7", ip, SecretStr("agent-token"))


def a_token(token_id: str, sha256: str, *, parent_id: str | None = None) -> KnownToken:
    return KnownToken(token_id, sha256, "owner", frozenset({Scope.OWNER}), parent_id=parent_id)


OURS = KnownIssuer("https://cloud.example", (PublicKey("k1", "{}"),))
THEIRS = KnownIssuer("https://platform.example", (PublicKey("p1", "{}"),), audience="cloud")
ASSERTING = AssertionKey("https://cloud.example/assertion", "a1", SecretStr("private-part"))


def test_a_gap_changes_nothing_and_asks_for_a_snapshot() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 4, upstreams=(an_upstream(),)))
    assert not table.apply(Change(6, withdrawn_agents=("a",)))
    assert table.revision == 4
    assert "a" in table.upstreams


def test_a_withdrawn_agent_is_gone() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 0, upstreams=(an_upstream(),)))
    assert table.apply(Change(1, withdrawn_agents=("a",)))
    assert not table.upstreams
    assert not table.agents


def test_a_new_run_replaces_the_old_one_and_has_another_pool() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 0, upstreams=(an_upstream(run=1),)))
    table.apply(Change(1, upstreams=(an_upstream(run=2),)))
    assert table.upstreams["a"].pool_key == ("a", 1, 2)
    assert table.upstreams["a"].pool_key != an_upstream(run=1).pool_key


def test_an_agent_that_became_unreachable_has_no_upstream_and_the_other_way_round() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 0, upstreams=(an_upstream(),)))
    table.apply(Change(1, agents=(KnownAgent("a", "owner", "stopped", "it is stopped"),)))
    assert "a" not in table.upstreams
    assert table.agents["a"].state == "stopped"
    table.apply(Change(2, upstreams=(an_upstream(),)))
    assert "a" not in table.agents


def test_a_revoked_token_is_forgotten_and_the_others_stay() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 0, tokens=(a_token("t1", "aa"), a_token("t2", "bb"))))
    table.apply(Change(1, revoked_tokens=("t1",)))
    assert list(table.tokens) == ["bb"]
    assert list(table.token_ids) == ["t2"]


def test_what_was_made_with_a_token_is_revoked_with_it() -> None:
    table = UpstreamTable()
    session, other = a_token("s1", "cc", parent_id="t1"), a_token("s2", "dd", parent_id="t2")
    table.replace(Snapshot("epoch", 0, tokens=(a_token("t1", "aa"), a_token("t2", "bb"), session)))
    table.apply(Change(1, tokens=(other,)))
    table.apply(Change(2, revoked_tokens=("t1",)))
    assert set(table.tokens) == {"bb", "dd"}
    assert set(table.token_ids) == {"t2", "s2"}


def test_a_token_whose_parent_went_before_is_still_found_by_it() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 0, tokens=(a_token("s1", "cc", parent_id="t1"),)))
    table.apply(Change(1, revoked_tokens=("t1",)))
    assert not table.tokens


def test_what_can_never_be_used_again_is_known() -> None:
    table, now = UpstreamTable(), datetime(2026, 1, 2, tzinfo=UTC)
    past, future = now, now + timedelta(seconds=1)
    tokens = [replace(a_token(name, name), expires_at=end) for name, end in (("p", past), ("f", future), ("n", None))]
    table.replace(Snapshot("epoch", 0, tokens=tuple(tokens)))
    assert table.expired_tokens(now) == ("p",)


def test_an_issuers_new_keys_replace_its_old_ones_and_no_one_elses() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 0, issuers=(OURS, THEIRS), assertion_key=ASSERTING))
    rotated = KnownIssuer(OURS.issuer, (PublicKey("k2", "{}"),))
    table.apply(Change(1, issuers=(rotated,)))
    assert table.issuers == {OURS.issuer: rotated, THEIRS.issuer: THEIRS}
    assert table.assertion_key is ASSERTING


def test_a_snapshot_of_the_table_makes_the_same_table() -> None:
    table = UpstreamTable()
    table.replace(Snapshot("epoch", 3, (an_upstream(),), (KnownAgent("b", "o", "x", "m"),), (a_token("t", "aa"),)))
    table.apply(Change(4, issuers=(OURS,), assertion_key=ASSERTING))
    copy = UpstreamTable()
    copy.replace(table.snapshot())
    assert copy == table


def test_the_agents_token_never_shows() -> None:
    assert "agent-token" not in repr(an_upstream())


def test_the_assertion_key_never_shows() -> None:
    assert "private-part" not in repr(ASSERTING)


def test_live_is_200_or_401_and_nothing_else() -> None:
    assert [status for status in (None, 200, 204, 401, 403, 404, 500, 502) if Probe(status).live] == [200, 401]
