"""The state volume: names that are safe paths, private files, records without secrets."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.errors import Misconfigured, RuntimeRefused
from elizacloud.model import AgentSpec
from elizacloud.runtime.process.volume import Record, Volume, name_in, name_of, record_of, ref_of
from tests.contract.runtimes import labels, spec


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    made = Volume(tmp_path / "agents" / "a" / "1", tmp_path / "run" / "a-1")
    made.make()
    return made


def modes(directory: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in directory.rglob("*") if path.is_file()}


def test_a_ref_names_its_volume() -> None:
    assert name_of(labels(generation=2)) == f"{labels().agent_id}/2"
    assert name_in(ref_of(labels(generation=2, run=7))) == name_of(labels(generation=2))


@pytest.mark.parametrize(
    "ref", ["", "x", "../../etc.1.1", "bcdfghjkm2345678.1", "bcdfghjkm2345678.0.1", "bcdfghjkm2345678.1.1\n", "a/b.1.1"]
)
def test_what_is_no_ref_names_nothing(ref: str) -> None:
    assert name_in(ref) is None


@pytest.mark.parametrize(
    "bad",
    [
        labels(agent_id="../../../etc/foo"),
        labels(agent_id=""),
        labels(agent_id="UPPERCASE1234567"),
        labels(generation=0),
        labels(generation=10**9),
        labels(run=-1),
    ],
)
def test_labels_that_are_no_safe_path_are_refused(bad: object) -> None:
    with pytest.raises(RuntimeRefused):
        name_of(bad)  # type: ignore[arg-type]


DELETE = """
import os, sys
from pathlib import Path
from elizacloud.runtime.process.volume import Volume
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
volume = Volume(Path(sys.argv[1]), Path(sys.argv[2]))
deep = volume.places.state / "pkg" / "mod"
deep.mkdir(parents=True)
(deep / "file").touch()
(deep / "away").symlink_to("/")
for directory in (deep, deep.parent):
    directory.chmod(0o555)
volume.delete()
"""


def test_it_goes_also_with_directories_that_nobody_may_write_in(tmp_path: Path) -> None:
    """Not as root, who may write everywhere."""
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        Path(directory).chmod(0o777)
        path = Path(directory) / "agents" / "a" / "1"
        subprocess.run([sys.executable, "-c", DELETE, path, Path(directory) / "run"], check=True, cwd="/")
        assert not path.exists()


def test_everything_in_it_is_private(volume: Volume) -> None:
    volume.save(record_of(spec()))
    volume.write(volume.places.join_token, b"token")

    assert modes(volume.path) == {0o600}
    for directory in (volume.path.parent, volume.path, volume.tailscale, volume.places.state, volume.sockets):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_record_has_no_secrets_and_knows_that_they_are_missing(volume: Volume) -> None:
    agent = AgentSpec(
        secrets={"KEY": SecretStr("hunter2")}, config={"token": "hunter2"}, environment={"A": "1"}, command=("x",)
    )
    record = record_of(replace(spec(), agent=agent))
    assert not record.secrets_lost

    volume.save(record)

    loaded = volume.load()
    assert loaded is not None
    assert loaded.secrets_lost
    assert loaded.spec.labels == spec().labels
    assert (loaded.spec.agent.command, loaded.spec.agent.environment) == (("x",), {"A": "1"})
    assert not [path for path in volume.path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_without_secrets_nothing_is_missing(volume: Volume) -> None:
    volume.save(record_of(spec()))

    loaded = volume.load()
    assert loaded == Record(spec())
    assert not loaded.secrets_lost


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"spec": 1}'])
def test_a_damaged_record_is_said(volume: Volume, content: str) -> None:
    (volume.path / "instance.json").write_text(content)

    with pytest.raises(Misconfigured, match=r"instance\.json"):
        volume.load()


def test_forgetting_keeps_the_state_and_deleting_does_not(volume: Volume) -> None:
    volume.save(record_of(spec()))
    (volume.tailscale / "tailscaled.state").touch()

    volume.forget()
    assert volume.load() is None
    assert (volume.tailscale / "tailscaled.state").exists()
    assert not volume.sockets.exists()

    for _ in range(2):
        volume.delete()
        assert not volume.path.parent.exists()


def test_deleting_one_generation_keeps_the_next(tmp_path: Path, volume: Volume) -> None:
    following = Volume(volume.path.parent / "2", tmp_path / "run" / "a-2")
    following.make()

    volume.delete()

    assert following.path.is_dir()


def test_a_file_is_replaced_as_a_whole_also_over_a_leftover(volume: Volume) -> None:
    (volume.path / ".join-token.new").write_text("half")
    for text in (b"first", b"second"):
        volume.write(volume.places.join_token, text)

    assert volume.places.join_token.read_bytes() == b"second"
    assert not (volume.path / ".join-token.new").exists()
