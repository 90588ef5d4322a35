"""`elizacloud image ...`: the images that the Docker runtime needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.output import print_json
from elizacloud.errors import Misconfigured

app = typer.Typer(help="Build the images that agents on Docker need.", no_args_is_help=True)


@app.command("sidecar")
@command
async def sidecar(
    busybox: Annotated[Path | None, typer.Option(help="A static busybox; the one on PATH unless given.")] = None,
    tag: Annotated[str | None, typer.Option(help="The image's name; the setting docker_sidecar_image's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build the sidecar's image on the Docker host, out of this machine's tailscaled and busybox; nothing is pulled."""
    from elizacloud.binaries import Binaries, show_progress
    from elizacloud.runtime.docker.sidecar import build_sidecar
    from elizacloud.settings import load_settings

    settings = load_settings().settings
    found = busybox or shutil.which("busybox")
    if found is None:
        raise Misconfigured(
            "cannot build the sidecar without a static busybox: install busybox-static, or give --busybox"
        )
    with show_progress() as progress:
        tailscaled = (await Binaries.from_settings(settings, progress).tailscaled()).path
    name = tag or settings.docker_sidecar_image
    image_id = await build_sidecar(settings.docker_url, name, busybox=Path(found), tailscaled=tailscaled)
    if as_json:
        print_json({"image": name, "id": image_id})
        return
    typer.echo(f"{name} {image_id}")
