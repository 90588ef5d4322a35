"""A private file is there as a whole or not at all."""

from pathlib import Path

import pytest

from elizacloud.files import replace_private


def test_a_file_is_replaced_for_our_own_user_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    path.chmod(0o644)
    replace_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_private(path, "two")
    assert list(tmp_path.iterdir()) == [path]
