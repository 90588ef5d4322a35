from pathlib import Path

import pytest

from elizacloud.store.filesystem import network_filesystem

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:40 / /mnt/nas rw,relatime shared:5 - nfs4 server:/export rw,vers=4.2
24 22 0:41 / /mnt/with\\040space rw - cifs //server/share rw
25 23 0:42 / /mnt/nas/scratch rw - tmpfs tmpfs rw
26 22 0:43 / /home/me/remote rw - fuse.sshfs me@host: rw
27 22 0:44 / /home/me/local rw - fuse.fuse-overlayfs overlay rw
28 22 0:45 / /mnt/c rw - 9p C: rw,aname=drvfs
29 22 0:46 / /srv rw - nfs old:/srv rw
30 29 0:47 / /srv rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib", None),
        ("/mnt/nas", "nfs4"),
        ("/mnt/nas/data", "nfs4"),
        ("/mnt/nastier", None),
        ("/mnt/nas/scratch/data", None),
        ("/mnt/with space/data", "cifs"),
        ("/home/me/remote", "fuse.sshfs"),
        ("/home/me/local", None),
        ("/mnt/c/Users", "9p"),
        ("/srv", None),
    ],
)
def test_the_nearest_mount_decides(directory: str, kind: str | None) -> None:
    assert network_filesystem(Path(directory), MOUNTS) == kind


def test_the_temporary_directory_of_the_tests_is_local(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path) is None


def test_a_link_to_a_network_filesystem_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "data"
    link.symlink_to("/mnt/nas/data")
    assert network_filesystem(link, MOUNTS) == "nfs4"
