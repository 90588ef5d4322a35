"""The data dir: where everything that outlives a process lies, who may hold it, and what it was made with.

    installation.json   format, installation id, whether there is a store
    secret.key          encrypts secrets at rest              operator.token   the service token of this installation
    seen.json           how far the database had come (past.py)
    store.db            SQLite, unless PostgreSQL is used     run.json         what runs now: url, pids, sockets
    control-server/     Headscale or devcontrol, if ours     relay/           the relay's tailscaled, its last snapshot
    agents/             state volumes                         logs/            output of child processes
    *.lock              one holder each, for as long as it lives

Unix sockets lie in `sockets`: a path may have at most 107 bytes (sun_path in unix(7)), so a deep data dir gets a short
directory under the temporary one.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from elizacloud.errors import Conflict, Misconfigured
from elizacloud.files import create_private, replace_private
from elizacloud.settings import Settings

FORMAT = 1
_LONGEST_SOCKET_NAME_BYTES = 48
_SOCKET_PATH_BYTES = 107


@dataclass(frozen=True)
class DataDir:
    """A data dir that exists, belongs to this user and has a format that this version understands."""

    path: Path
    installation_id: str
    sockets: Path

    @property
    def database(self) -> Path:
        return self.path / "store.db"

    @property
    def control_server(self) -> Path:
        return private_dir(self.path / "control-server")

    @property
    def relay(self) -> Path:
        return private_dir(self.path / "relay")

    @property
    def logs(self) -> Path:
        return private_dir(self.path / "logs")

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    def check_store(self, *, is_new: bool) -> None:
        """Misconfigured when there was a store and this one is new: with it, all agents would be swept as nobody's."""
        if is_new and _read_installation(self._installation)["hasStore"]:
            raise Misconfigured(
                f"cannot use an empty store: the data dir {self.path} has one with agents, which is gone; restore it from a "
                "backup, or begin anew in another data dir",
                code="store_lost",
            )

    def join(self, installation_id: str, settings: Settings) -> DataDir:
        """This data dir as one of the installation, whose store it shares with other control planes.

        Raises Misconfigured when it belongs to another one, or has not been given the operator's token of that one.
        """
        if installation_id == self.installation_id:
            return self
        installation = _read_installation(self._installation)
        if installation["hasStore"]:
            raise Misconfigured(
                f"cannot use the store: it belongs to the installation {installation_id} and the data dir {self.path} to "
                f"{self.installation_id}; use its own database, or a new data dir"
            )
        if settings.operator_token is None:
            raise Misconfigured(
                f"cannot join the installation {installation_id}: ELIZACLOUD_OPERATOR_TOKEN has to be set to its token, as "
                "ELIZACLOUD_SECRET_KEY is to its key; both are in the data dir of its first control plane"
            )
        write_private(self._installation, json.dumps({**installation, "installationId": installation_id}) + "\n")
        return replace(self, installation_id=installation_id)

    def remember_store(self) -> None:
        """From now on `check_store` refuses a new one."""
        installation = _read_installation(self._installation)
        if not installation["hasStore"]:
            write_private(self._installation, json.dumps({**installation, "hasStore": True}) + "\n")

    @property
    def _installation(self) -> Path:
        return self.path / "installation.json"

    def secret_key(self, settings: Settings) -> SecretStr:
        """The key that encrypts secrets at rest: the setting, else the one made at the first start."""
        if settings.secret_key is not None:
            return settings.secret_key
        return _kept_secret(self.path / "secret.key", lambda: base64.b64encode(secrets.token_bytes(32)).decode())

    def operator_token(self, settings: Settings) -> SecretStr:
        """The service token of this installation: the setting, else the one made at the first start."""
        if settings.operator_token is not None:
            return settings.operator_token
        return _kept_secret(self.path / "operator.token", lambda: f"ecop_{secrets.token_urlsafe(32)}")

    def lock(self, name: str, what: str) -> int:
        """Hold `{name}.lock` until this process ends; Conflict when another process holds it. Returns the descriptor."""
        descriptor = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise Conflict(
                f"cannot use the data dir {self.path}: another {what} holds it; stop that one or give another --data-dir",
                code="data_dir_held",
            ) from error
        return descriptor


def open_data_dir(settings: Settings) -> DataDir:
    """Open the data dir, making it at the first start. Raises Misconfigured when it cannot be used, and changes nothing."""
    path = private_dir(settings.data_dir.expanduser().absolute())
    installation = _read_installation(path / "installation.json")
    return DataDir(path=path, installation_id=installation["installationId"], sockets=_sockets_dir(path))


def private_dir(path: Path) -> Path:
    """Make the directory (0700) if needed; Misconfigured when it cannot be made, is not ours or cannot be written."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.stat()
        if facts.st_uid != os.geteuid():
            raise Misconfigured(f"cannot use the directory {path}: it belongs to another user; choose another")
        if stat.S_IMODE(facts.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        why = "it is not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise Misconfigured(f"cannot use the directory {path}: {why}; choose another or correct it") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise Misconfigured(
            f"cannot use the directory {path}: it is not writable; choose another or correct its permissions"
        )
    return path


def write_private(path: Path, content: str) -> None:
    """Replace the file as `replace_private` does; raises Misconfigured."""
    with _written(path):
        replace_private(path, content)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Misconfigured(
            f"cannot write {path}: {error.strerror}; free some space or correct its permissions"
        ) from error


def _read_installation(file: Path) -> dict[str, Any]:
    has_store = (file.parent / "store.db").exists()  # looked at first: whoever makes one has made the file
    if not file.exists():
        if has_store:
            raise Misconfigured(
                f"cannot use the data dir {file.parent}: it has a database but no {file.name}; restore that file from a backup"
            )
        # Two first starts at the same time, as of `serve` and `join-relay`, read the one that was made.
        with _written(file):
            create_private(
                file, json.dumps({"format": FORMAT, "installationId": secrets.token_hex(4), "hasStore": False}) + "\n"
            )
    try:
        installation = json.loads(file.read_text())
        form, installation_id = installation["format"], installation["installationId"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"cannot use the data dir {file.parent}: {file.name} is damaged; restore it from a backup"
        ) from error
    if not isinstance(form, int) or form > FORMAT or not isinstance(installation_id, str):
        raise Misconfigured(
            f"cannot use the data dir {file.parent}: it was made by a newer version (format {form}, not {FORMAT}); upgrade"
        )
    return {"hasStore": False, **installation}


def _sockets_dir(path: Path) -> Path:
    own = path / "run"
    if len(os.fsencode(own)) + 1 + _LONGEST_SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES:
        return private_dir(own)
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return private_dir(Path(tempfile.gettempdir()) / f"elizacloud-{os.geteuid()}-{digest}")


def _kept_secret(file: Path, make: Any) -> SecretStr:
    if not file.exists():
        with _written(file):
            create_private(file, f"{make()}\n")
    text = file.read_bytes().strip().decode(errors="replace")
    if not text or not text.isascii():
        raise Misconfigured(f"cannot use {file}: it is {'damaged' if text else 'empty'}; restore it from a backup")
    return SecretStr(text)
