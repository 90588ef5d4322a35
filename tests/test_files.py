"""A private file is there as a whole or not at all."""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from elizacloud.files import create_private, replace_private


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


def test_a_file_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_private(path, "one")
    create_private(path, "two")
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_made_also_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    path = tmp_path / "key"
    create_private(path, "one")
    create_private(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_all_who_make_a_file_at_the_same_time_find_the_same(tmp_path: Path) -> None:
    path, together = tmp_path / "key", Barrier(8)

    def make(number: int) -> str:
        together.wait(timeout=20)
        create_private(path, f"of {number}")
        return path.read_text()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(8)))) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_made_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "key"
    with pytest.raises(FileNotFoundError):
        create_private(path, "one")
    assert list(tmp_path.iterdir()) == []
