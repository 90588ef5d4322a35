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


Busybox = Annotated[Path | None, typer.Option(help="A static busybox; the one on PATH unless given.")]


@app.command("sidecar")
@command
async def sidecar(
    busybox: Busybox = None,
    tag: Annotated[str | None, typer.Option(help="The image's name; the setting docker_sidecar_image's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build the sidecar's image on the Docker host, out of this machine's tailscaled and busybox; nothing is pulled."""
    from elizacloud.runtime.docker.building import build_sidecar
    from elizacloud.settings import load_settings

    settings = load_settings().settings
    name = tag or settings.docker_sidecar_image
    static, tailscaled = await _programs(busybox)
    _print(name, await build_sidecar(settings.docker_url, name, busybox=static, tailscaled=tailscaled), as_json)


@app.command("wrap")
@command
async def wrap(
    image: Annotated[str, typer.Argument(help="An image on the Docker host.")],
    tag: Annotated[str, typer.Option(help="The new image's name.")],
    busybox: Busybox = None,
    as_json: AsJson = False,
) -> None:
    """Build an image that joins the tailnet by itself and then runs as IMAGE does: for agents started by hand."""
    from elizacloud.runtime.docker.building import wrap as wrap_image
    from elizacloud.settings import load_settings

    settings = load_settings().settings
    static, tailscaled = await _programs(busybox)
    _print(tag, await wrap_image(settings.docker_url, image, tag, busybox=static, tailscaled=tailscaled), as_json)


async def _programs(busybox: Path | None) -> tuple[Path, Path]:
    """The two that go into an image."""
    from elizacloud.binaries import Binaries, show_progress
    from elizacloud.settings import load_settings

    found = busybox or shutil.which("busybox")
    if found is None:
        raise Misconfigured(
            "cannot build the image without a static busybox: install busybox-static, or give --busybox"
        )
    with show_progress() as progress:
        return Path(found), (await Binaries.from_settings(load_settings().settings, progress).tailscaled()).path


def _print(name: str, image_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"image": name, "id": image_id})
    else:
        typer.echo(f"{name} {image_id}")
