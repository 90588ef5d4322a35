"""The state volume of one generation: `agents/{agent id}/{generation}/` in the data dir, 0700, files 0600.

installation      whose volume it is, also when the instance is removed
instance.json     the record: spec and labels, no secrets; gone when the instance is removed
tailscale/        the node's identity; with it a start needs no pre-auth key
state/ home/      the agent's own
agent-config.json, join-token, busy-token     what the agent is told the paths of
agent.log, tailscaled.log                     bounded
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from elizacloud.errors import Invalid, Misconfigured, RuntimeRefused
from elizacloud.model import is_agent_id
from elizacloud.runtime.environment import Places
from elizacloud.runtime.process.wire import decode, encode
from elizacloud.runtime.protocol import InstanceSpec, Labels
from elizacloud.runtime.protocol import Volume as Seen

_REF = re.compile(r"(?P<agent>[a-z0-9]{16})\.(?P<generation>[1-9][0-9]{0,8})\.(?P<run>[0-9]{1,9})")


def ref_of(labels: Labels) -> str:
    return f"{labels.agent_id}.{labels.generation}.{labels.run}"


def name_of(labels: Labels) -> str:
    """The volume's name, which is also its path below `agents/`. Refuses labels that are no safe path."""
    if not is_agent_id(labels.agent_id) or not 0 < labels.generation < 10**9 or not 0 <= labels.run < 10**9:
        raise RuntimeRefused("cannot use these labels: the agent id, generation or run is malformed", code="bad_labels")
    return f"{labels.agent_id}/{labels.generation}"


def name_in(ref: str) -> str | None:
    """The name of the volume that a ref belongs to; None when it is no ref of ours."""
    match = _REF.fullmatch(ref)
    return f"{match['agent']}/{match['generation']}" if match else None


def volumes_in(directory: Path, installation_id: str, agent_id: str | None) -> tuple[Seen, ...]:
    """The volumes of the installation, or of one agent in it, by what is on the disk now."""
    if agent_id is not None and not is_agent_id(agent_id):
        return ()
    found = []
    for path in directory.glob(f"{agent_id or '*'}/*/installation"):
        ref = f"{path.parent.parent.name}.{path.parent.name}.0"
        match = _REF.fullmatch(ref)
        with contextlib.suppress(FileNotFoundError):
            if match is not None and path.read_text() == installation_id:
                found.append(Seen(ref, match["agent"], int(match["generation"])))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of an instance. Owners' secrets are not: a start after the host ended needs a `create` before it."""

    spec: InstanceSpec
    secret_names: tuple[str, ...] = ()
    started_at: datetime | None = None
    exit_code: int | None = None
    reason: str = ""

    @property
    def secrets_lost(self) -> bool:
        return set(self.secret_names) != set(self.spec.agent.secrets)


_RECORD = TypeAdapter(Record)


def record_of(spec: InstanceSpec) -> Record:
    return Record(spec, tuple(spec.agent.secrets))


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume's paths. `sockets` lies elsewhere, because socket paths are short."""

    path: Path
    sockets: Path
    tailscale: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tailscale", self.path / "tailscale")

    @property
    def places(self) -> Places:
        return Places(
            home=self.path / "home",
            state=self.path / "state",
            config=self.path / "agent-config.json",
            join_token=self.path / "join-token",
            busy_token=self.path / "busy-token",
        )

    @property
    def agent_log(self) -> Path:
        return self.path / "agent.log"

    @property
    def tailscaled_log(self) -> Path:
        return self.path / "tailscaled.log"

    @property
    def tailscaled_socket(self) -> Path:
        return self.sockets / "tailscaled.sock"

    @property
    def agent_socket(self) -> Path:
        return self.sockets / "agent.sock"

    @property
    def _record(self) -> Path:
        return self.path / "instance.json"

    def make(self) -> None:
        # The parent, too: what `parents` makes has the mode that the umask gives.
        own = (self.path.parent, self.path, self.tailscale, self.places.home, self.places.state)
        for directory in (*own, self.sockets):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Put a file in the volume, 0600, whole or not at all."""
        temporary = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def claim(self, installation_id: str) -> None:
        """Make it, if it is not there, and say whose it is."""
        self.make()
        file = self.path / "installation"
        if not file.exists():
            self.write(file, installation_id.encode())

    def save(self, record: Record) -> None:
        bare = replace(record.spec.agent, secrets={}, config={})
        kept = replace(record, spec=replace(record.spec, agent=bare))
        self.write(self._record, encode(_RECORD, kept))

    def load(self) -> Record | None:
        """The record; None when there is no instance. Raises Misconfigured when it is damaged."""
        try:
            return decode(_RECORD, self._record.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, Invalid) as error:
            raise Misconfigured(
                f"cannot read {self._record}: {error}; delete that file to forget the instance and keep its state"
            ) from error

    def forget(self) -> None:
        """Remove the record and the sockets; the state stays."""
        with contextlib.suppress(FileNotFoundError):
            self._record.unlink()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def delete(self) -> None:
        """Remove everything."""
        self.forget()
        with contextlib.suppress(FileNotFoundError):
            try:
                shutil.rmtree(self.path)
            except PermissionError:
                _open_up(self.path)
                shutil.rmtree(self.path)
        with contextlib.suppress(OSError):  # other generations are there
            self.path.parent.rmdir()


def _open_up(directory: Path) -> None:
    """Let us write in all directories below: an agent may have left some that it cannot write in itself, as Go's caches are."""
    for parent, names, _ in os.walk(directory):
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o700)
