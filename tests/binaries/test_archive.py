import io
import tarfile
from pathlib import Path

import pytest

from elizacloud.binaries.archive import extract
from elizacloud.binaries.errors import DownloadFailed


def tgz(path: Path, *entries: tarfile.TarInfo, content: bytes = b"program") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_the_named_files_are_taken_from_any_folder(tmp_path: Path) -> None:
    names = ["t_1.2.3/", "t_1.2.3/tailscaled", "t_1.2.3/systemd/tailscaled.service", "t_1.2.3/tailscale"]
    archive = tgz(tmp_path / "a.tgz", *map(tarfile.TarInfo, names))
    into = tmp_path / "into"
    into.mkdir()
    extract(archive, ["tailscaled", "tailscale"], into)
    assert {file.name: file.read_bytes() for file in into.iterdir()} == {
        "tailscaled": b"program",
        "tailscale": b"program",
    }
    assert (into / "tailscaled").stat().st_mode & 0o777 == 0o755


def test_the_archive_cannot_choose_a_path(tmp_path: Path) -> None:
    into = tmp_path / "deep" / "into"
    into.mkdir(parents=True)
    extract(tgz(tmp_path / "a.tgz", tarfile.TarInfo("../../tailscaled")), ["tailscaled"], into)
    assert [path.name for path in into.iterdir()] == ["tailscaled"]
    assert not (tmp_path / "tailscaled").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_regular_files_count(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("x/tailscaled")
    entry.type, entry.linkname = kind, "/etc/passwd"
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DownloadFailed, match="it has no tailscaled"):
        extract(tgz(tmp_path / "a.tgz", entry), ["tailscaled"], into)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    archive = tgz(tmp_path / "a.tgz", tarfile.TarInfo("tailscaled"), content=bytes(range(256)) * 100)
    whole = archive.read_bytes()
    archive.write_bytes({"empty": b"", "garbage": b"\0" * 999, "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(DownloadFailed, match=f"cannot unpack {archive}"):
        extract(archive, ["tailscaled"], tmp_path)
