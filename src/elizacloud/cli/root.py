"""The command tree."""

from __future__ import annotations

import typer

from elizacloud.cli import agent, doctor, image, login, operator, relay, serve, settings, token, up, version
from elizacloud.cli.command import EXIT_CODES_HELP

app = typer.Typer(
    name="elizacloud",
    help="A private agent cloud: agents on a Headscale tailnet, reached only through an authenticated relay.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("serve")(serve.serve)
app.command("relay")(relay.relay)
app.command("join-relay")(relay.join_relay)
app.add_typer(agent.app, name="agent")
app.add_typer(token.app, name="token")
app.add_typer(image.app, name="image")
app.command("sweep")(operator.sweep)
app.command("login")(login.login)
app.command("logout")(login.logout)
app.command("doctor")(doctor.doctor)
app.command("settings")(settings.settings)
app.command("version")(version.version)
