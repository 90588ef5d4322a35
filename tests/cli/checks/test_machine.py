"""What this machine may lack."""

import socket
from pathlib import Path

import pytest

from elizacloud.binaries.versions import Kind
from elizacloud.cli.checks.facts import Running
from elizacloud.cli.checks.machine import (
    data_dir_finding,
    filesystem_of,
    look_for,
    port_finding,
    running_server_finding,
)
from elizacloud.headscale.preflight import Verdict
from elizacloud.settings import Settings

MB = 1_000_000


def test_a_data_dir_that_can_be_used(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir(mode=0o700)
    assert data_dir_finding(made, free_bytes=10_000 * MB, filesystem="ext4").verdict is Verdict.OK
    finding = data_dir_finding(tmp_path / "a" / "b", free_bytes=10_000 * MB, filesystem="ext4")
    assert "will be made" in finding.cause


@pytest.mark.parametrize(
    ("free_bytes", "filesystem", "verdict", "says"),
    [
        (10 * MB, "ext4", Verdict.FAIL, "only 10 MB are free"),
        (200 * MB, "ext4", Verdict.WARN, "only 200 MB are free"),
        (10_000 * MB, "nfs4", Verdict.FAIL, "network file system (nfs4)"),
    ],
)
def test_a_data_dir_that_cannot(tmp_path: Path, free_bytes: int, filesystem: str, verdict: Verdict, says: str) -> None:
    finding = data_dir_finding(tmp_path, free_bytes=free_bytes, filesystem=filesystem)
    assert finding.verdict is verdict
    assert says in finding.cause
    assert finding.fix


def test_a_data_dir_open_to_others_or_not_a_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    finding = data_dir_finding(tmp_path, free_bytes=10_000 * MB, filesystem="ext4")
    assert (finding.verdict, finding.fix) == (Verdict.WARN, f"chmod 700 {tmp_path}")
    (tmp_path / "file").touch()
    assert data_dir_finding(tmp_path / "file" / "dir").verdict is Verdict.FAIL


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    mounts = "/dev/a / ext4 rw 0 0\nserver:/x /home nfs4 rw 0 0\ntmpfs /home/my\\040dir tmpfs rw 0 0\n"
    assert filesystem_of(Path("/var/lib"), mounts) == "ext4"
    assert filesystem_of(Path("/home/ada"), mounts) == "nfs4"
    assert filesystem_of(Path("/home/my dir/x"), mounts) == "tmpfs"
    assert filesystem_of(Path("/homes"), mounts) == "ext4"


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finding = port_finding("127.0.0.1", port, None)
        assert finding.verdict is Verdict.FAIL
        assert str(port) in finding.fix
        assert port_finding("127.0.0.1", port, "http://127.0.0.1:1").verdict is Verdict.OK
    assert port_finding("127.0.0.1", port, None).verdict is Verdict.OK
    assert port_finding("192.0.2.1", 80, None).verdict is Verdict.FAIL


async def test_a_binary_is_looked_for_and_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    settings = Settings(cache_dir=tmp_path / "cache", tailscaled_bin=None)
    missing = await look_for(Kind.TAILSCALED, settings)
    assert missing.verdict is Verdict.WARN
    assert "ELIZACLOUD_TAILSCALED_BIN" in missing.fix

    write_binary(tmp_path / "cache" / "tailscaled-1" / "tailscaled", "1.102.3")
    assert "1.102.3 at" in (await look_for(Kind.TAILSCALED, settings)).cause

    write_binary(tmp_path / "old", "1.2.3")
    old = await look_for(Kind.TAILSCALED, settings.model_copy(update={"tailscaled_bin": tmp_path / "old"}))
    assert old.verdict is Verdict.FAIL
    assert "1.2.3" in old.cause


def write_binary(path: Path, version: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("kind", "verdict"), [("headscale", Verdict.OK), ("devcontrol", Verdict.WARN)])
def test_devcontrol_is_never_taken_for_headscale(kind: str, verdict: Verdict) -> None:
    finding = running_server_finding(Running("http://127.0.0.1:1", 1, "http://127.0.0.1:2", kind, "0.29.2"))
    assert finding.verdict is verdict
    assert f"{kind} 0.29.2" in finding.cause
