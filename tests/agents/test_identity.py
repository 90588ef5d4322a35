"""Who has joined: the key's id and the agent's tag, both; never a name or an address."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from elizacloud.agents.identity import by_hand, drift, has_joined, is_expired
from elizacloud.headscale.protocol import Node
from elizacloud.model import Generation, agent_hostname
from tests.agents.reconcile.test_diff import NOW, A, node, tags

GENERATION = Generation(A, 1, preauth_key_id="k1", node_id="n1", machine_key="mk", ipv4="100.64.0.1")


@pytest.mark.parametrize(
    ("found", "joined"),
    [
        (node(), True),
        (node(name="anything", given_name="else"), True),
        (node(preauth_key_id="k2"), False),
        (node(preauth_key_id=None), False),
        (node(tags=tags("cccccccccccccccc")), False),
        (node(tags=("tag:agent",)), False),
        (node(ipv4=None), False),
    ],
)
def test_key_and_tag_make_a_join(found: Node, joined: bool) -> None:
    assert has_joined(found, GENERATION) is joined


def test_without_a_key_nobody_has_joined() -> None:
    assert not has_joined(node(preauth_key_id=None), replace(GENERATION, preauth_key_id=None))


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (node(), ""),
        (node(node_key="new", name="new", ipv4="100.64.9.9", online=False), ""),
        (node("n2"), "n2"),
        (node(tags=()), "tag"),
        (node(preauth_key_id="k2"), "another key"),
        (node(machine_key="other"), "another machine"),
    ],
)
def test_what_counts_as_drift(found: Node, word: str) -> None:
    told = drift(found, GENERATION)
    assert word in told
    assert bool(told) is bool(word)


def test_a_node_is_expired_from_that_moment_on_and_without_one_never() -> None:
    assert not is_expired(node(), NOW)
    assert is_expired(node(expires_at=NOW), NOW)
    assert not is_expired(node(expires_at=NOW), NOW - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (node(), ""),
        (node(given_name=f"{agent_hostname(A)}-1"), ""),
        (node(user="elizacloud"), ""),
        (node(name="milaidy-else", given_name="milaidy-else"), "it calls itself 'milaidy-else'"),
        (node(given_name="else"), "it was renamed to 'else'"),
        (node(given_name=f"{agent_hostname(A)}x"), f"it was renamed to '{agent_hostname(A)}x'"),
        (node(user="somebody"), "it was moved to the user 'somebody'"),
    ],
)
def test_what_was_done_by_hand(found: Node, told: str) -> None:
    assert by_hand(found, A) == told
