"""`elizacloud relay`: one relay host's front door, its workers and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.output import print_json


@command
def relay(
    data_dir: Annotated[Path | None, typer.Option(help="Where the relay keeps its tailnet identity.")] = None,
    host: Annotated[str | None, typer.Option(help="Address that the front door listens on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the front door.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the front door.")] = None,
    listen_fd: Annotated[
        int | None, typer.Option(help="A listening socket handed over by a supervisor, instead of host and port.")
    ] = None,
    tailnet_mode: Annotated[
        str | None, typer.Option(help="How the relay dials agents: userspace, or tun (faster, needs CAP_NET_ADMIN).")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The TOML file to read.")] = None,
) -> None:
    """Run the relay: authenticates requests, carries those for agents over the tailnet, the others to the API.

    SIGHUP replaces its workers one by one and loses no request; SIGTERM lets what is in flight finish.
    """
    from elizacloud.log import configure_logging
    from elizacloud.settings import load_settings

    flags = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "workers": workers,
        "listen_fd": listen_fd,
        "tailnet_mode": tailnet_mode,
    }
    settings = load_settings(flags, file=config).settings
    configure_logging(level=settings.log_level, json=settings.log_json, process="relay")
    from elizacloud.app.relay import run

    run(settings, config=config)


@command
async def join_relay(
    data_dir: Annotated[Path | None, typer.Option(help="The control plane's: the node is of its installation.")] = None,
    within_seconds: Annotated[float, typer.Option(min=1, help="How long to wait for the join.")] = 60,
    config: Annotated[Path | None, typer.Option(help="The TOML file to read.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a relay host's tailscaled on the tailnet, with the policy before it and a single-use key. Harmless again."""
    from elizacloud.log import configure_logging
    from elizacloud.settings import load_settings

    settings = load_settings({"data_dir": data_dir}, file=config).settings
    configure_logging(level=settings.log_level, json=settings.log_json, process="join relay")
    from elizacloud.app.join_relay import join_relay as join

    joined = await join(settings, within_seconds=within_seconds)
    if as_json:
        print_json({"nodeId": joined.node_id, "ips": list(joined.ips)})
    else:
        typer.echo(f"the relay is on the tailnet as {joined.ipv4 or joined.ips[0]} (node {joined.node_id})")
