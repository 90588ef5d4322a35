"""seen.json: kept whole, forgotten only on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from elizacloud.agents.reconcile.past import Past
from elizacloud.app.past import JsonPast
from elizacloud.errors import Misconfigured
from elizacloud.store import Marks


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    file = JsonPast(tmp_path / "seen.json")
    assert file.read() == Past()
    past = Past(Marks(3, 4_000, 5.25), "mkey:a", ("mkey:b",), "the database is older")
    file.write(past)
    assert file.read() == past
    assert (tmp_path / "seen.json").stat().st_mode & 0o077 == 0


def test_one_of_before_the_database_held_what_was_accepted_is_read(tmp_path: Path) -> None:
    (tmp_path / "seen.json").write_text(
        '{"marks": {"epoch": 3, "last_event": 4}, "headscale_key": "mkey:a", "relays": ["mkey:b"], "suspicion": ""}'
    )
    assert JsonPast(tmp_path / "seen.json").read() == Past(Marks(3, 4), "mkey:a", ("mkey:b",))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"marks": 1}', '{"marks": {"epoch": "x", "last_event": 1}}'])
def test_a_damaged_one_is_told_and_not_forgotten(tmp_path: Path, content: str) -> None:
    (tmp_path / "seen.json").write_text(content)
    with pytest.raises(Misconfigured, match="damaged"):
        JsonPast(tmp_path / "seen.json").read()
