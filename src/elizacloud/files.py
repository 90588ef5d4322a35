"""Files for our own user only, replaced as a whole, also where two processes of ours write the same one."""

from __future__ import annotations

import os
from pathlib import Path


def replace_private(path: Path, content: str) -> None:
    """Replace the file (0600): a crash leaves the old content or the new one, never half. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
