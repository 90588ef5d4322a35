"""What ends a process: the one error that matters out of a group."""

from __future__ import annotations

from elizacloud.errors import Error


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first Error of ours in the group, else the first exception of any kind."""
    found = group.subgroup(Error) or group
    error: BaseException = found
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
