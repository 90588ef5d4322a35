"""A cancellation that met an error. Until Python 3.13 a task group whose task is cancelled while another of the group fails tells
of the failure alone (CPython issue 116720): who catches that and goes on would never end."""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """For whoever catches what a task group raised. Raises CancelledError when the present task was cancelled meanwhile."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
