"""What starts an external agent by hand: the seed's manual `docker run`, and the same as exports for a shell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import typer

from elizacloud.cli.output import print_json
from elizacloud.errors import Unavailable

if TYPE_CHECKING:
    from elizacloud.client import Agent

IMAGE = "milaidy:latest"
"""The seed's image, unless the agent was created with another."""


def environment_of(agent: Agent) -> dict[str, str]:
    """The environment that the answer carries, this once; Unavailable when it has none."""
    if not agent.environment:
        raise Unavailable(
            f"cannot show how to start {agent.agent_id} by hand: the server gave no environment for it; "
            f"`elizacloud agent restart {agent.agent_id}` asks for a new one"
        )
    return {name: value.get_secret_value() for name, value in agent.environment.items()}


def docker_run(environment: dict[str, str], image: str) -> str:
    """The command, with the values taken from the shell's environment: in argv they would be seen by every process."""
    flags = " \\\n".join(f"  -e {name}" for name in sorted(environment))
    return f"docker run -it --rm \\\n{flags} \\\n  {shlex.quote(image)}"


def exports(environment: dict[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items()))


def print_external(agent: Agent, *, as_json: bool) -> None:
    """Print it all; the pre-auth key and the tokens in it are shown this once."""
    environment = environment_of(agent)
    if as_json:
        print_json({**agent.as_json(), "environment": environment})
        return
    typer.echo(f"# {agent.agent_id} waits to be started by hand. The key below works once; it is not shown again.")
    typer.echo(exports(environment))
    typer.echo("\n# Then, with Docker:")
    typer.echo(docker_run(environment, agent.image or IMAGE))
    typer.echo(f"\n# See it arrive:\nelizacloud agent events --follow {agent.agent_id}")
