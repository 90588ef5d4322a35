"""Is a directory on a network filesystem? SQLite's locks and its shared memory are not safe there (sqlite.org/wal.html)."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|afs|ceph|lustre|gpfs|beegfs|ocfs2|gfs2|vboxsf|prl_fs|glusterfs"
    r"|fuse\.(sshfs|glusterfs|s3fs|ceph|rclone|davfs|gcsfuse|juicefs)|davfs|acfs|panfs|orangefs"
)


def network_filesystem(directory: Path, mounts: str | None = None) -> str | None:
    """The filesystem's kind when the directory lies on a network filesystem; None on a local one.

    `mounts` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5)). Where there is no such file nothing is known
    and None is the answer.
    """
    if mounts is None:
        if not _MOUNTS.exists():
            return None
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    real = directory.resolve()
    kind = ""
    longest = -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mounted = Path(_unescape(before.split(" ")[4]))
        # The last of two mounts on one directory is the one that is seen.
        if real.is_relative_to(mounted) and len(mounted.parts) >= longest:
            longest, kind = len(mounted.parts), after.split(" ")[0]
    return kind if _NETWORK.fullmatch(kind) else None


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
