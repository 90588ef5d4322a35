"""What processes use, as the kernel says in /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PARENT, _USER = 1, 11
"""Fields of /proc/PID/stat behind the command's name; user, system and both for children that were waited for."""
_RESIDENT = 1
"""Field of /proc/PID/statm. That of stat is not summed over all processors: nothing, in the first moments of a process."""


def usage_of_trees(roots: Iterable[int]) -> tuple[float, int]:
    """CPU seconds and resident bytes of these processes and of all that they started; what has gone counts as nothing."""
    wanted, found = set(roots), _all()
    grown = True
    while grown:
        more = {pid for pid, fields in found.items() if int(fields[_PARENT]) in wanted} - wanted
        wanted |= more
        grown = bool(more)
    ticks = sum(int(part) for pid in wanted & found.keys() for part in found[pid][_USER : _USER + 4])
    pages = sum(_resident_pages(pid) for pid in wanted & found.keys())
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def _all() -> dict[int, list[str]]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended since
                continue
    return found


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[_RESIDENT])
    except OSError:
        return 0
