"""Running a command as a person would: environment and home of its own, and a server in another thread."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner, Result

from elizacloud.cli.root import app
from tests.fakes.api import FakeApi


@contextlib.contextmanager
def serving(api: FakeApi) -> Iterator[FakeApi]:
    """The fake API in a thread of its own, since a command blocks the test's."""
    ready, loops, stops = threading.Event(), [], []

    async def serve() -> None:
        stop = asyncio.Event()
        loops.append(asyncio.get_running_loop())
        stops.append(stop)
        async with api.running():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fake API")
    thread.start()
    ready.wait()
    try:
        yield api
    finally:
        loops[0].call_soon_threadsafe(stops[0].set)
        thread.join()


def own_environment(home: Path, **variables: str) -> dict[str, str | None]:
    """A new home, and none of the settings of whoever runs the tests."""
    forgotten = dict.fromkeys((name for name in os.environ if name.startswith("ELIZACLOUD_")), None)
    places = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    return {**forgotten, **places, **variables}


def run(*arguments: str, environment: dict[str, str | None], stdin: str | None = None) -> Result:
    """Standard output and error apart; an exception that no user should see fails the test."""
    result = CliRunner().invoke(app, list(arguments), env=environment, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
