"""The document, its comparison with what is stored, and reading what people wrote."""

from __future__ import annotations

from typing import Any

import pytest

from elizacloud.errors import Invalid
from elizacloud.headscale.policy import default_policy, differences, is_equivalent, parse_policy

OLD, NEW = (0, 28), (0, 29)


@pytest.mark.parametrize("stored", [default_policy(OLD), default_policy(NEW)])
@pytest.mark.parametrize("wanted", [default_policy(OLD), default_policy(NEW)])
def test_both_forms_are_the_same_policy(stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert is_equivalent(stored, wanted)


def test_the_form_is_one_that_the_version_knows() -> None:
    assert "acls" in default_policy(OLD)
    assert "grants" not in default_policy(OLD)
    assert "grants" in default_policy(NEW)


def test_nothing_but_the_relay_reaches_agents_unless_the_operator_is_let_in() -> None:
    closed, opened = default_policy(NEW), default_policy(NEW, operator=True)
    assert closed["grants"] == [{"src": ["tag:relay"], "dst": ["tag:agent"], "ip": ["tcp:2138"]}]
    assert differences(opened, closed) == ("it lets tag:operator reach tag:agent on tcp:2138",)
    assert differences(closed, opened) == ("it does not let tag:operator reach tag:agent on tcp:2138",)


@pytest.mark.parametrize("stored", [None, {}, {"tagOwners": {"tag:relay": []}}])
def test_no_rules_means_everything_is_allowed(stored: dict[str, Any] | None) -> None:
    assert "everything is allowed" in " ".join(differences(stored, default_policy(NEW)))


def test_empty_rules_allow_nothing_and_so_not_the_relay() -> None:
    stored = {**default_policy(NEW), "grants": []}
    assert differences(stored, default_policy(NEW)) == ("it does not let tag:relay reach tag:agent on tcp:2138",)


@pytest.mark.parametrize(
    "rule",
    [
        {"src": ["*"], "dst": ["*"], "ip": ["*"]},
        {"src": ["tag:agent"], "dst": ["tag:agent"], "ip": ["tcp:80"]},
        {"src": ["alice@"], "dst": ["tag:agent"], "ip": ["tcp:22"]},
        {"src": ["tag:agent"], "dst": ["tag:db"], "ip": ["tcp:5432"]},
        {"src": ["alice@"], "dst": ["100.64.0.0/10"], "ip": ["tcp:22"]},
        {"src": ["alice@"], "dst": ["autogroup:tagged"], "ip": ["tcp:22"]},
        {"src": ["alice@"], "dst": ["tag:a-bcdfghjkmnpqrstv"], "ip": ["tcp:22"]},
        {"src": ["group:ops"], "dst": ["tag:db"], "ip": ["tcp:22"]},
        {"src": ["tag:relay"], "dst": ["tag:agent"], "ip": ["tcp:2138", "tcp:22"]},
        {"src": ["tag:relay"], "dst": ["tag:agent"], "app": {"example.com/cap/x": []}},
    ],
)
def test_a_rule_that_may_touch_agents_or_relays_is_named(rule: dict[str, Any]) -> None:
    ours = default_policy(NEW)
    stored = {**ours, "grants": [*ours["grants"], rule]}
    (only,) = differences(stored, ours)
    assert "it lets" in only


def test_rules_among_other_machines_are_none_of_our_business() -> None:
    ours = default_policy(NEW)
    theirs = [
        {"src": ["alice@"], "dst": ["tag:db"], "ip": ["*"]},
        {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},
    ]
    owners = {**ours["tagOwners"], "tag:db": ["alice@"]}
    assert is_equivalent({**ours, "tagOwners": owners, "grants": [*ours["grants"], *theirs]}, ours)


def test_owners_of_our_tags_could_make_themselves_a_relay() -> None:
    ours = default_policy(NEW)
    stored = {**ours, "tagOwners": {**ours["tagOwners"], "tag:relay": ["alice@"]}}
    assert "tag:relay has owners" in differences(stored, ours)[0]
    assert "not in its tagOwners" in differences({**ours, "tagOwners": {}}, ours)[0]


def test_sections_that_open_something_else_are_named() -> None:
    ours = default_policy(NEW)
    assert "'ssh'" in differences({**ours, "ssh": [{"action": "accept"}]}, ours)[0]
    assert is_equivalent({**ours, "ssh": []}, ours)


@pytest.mark.parametrize("value", ["text", 1, None, [1], [None], {"src": 1}, [{"src": "tag:relay"}]])
def test_a_malformed_policy_is_different_and_no_crash(value: object) -> None:
    assert differences({"grants": value, "acls": value, "tagOwners": value}, default_policy(NEW))


def test_people_write_comments_and_trailing_commas() -> None:
    text = """{ // the policy
      "tagOwners": {"tag:a": [],}, /* , ] */
      "hosts": {"url": "https://x//y, ]", "quote": "a\\\\", /* c */ "b": "\\"//"},
      "acls": [1, 2, // last
      ],
    }"""
    assert parse_policy(text) == {
        "tagOwners": {"tag:a": []},
        "hosts": {"url": "https://x//y, ]", "quote": "a\\", "b": '"//'},
        "acls": [1, 2],
    }


@pytest.mark.parametrize("text", ["", "  \n", "// nothing"])
def test_an_empty_policy_is_none(text: str) -> None:
    assert parse_policy(text) is None


@pytest.mark.parametrize("text", ["{", "[]", "{a: 1}", '"text"', "nonsense " * 1000])
def test_what_is_no_policy_says_so(text: str) -> None:
    with pytest.raises(Invalid, match="cannot read the policy"):
        parse_policy(text)
