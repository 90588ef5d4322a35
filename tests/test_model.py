"""Ids, names and labels of agents."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elizacloud.errors import Invalid
from elizacloud.model import agent_hostname, agent_tag, checked_agent_name, installation_tag, is_agent_id, new_agent_id


def test_new_ids_are_valid_everywhere_and_differ() -> None:
    ids = {new_agent_id() for _ in range(2000)}
    assert len(ids) == 2000
    for agent_id in ids:
        assert is_agent_id(agent_id)
        assert len(agent_hostname(agent_id)) <= 63
        # tailcfg.CheckTag of tailscale v1.102.3: a letter first, then letters, digits and dashes.
        assert re.fullmatch(r"tag:[a-zA-Z][a-zA-Z0-9-]*", agent_tag(agent_id))
        assert re.fullmatch(r"tag:[a-zA-Z][a-zA-Z0-9-]*", installation_tag(agent_id))


@pytest.mark.parametrize("text", ["", "a", "A" * 16, "1" * 16, "../../../etc/pass", "bcdfghjkmnpqrst\n", "b" * 17])
def test_what_is_no_id(text: str) -> None:
    assert not is_agent_id(text)


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "x" * 300, "a\x00b", "a\nb", "a\u202eb", "\u200b"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="cannot use an"):
        checked_agent_name(name)


@pytest.mark.parametrize(
    ("name", "kept"), [(" milady ", "milady"), ("Ünïcödé 🤖", "Ünïcödé 🤖"), ("x" * 100, "x" * 100)]
)
def test_names_that_are_taken(name: str, kept: str) -> None:
    assert checked_agent_name(name) == kept


@given(st.text())
def test_a_name_is_kept_or_refused_never_changed_inside(name: str) -> None:
    with contextlib.suppress(Invalid):
        assert checked_agent_name(name) == name.strip()
