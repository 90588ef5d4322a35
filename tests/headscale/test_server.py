"""What a server directory holds, which ports it keeps, and how a start ends well or badly."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from elizacloud.errors import HeadscaleUnavailable, Misconfigured
from elizacloud.headscale.protocol import Version
from elizacloud.headscale.remembered import Binary, Kind, load
from elizacloud.headscale.server import SupervisedServer
from tests.headscale.support import devcontrol, program, running, supervised

HEADSCALE = Binary(Kind.HEADSCALE, Path("/opt/headscale"), "v0.28.0")


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


def test_directories_and_files_are_private(home: Path) -> None:
    os.umask(os.umask(0))
    server = supervised(home, HEADSCALE)
    server.prepare()
    for directory in (server.directory, server.socket.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
    for file in server.directory.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    assert {file.name for file in server.directory.iterdir()} == {"config.yaml", "db.sqlite", "server.json"}


def test_ports_are_chosen_once_and_kept(home: Path) -> None:
    first, second = supervised(home, HEADSCALE), supervised(home, HEADSCALE)
    first.prepare()
    second.prepare()
    assert (first.url, first.join_url, first.metrics_url) == (second.url, second.join_url, second.metrics_url)
    assert len({port_of(first.url), port_of(first.metrics_url or "")}) == 2
    assert first.url.startswith("http://127.0.0.1:")


def test_a_port_that_agents_keep_and_another_program_has_is_refused(home: Path) -> None:
    server = supervised(home, HEADSCALE)
    server.prepare()
    with socket.create_server(("127.0.0.1", port_of(server.url))), pytest.raises(Misconfigured) as refused:
        server.prepare()
    assert refused.value.reason == "port_in_use"
    assert f"127.0.0.1:{port_of(server.url)}" in str(refused.value)


def test_a_port_that_nobody_keeps_moves(home: Path) -> None:
    server = supervised(home, HEADSCALE)
    server.prepare()
    before = server.metrics_url
    with socket.create_server(("127.0.0.1", port_of(before or ""))):
        server.prepare()
    assert server.metrics_url != before


def test_a_join_url_of_its_own_is_what_agents_get(home: Path) -> None:
    server = SupervisedServer(
        home / "server", HEADSCALE, run_dir=home / "run", join_url="https://headscale.example.com"
    )
    server.prepare()
    assert server.join_url == "https://headscale.example.com"
    assert server.url.startswith("http://127.0.0.1:")
    assert "server_url: https://headscale.example.com" in (server.directory / "config.yaml").read_text()


def test_one_that_listens_everywhere_is_called_on_loopback(home: Path) -> None:
    server = SupervisedServer(home / "server", HEADSCALE, run_dir=home / "run", listen_host="0.0.0.0")
    server.prepare()
    assert server.url.startswith("http://127.0.0.1:")


def test_the_version_found_is_remembered_and_checked_before_the_next_start(home: Path) -> None:
    server = supervised(home, HEADSCALE)
    server.prepare()
    server.remember(Version("v0.28.0", (0, 28)))
    remembered = load(server.directory)
    assert remembered is not None
    assert remembered.level == (0, 28)
    supervised(home, replace(HEADSCALE, version="v0.29.2")).prepare()
    for refused in ("v0.27.1", "v0.30.0"):
        with pytest.raises(Misconfigured, match="cannot run Headscale"):
            supervised(home, replace(HEADSCALE, version=refused)).prepare()
    with pytest.raises(Misconfigured, match="cannot run devcontrol"):
        supervised(home, replace(HEADSCALE, kind=Kind.DEVCONTROL)).prepare()


def test_a_socket_path_that_is_too_long_is_refused(home: Path) -> None:
    with pytest.raises(Misconfigured, match="too long"):
        SupervisedServer(home, HEADSCALE, run_dir=home / ("x" * 100)).prepare()


def test_a_directory_that_cannot_be_made_is_one_sentence(home: Path) -> None:
    (home / "server").write_text("a file")
    with pytest.raises(Misconfigured, match="cannot prepare headscale in"):
        supervised(home, HEADSCALE).prepare()


def test_before_prepare_nothing_is_known(home: Path) -> None:
    with pytest.raises(Misconfigured, match="prepare"):
        _ = supervised(home, HEADSCALE).url


def test_no_variable_of_ours_reaches_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSCALE_LISTEN_ADDR", "0.0.0.0:80")
    for binary in (HEADSCALE, devcontrol()):
        server = supervised(home / binary.kind, binary)
        server.prepare()
        for command in (server.serve_command(), server.create_key_command()):
            assert set(command.env) == {"PATH", "HOME"}


async def test_it_gets_healthy_and_comes_back_on_the_same_port_after_a_kill(home: Path) -> None:
    server = supervised(home, devcontrol())
    async with running(server) as child:
        child.kill()
        await child.wait()
    url = server.url
    again = supervised(home, devcontrol())
    async with running(again):
        assert again.url == url


async def test_one_that_exits_is_not_waited_for(home: Path) -> None:
    server = supervised(home, program(home / "headscale", "echo 'FATAL: no'; exit 3"))
    with pytest.raises(HeadscaleUnavailable, match="cannot start headscale: exit status 3; it said: FATAL: no"):
        async with running(server):
            pass


async def test_one_that_never_answers_is_given_up(home: Path) -> None:
    server = supervised(home, program(home / "headscale", "exec sleep 60"))
    server.prepare()
    async with await server.spawn(lambda line: None) as child:
        with pytest.raises(HeadscaleUnavailable, match="not healthy after"):
            await server.wait_healthy(child, within_seconds=0.05)
