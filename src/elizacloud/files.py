"""Files for our own user only, replaced as a whole, also where two processes of ours write the same one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What filesystems say that have no hard links, as some that are mounted over a network."""


def replace_private(path: Path, content: str) -> None:
    """Replace the file (0600): a crash leaves the old content or the new one, never half. Raises OSError."""
    with _draft(path, content) as draft:
        draft.replace(path)


def create_private(path: Path, content: str) -> None:
    """Make the file (0600) as a whole, unless it is there: of those who make it at the same time one does. Raises OSError."""
    with _draft(path, content) as draft:
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not path.exists():
                draft.replace(path)
        draft.unlink(missing_ok=True)


@contextmanager
def _draft(path: Path, content: str) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    except OSError:
        draft.unlink(missing_ok=True)
        raise
