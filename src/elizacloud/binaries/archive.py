"""Taking single files out of a .tgz, by name, whatever else is in it."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from elizacloud.binaries.errors import DownloadFailed

MEMBER_LIMIT_BYTES = 256 * 1024 * 1024


def extract(archive: Path, members: Sequence[str], into: Path) -> None:
    """Write the regular files called `members`, in whatever folder of the archive, as executables. Blocks.

    Only names of ours are written, so nothing in the archive can choose a path. Raises DownloadFailed.
    """
    missing = set(members)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                name = PurePosixPath(entry.name).name
                if name not in missing or not entry.isreg():
                    continue
                if entry.size > MEMBER_LIMIT_BYTES:
                    raise DownloadFailed(f"cannot unpack {archive}: {name} is larger than {MEMBER_LIMIT_BYTES} bytes")
                source = tar.extractfile(entry)
                assert source is not None  # a regular file
                with source, (into / name).open("xb") as target:
                    shutil.copyfileobj(source, target)
                (into / name).chmod(0o755)
                missing.remove(name)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DownloadFailed(f"cannot unpack {archive}: {error}") from error
    if missing:
        raise DownloadFailed(f"cannot unpack {archive}: it has no {', '.join(sorted(missing))}")
