"""The command line, the environment and the files of a tailscaled."""

import errno
import os
import socket
from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured
from elizacloud.tailnet import Tailscaled
from elizacloud.tailnet.tailscaled import STATE_FILE, UDP_PORT_FILE, udp_port_of


def made(directory: Path, *, join_url: str = "http://127.0.0.1:8080", memory_limit: str = "") -> Tailscaled:
    return Tailscaled(
        Path("/bin/tailscaled"), directory / "state", directory / "run" / "t.sock", join_url, 41641, memory_limit
    )


def test_it_is_userspace_with_a_fixed_port_and_without_proxies(tmp_path: Path) -> None:
    argv = made(tmp_path).argv()

    assert "--tun=userspace-networking" in argv
    assert "--port=41641" in argv
    assert "--no-logs-no-support" in argv
    assert not [argument for argument in argv if "socks5" in argument or "http-proxy" in argument]


def test_its_environment_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELIZACLOUD_OPERATOR_TOKEN", "secret")
    monkeypatch.setenv("TS_AUTHKEY", "secret")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)

    assert set(made(tmp_path).environment()) == {"PATH", "HOME", "TS_NO_LOGS_NO_SUPPORT", "TS_DEBUG_USE_DERP_HTTP"}
    assert "TS_DEBUG_USE_DERP_HTTP" not in made(tmp_path, join_url="https://h.example").environment()
    assert made(tmp_path, memory_limit="64MiB").environment()["GOMEMLIMIT"] == "64MiB"


def test_it_trusts_the_authorities_that_this_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/own-ca.pem")

    assert made(tmp_path).environment()["SSL_CERT_FILE"] == "/etc/own-ca.pem"


def test_its_directories_are_private_and_an_old_socket_is_gone(tmp_path: Path) -> None:
    tailscaled = made(tmp_path)
    tailscaled.socket.parent.mkdir(mode=0o755)
    tailscaled.socket.touch()

    tailscaled.prepare()
    tailscaled.prepare()

    assert not tailscaled.socket.exists()
    for directory in (tailscaled.state_dir, tailscaled.socket.parent):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_socket_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="107 bytes"):
        made(tmp_path / ("x" * 120)).prepare()


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").touch()

    with pytest.raises(Misconfigured, match="cannot prepare"):
        made(tmp_path).prepare()


def test_the_state_begins_empty_and_is_kept(tmp_path: Path) -> None:
    tailscaled = made(tmp_path)
    state = tailscaled.state_dir / STATE_FILE

    tailscaled.prepare()
    assert state.read_text() == "{}"
    assert state.stat().st_mode & 0o777 == 0o600

    state.write_text('{"_machinekey": "x"}')
    tailscaled.prepare()
    assert state.read_text() == '{"_machinekey": "x"}'


def test_a_disk_without_room_for_the_state_is_said(tmp_path: Path) -> None:
    tailscaled = made(tmp_path)
    tailscaled.state_dir.mkdir()
    (tailscaled.state_dir / STATE_FILE).symlink_to("/dev/full")

    with pytest.raises(Misconfigured, match="No space left"):
        tailscaled.prepare()


def test_the_udp_port_is_chosen_once_and_kept(tmp_path: Path) -> None:
    port = udp_port_of(tmp_path)

    assert [udp_port_of(tmp_path) for _ in range(3)] == [port] * 3
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", port))
    assert (tmp_path / UDP_PORT_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damaged", ["", "x", "0", "70000", "-1"])
def test_a_damaged_port_file_is_replaced(tmp_path: Path, damaged: str) -> None:
    (tmp_path / UDP_PORT_FILE).write_text(damaged)

    assert 0 < udp_port_of(tmp_path) < 65536
    assert udp_port_of(tmp_path) == udp_port_of(tmp_path)


def test_a_machine_without_ipv6_has_a_udp_port_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIpv6(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, kind)

    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    assert 0 < udp_port_of(tmp_path) < 65536


def test_a_port_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / UDP_PORT_FILE).mkdir()

    with pytest.raises(Misconfigured, match="udp-port: Is a directory"):
        udp_port_of(tmp_path)
    with pytest.raises(Misconfigured, match="No such file"):
        udp_port_of(tmp_path / "nowhere")
