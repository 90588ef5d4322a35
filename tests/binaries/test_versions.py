import os
from pathlib import Path

import pytest

from elizacloud.binaries.errors import BinaryUnsupported
from elizacloud.binaries.versions import SUPPORTED, Kind, Version, ask, parse_answer
from tests.binaries.conftest import program, script

ENVIRON = {"PATH": os.environ["PATH"]}


@pytest.mark.parametrize(
    ("kind", "answer", "version"),
    [
        (Kind.TAILSCALED, "1.102.3\n  tailscale commit: 0123\n  go version: go1.26.8", Version(1, 102, 3)),
        (Kind.TAILSCALED, "1.103.17-t0123456-gabcdef", Version(1, 103, 17)),
        (Kind.HEADSCALE, "headscale version v0.29.2\ncommit: unknown\nbuilt with: go1.26.8", Version(0, 29, 2)),
        (Kind.HEADSCALE, "v0.25.1", Version(0, 25, 1)),
        (Kind.HEADSCALE, "headscale version v0.30.0-beta.1", Version(0, 30, 0)),
        (Kind.HEADSCALE, "headscale version dev\ncommit: unknown", None),
        (Kind.HEADSCALE, "An updated version of Headscale has been found (0.30.0)\n\nv0.29.2", Version(0, 29, 2)),
        (Kind.DEVCONTROL, "devcontrol v0.29.2+devcontrol.1", Version(0, 29, 2)),
    ],
)
def test_answers_are_understood(kind: Kind, answer: str, version: Version | None) -> None:
    assert parse_answer(kind, answer.splitlines()) == version


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (Kind.TAILSCALED, ""),
        (Kind.TAILSCALED, "usage: something else entirely"),
        (Kind.HEADSCALE, "devcontrol v0.29.2+devcontrol.1"),
        (Kind.DEVCONTROL, "headscale version v0.29.2"),
    ],
)
def test_another_program_is_refused(kind: Kind, answer: str) -> None:
    with pytest.raises(ValueError, match=f"it is not a {kind}"):
        parse_answer(kind, answer.splitlines())


def test_the_supported_versions() -> None:
    headscale = SUPPORTED[Kind.HEADSCALE]
    versions = [Version(0, 26, 9), Version(0, 27), Version(0, 30, 99), Version(0, 31)]
    assert [version in headscale for version in versions] == [False, True, True, False]
    assert str(headscale) == "0.27 or newer, below 0.31"
    tailscaled = SUPPORTED[Kind.TAILSCALED]
    assert [version in tailscaled for version in (Version(1, 79, 9), Version(1, 80), Version(2, 0))] == [
        False,
        True,
        True,
    ]
    assert str(tailscaled) == "1.80 or newer"


async def test_a_program_is_asked(tmp_path: Path) -> None:
    asked = script(tmp_path / "tailscaled", 'test "$*" = --version && echo 1.102.3')
    assert await ask(Kind.TAILSCALED, asked, ENVIRON) == Version(1, 102, 3)


async def test_an_unsupported_version_is_one_clear_sentence(tmp_path: Path) -> None:
    old = program(tmp_path / "headscale", "v0.23.0")
    with pytest.raises(BinaryUnsupported) as error:
        await ask(Kind.HEADSCALE, old, ENVIRON)
    assert str(error.value) == f"cannot use {old}: it is headscale 0.23.0; use 0.27 or newer, below 0.31"


async def test_what_does_not_run_is_refused(tmp_path: Path) -> None:
    failing = script(tmp_path / "failing", "echo 1.102.3; exit 2")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x7fELF\x00\x01")
    garbage.chmod(0o755)
    for path in (failing, garbage, tmp_path / "absent", tmp_path):
        with pytest.raises(BinaryUnsupported, match=f"cannot use {path} as tailscaled: "):
            await ask(Kind.TAILSCALED, path, ENVIRON)


async def test_a_program_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elizacloud.binaries.versions.ASK_SECONDS", 0.1)
    with pytest.raises(BinaryUnsupported, match="took longer than"):
        await ask(Kind.TAILSCALED, script(tmp_path / "tailscaled", "exec tail -f /dev/null"), ENVIRON)
