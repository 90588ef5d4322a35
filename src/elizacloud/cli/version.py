"""`elizacloud version`."""

from __future__ import annotations

from elizacloud import __version__
from elizacloud.cli.command import AsJson, command
from elizacloud.cli.output import print_json


@command
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    import platform

    import typer

    if as_json:
        print_json({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
    else:
        typer.echo(__version__)
