import os
import stat
import time
from pathlib import Path

import pytest

from elizacloud.cipher import Cipher, new_secret_key
from elizacloud.relay.link.snapshot import SnapshotFile
from elizacloud.upstreams import Snapshot
from tests.relay.link.conftest import CIPHER
from tests.relay.link.test_messages import AGENT, TOKEN, UPSTREAM

SNAPSHOT = Snapshot("e1", 3, (UPSTREAM,), (AGENT,), (TOKEN,))


def test_what_was_saved_is_loaded_with_its_time(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "table", CIPHER)
    file.save(SNAPSHOT, 1_700_000_000.0)
    assert file.load() == (SNAPSHOT, 1_700_000_000.0)
    file.heard(1_700_000_100.0)
    assert file.load() == (SNAPSHOT, 1_700_000_100.0)


def test_only_our_own_user_can_read_it(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        SnapshotFile(tmp_path / "table", CIPHER).save(SNAPSHOT, 0.0)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "table").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_without_a_file_there_is_nothing_to_load(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "table", CIPHER)
    file.heard(1.0)
    assert file.load() is None


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"epoch":1}'])
def test_a_broken_file_is_not_used(tmp_path: Path, content: bytes, *, sealed: bool) -> None:
    (tmp_path / "table").write_bytes(CIPHER.seal(content, bound_to="the relay's last table") if sealed else content)
    assert SnapshotFile(tmp_path / "table", CIPHER).load() is None


def test_a_time_in_the_future_does_not_lengthen_the_grace(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "table", CIPHER)
    file.save(SNAPSHOT, time.time() + 86_400)
    loaded = file.load()
    assert loaded is not None
    assert loaded[1] <= time.time()


def test_agents_tokens_cannot_be_read_in_it(tmp_path: Path) -> None:
    SnapshotFile(tmp_path / "table", CIPHER).save(SNAPSHOT, 0.0)
    assert UPSTREAM.agent_token.get_secret_value().encode() not in (tmp_path / "table").read_bytes()


def test_a_file_that_was_sealed_with_another_key_is_not_used(tmp_path: Path) -> None:
    SnapshotFile(tmp_path / "table", Cipher(new_secret_key())).save(SNAPSHOT, 0.0)
    assert SnapshotFile(tmp_path / "table", CIPHER).load() is None
