"""`elizacloud settings`: each setting, its value and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.output import print_json, print_table


@command
def settings(
    config: Annotated[Path | None, typer.Option(help="The TOML file to read.")] = None,
    describe: Annotated[bool, typer.Option(help="Say what each setting is for.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print every setting with its value and source (flag, environment, file, default); secrets are masked."""
    from elizacloud.settings import ENV_PREFIX, Settings, load_settings

    shown = load_settings(file=config).shown()
    about = {name: field.description or "" for name, field in Settings.model_fields.items()}
    if as_json:
        print_json(
            {
                name: {
                    "value": value,
                    "source": source,
                    "variable": f"{ENV_PREFIX}{name.upper()}",
                    "about": about[name],
                }
                for name, (value, source) in shown.items()
            }
        )
        return
    columns = ["setting", "value", "source", *(["about"] if describe else [])]
    rows = [[name, value, source, *([about[name]] if describe else [])] for name, (value, source) in shown.items()]
    print_table(columns, rows, empty="")
