"""The last table on disk (0600, sealed, replaced atomically), so that a worker that restarts in an outage still serves.

The file's modification time is when the control plane was last heard: the clock of the offline grace goes on across
restarts without rewriting the file at every heartbeat. It is sealed because the agents' own tokens are in it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import structlog

from elizacloud.cipher import Cipher
from elizacloud.errors import Invalid, Misconfigured
from elizacloud.relay.link.messages import decode_snapshot, encode
from elizacloud.upstreams import Snapshot

logger = structlog.get_logger()

_PLACE = "the relay's last table"


class SnapshotFile:
    def __init__(self, path: Path, cipher: Cipher) -> None:
        self._path = path
        self._cipher = cipher

    def save(self, snapshot: Snapshot, heard_at: float) -> None:
        """Replace the file; a reader sees the old content or the new. Raises OSError."""
        # Workers of one host share the file; each writes under its own name first.
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(self._cipher.seal(encode(snapshot), bound_to=_PLACE))
                file.flush()
                os.utime(file.fileno(), (heard_at, heard_at))
                os.fsync(file.fileno())
            os.replace(draft, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    def heard(self, at: float) -> None:
        """The control plane was heard at this time (epoch seconds)."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path, (at, at))

    def load(self) -> tuple[Snapshot, float] | None:
        """The snapshot and when the control plane was last heard (epoch seconds); None when there is none to use."""
        try:
            with self._path.open("rb") as file:
                # A time in the future would lengthen the grace, so it counts as now.
                heard_at = min(os.fstat(file.fileno()).st_mtime, time.time())
                return decode_snapshot(self._cipher.open(file.read(), bound_to=_PLACE)), heard_at
        except FileNotFoundError:
            return None
        except (OSError, Invalid, Misconfigured) as error:
            logger.error("the last table cannot be used", path=str(self._path), reason=str(error))
            return None
