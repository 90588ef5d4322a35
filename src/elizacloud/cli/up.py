"""`elizacloud up`: the whole cloud on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elizacloud.cli.command import command


@command
def up(
    data_dir: Annotated[Path | None, typer.Option(help="Where all state lives; made at the first start.")] = None,
    host: Annotated[str | None, typer.Option(help="Address that the front door listens on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the front door; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Relay processes that share the front door.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Where agents run: process, or docker.")] = None,
    headscale: Annotated[
        str | None, typer.Option(help="auto, devcontrol, the path of a headscale binary, or the URL of a Headscale.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write JSON with URL and a token there when everything is ready.")
    ] = None,
    tailnet_mode: Annotated[
        str | None, typer.Option(help="How the relay dials agents: userspace, or tun (faster, needs CAP_NET_ADMIN).")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The TOML file to read.")] = None,
) -> None:
    """Bring the whole cloud up on this machine and keep it up until Ctrl-C; agents come back at the next start."""
    from elizacloud.log import configure_logging
    from elizacloud.settings import load_settings

    flags = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "workers": workers,
        "runtime": runtime,
        "headscale": headscale,
        "tailnet_mode": tailnet_mode,
    }
    settings = load_settings(flags, file=config).settings
    configure_logging(level=settings.log_level, json=settings.log_json, process="up")
    from elizacloud.app.up import run

    run(settings, ready_file=ready_file, config=config)
