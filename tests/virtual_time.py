"""The one way for a test to let time pass: on an event loop whose time is virtual."""

from __future__ import annotations

import asyncio


async def pass_seconds(seconds: float) -> None:
    """AssertionError on a loop that would really wait."""
    assert getattr(asyncio.get_running_loop(), "looptime_on", False), "await the event instead"
    await asyncio.sleep(seconds)
