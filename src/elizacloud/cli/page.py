"""`elizacloud agent open`: the agent's own page in a browser, by a one-time link."""

from __future__ import annotations

from typing import Annotated

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.context import connect
from elizacloud.cli.output import print_json


@command
async def open_page(
    agent_id: Annotated[str, typer.Argument(help="The agent's id, as `agent list` shows it.", metavar="AGENT")],
    browser: Annotated[bool, typer.Option("--browser", help="Open it in a browser on this machine.")] = False,
    owner: Annotated[str | None, typer.Option("--owner", help="Act for this owner; needs a service token.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a link to the agent's own page. It works once, within a minute; whoever opens it is let in."""
    async with connect(owner_id=owner) as client:
        ticket = await client.create_ticket(agent_id)
    url = ticket.url.get_secret_value()
    if as_json:
        print_json({**ticket.as_json(), "ticket": ticket.ticket.get_secret_value(), "url": url})
    elif not browser:
        typer.echo(url)
    if browser and typer.launch(url) != 0:
        typer.echo("elizacloud: cannot open a browser here; without --browser the link is printed", err=True)
