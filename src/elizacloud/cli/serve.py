"""`elizacloud serve`: the control plane alone, on a Headscale that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elizacloud.cli.command import command


@command
def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Where all state lives; made at the first start.")] = None,
    config: Annotated[Path | None, typer.Option(help="The TOML file to read.")] = None,
) -> None:
    """Run the control plane: API and reconciler, with a Headscale given by URL and key. Settings say the rest."""
    from elizacloud.log import configure_logging
    from elizacloud.settings import load_settings

    settings = load_settings({"data_dir": data_dir}, file=config).settings
    configure_logging(level=settings.log_level, json=settings.log_json, process="control plane")
    from elizacloud.app.serve import run

    run(settings)
