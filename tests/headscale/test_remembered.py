"""Which binary may run on what another one has made, and a record that is damaged or newer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured
from elizacloud.headscale.remembered import (
    FILE_NAME,
    Binary,
    Kind,
    Remembered,
    check_change,
    load,
    save,
    write_private,
)

MADE = Remembered(Kind.HEADSCALE, "v0.28.0", (0, 28), 1, 2, 3)


def headscale(version: str) -> Binary:
    return Binary(Kind.HEADSCALE, Path("/bin/headscale"), version)


@pytest.mark.parametrize("version", ["v0.28.0", "v0.28.9", "v0.29.2", "dev"])
def test_the_same_minor_and_the_next_one_may_run(version: str) -> None:
    check_change(MADE, headscale(version))


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("v0.27.1", "no way back; use Headscale 0.28 or newer"),
        ("v0.30.0", "one minor version at a time; run 0.29 once before"),
        ("v0.26.1", "supported are 0.27 to 0.30"),
        ("v1.0.0", "supported are 0.27 to 0.30"),
    ],
)
def test_any_other_version_is_refused_with_the_way_out(version: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        check_change(MADE, headscale(version))


def test_another_kind_is_refused_both_ways() -> None:
    devcontrol = Binary(Kind.DEVCONTROL, Path("/bin/devcontrol"), "v0.29.2+devcontrol.1")
    with pytest.raises(Misconfigured, match="made with headscale: its nodes would be lost"):
        check_change(MADE, devcontrol)
    made = Remembered(Kind.DEVCONTROL, devcontrol.version, (0, 29), 1, 2, 3)
    with pytest.raises(Misconfigured, match="made with devcontrol"):
        check_change(made, headscale("v0.29.2"))
    check_change(made, devcontrol)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    save(tmp_path, MADE)
    assert load(tmp_path) == MADE
    unprobed = Remembered(Kind.DEVCONTROL, "dev", None, 1, 2, 3)
    save(tmp_path, unprobed)
    assert load(tmp_path) == unprobed


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"format": 1, "kind": "other"}', '{"format": "x"}', "\x00\xff"]
)
def test_a_damaged_record_is_never_taken_for_a_first_start(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(Misconfigured, match=FILE_NAME):
        load(tmp_path)


def test_a_record_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    save(tmp_path, MADE)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps({**content, "format": 2, "kind": "another"}))
    with pytest.raises(Misconfigured, match="newer elizacloud"):
        load(tmp_path)


def test_a_private_file_is_private_from_its_first_byte_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, "one")
    path.chmod(0o644)
    (tmp_path / ".key.new").write_text("left by a crash")
    write_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
