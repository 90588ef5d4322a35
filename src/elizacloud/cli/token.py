"""`elizacloud token ...`: API tokens of the owner."""

from __future__ import annotations

from typing import Annotated

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.context import connect
from elizacloud.cli.output import ago, print_json, print_table
from elizacloud.errors import Invalid

app = typer.Typer(help="Create, list and revoke API tokens.", no_args_is_help=True)

_MINUTE_SECONDS, _DAY_SECONDS = 60.0, 86400.0


@app.command("create")
@command
async def create(
    name: Annotated[str | None, typer.Argument(help="What it is for.")] = None,
    agent: Annotated[str | None, typer.Option(help="Bind it to this agent: it then reaches nothing else.")] = None,
    days: Annotated[float | None, typer.Option(help="How long it is valid; for ever unless given.", min=0.001)] = None,
    jwt: Annotated[
        bool, typer.Option("--jwt", help="A short-lived JWT that only reaches agents, instead of an API token.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="With --jwt: how long, at most 60; 15 unless given.")] = None,
    owner: Annotated[str | None, typer.Option(help="Act for this owner; needs a service token.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API token or a JWT; its value is printed this once."""
    if jwt and (name is not None or days is not None):
        raise Invalid("cannot name a JWT or give it days: it is not kept; give --minutes")
    if not jwt and (minutes is not None or (name is None and agent is None)):
        raise Invalid("cannot create this token: give a NAME, and --days if it is to end; --minutes is for a --jwt")
    async with connect(owner_id=owner) as client:
        if jwt:
            token = await client.create_jwt(
                agent_id=agent, expires_in_seconds=None if minutes is None else minutes * _MINUTE_SECONDS
            )
        else:
            token = await client.create_token(
                name, agent_id=agent, expires_in_seconds=None if days is None else days * _DAY_SECONDS
            )
    if as_json:
        print_json({**token.as_json(), "token": token.token.get_secret_value()})
        return
    typer.echo(token.token.get_secret_value())
    typer.echo(f"{token.token_id}: keep the token above, it is not shown again", err=True)


@app.command("list")
@command
async def list_tokens(
    owner: Annotated[str | None, typer.Option(help="Act for this owner; needs a service token.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the owner's API tokens."""
    async with connect(owner_id=owner) as client:
        tokens = [token async for token in client.tokens()]
    if as_json:
        print_json([token.as_json() for token in tokens])
        return
    rows = [
        [
            token.token_id,
            token.name,
            ", ".join(token.scopes),
            token.agent_id or "all",
            ago(token.created_at),
            f"{token.expires_at:%Y-%m-%d}" if token.expires_at else "never",
        ]
        for token in tokens
    ]
    print_table(["token", "name", "scopes", "agents", "created", "expires"], rows, empty="There is no token.")


@app.command("revoke")
@command
async def revoke(
    token_id: Annotated[str, typer.Argument(help="The token's id, as `token list` shows it.", metavar="TOKEN")],
    owner: Annotated[str | None, typer.Option(help="Act for this owner; needs a service token.")] = None,
    as_json: AsJson = False,
) -> None:
    """Revoke an API token, for good."""
    async with connect(owner_id=owner) as client:
        await client.revoke_token(token_id)
    if as_json:
        print_json({"tokenId": token_id, "revoked": True})
    else:
        typer.echo(f"{token_id} is revoked")
