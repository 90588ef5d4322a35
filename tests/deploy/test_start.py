"""`deploy/start`: what it makes, what it leaves alone, in which order it calls Docker."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.deploy.compose import DEPLOY, EXAMPLE, load
from tests.deploy.programs import program

FAKE_DOCKER = """#!/bin/sh
echo "$*" >>"$CALLS"
case $* in *apikeys*) [ -n "$KEY" ] && echo "$KEY";; esac
"""


class Place:
    """A copy of deploy/ and a docker that only takes notes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "deploy"
        self.directory.mkdir()
        for name in ("start", ".env.example", "compose.yaml"):
            shutil.copy(DEPLOY / name, self.directory)
        (directory / "bin").mkdir()
        (directory / "bin" / "docker").write_text(FAKE_DOCKER)
        (directory / "bin" / "docker").chmod(0o755)
        (directory / "socket").touch()
        self._path = f"{directory / 'bin'}:{os.environ['PATH']}"
        self._calls = directory / "calls"

    def configure(self) -> None:
        lines = [f"{name}={value}" for name, value in EXAMPLE.items() if name != "DOCKER_GROUP"]
        (self.directory / ".env").write_text("\n".join([*lines, f"DOCKER_SOCKET={self._calls.parent / 'socket'}", ""]))

    def start(self, *, key: str = "hskey-api-made") -> subprocess.CompletedProcess[str]:
        self._calls.write_text("")
        environment = {"PATH": self._path, "CALLS": str(self._calls), "KEY": key}
        return subprocess.run(
            [self.directory / "start"], env=environment, cwd="/", capture_output=True, text=True, check=False
        )

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()

    def secret(self, name: str) -> str:
        return (self.directory / "secrets" / name).read_text().strip()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_begins_with_a_file_to_fill_in(place: Place) -> None:
    ended = place.start()

    assert ended.returncode == 1
    assert "set the names in it" in ended.stderr
    assert (place.directory / ".env").read_text() == (DEPLOY / ".env.example").read_text()
    assert place.calls == []


def test_one_command_makes_every_secret_and_brings_it_up(place: Place) -> None:
    place.configure()

    ended = place.start()

    assert ended.returncode == 0, ended.stderr
    assert place.calls == [
        "compose build",
        "compose up --detach --wait headscale",
        "compose exec -T headscale headscale apikeys create --expiration 8760h",
        "compose up --detach --wait control-plane",
        "compose up --detach --wait",
    ]
    made = {path.name for path in (place.directory / "secrets").iterdir()}
    assert made == set(load(EXAMPLE).document["secrets"])
    password = place.secret("postgresql_password")
    assert place.secret("database_url") == f"postgresql://elizacloud:{password}@postgresql/elizacloud"
    assert len(base64.b64decode(place.secret("secret_key"))) == 32
    assert len(password) == 64
    assert place.secret("headscale_api_key") == "hskey-api-made"
    for name in made:
        assert place.secret(name) not in ended.stdout + ended.stderr + "".join(place.calls)


def test_only_the_directory_keeps_others_from_the_secrets(place: Place) -> None:
    """Each container reads its own by a user of its own."""
    place.configure()
    place.start()

    directory = place.directory / "secrets"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o444}


def test_the_second_time_changes_nothing(place: Place) -> None:
    place.configure()
    place.start()
    before = {path.name: path.read_text() for path in (place.directory / "secrets").iterdir()}
    settings = (place.directory / ".env").read_text()

    place.start(key="hskey-api-other")

    assert {path.name: path.read_text() for path in (place.directory / "secrets").iterdir()} == before
    assert (place.directory / ".env").read_text() == settings
    assert place.calls == ["compose build", "compose up --detach --wait control-plane", "compose up --detach --wait"]


def test_a_key_that_could_not_be_made_is_asked_for_again(place: Place) -> None:
    place.configure()

    failed = place.start(key="")

    assert failed.returncode != 0
    assert "cannot make secrets/headscale_api_key" in failed.stderr
    assert not (place.directory / "secrets" / "headscale_api_key").exists()
    assert place.start().returncode == 0


def test_it_finds_the_sockets_group(place: Place) -> None:
    place.configure()
    place.start()

    group = (place.directory.parent / "socket").stat().st_gid
    assert f"DOCKER_GROUP={group}\n" in (place.directory / ".env").read_text()


def test_shellcheck_likes_it() -> None:
    checked = subprocess.run(
        [program("shellcheck", wanted="install shellcheck"), DEPLOY / "start"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
