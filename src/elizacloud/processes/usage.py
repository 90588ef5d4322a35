"""What processes use, as the kernel says in /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PARENT, _USER, _RESIDENT = 1, 11, 21
"""Fields of /proc/PID/stat behind the command's name; user, system and both for children that were waited for."""


def usage_of_trees(roots: Iterable[int]) -> tuple[float, int]:
    """CPU seconds and resident bytes of these processes and of all that they started; what has gone counts as nothing."""
    wanted, found = set(roots), _all()
    grown = True
    while grown:
        more = {pid for pid, fields in found.items() if int(fields[_PARENT]) in wanted} - wanted
        wanted |= more
        grown = bool(more)
    fields = [found[pid] for pid in wanted if pid in found]
    ticks = sum(int(part) for each in fields for part in each[_USER : _USER + 4])
    pages = sum(int(each[_RESIDENT]) for each in fields)
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
