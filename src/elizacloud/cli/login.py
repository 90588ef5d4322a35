"""`elizacloud login`: keep a server and a token in the context file (0600); `logout` forgets them.

A token comes from standard input, a prompt or the environment, never from argv. Without one, a person approves the
login in a browser.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.context import DEFAULT_URL, TOKEN_VARIABLE, URL_VARIABLE, forget_context, save_context
from elizacloud.cli.output import print_json
from elizacloud.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from pydantic import SecretStr

POLL_SECONDS = 1.0
APPROVAL_SECONDS = 600.0


@command
async def login(
    url: Annotated[str | None, typer.Argument(help=f"The server; {DEFAULT_URL} unless given.")] = None,
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read a token from standard input.")] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Approve in a browser, or be asked for a token.")
    ] = True,
    allow_http: Annotated[bool, typer.Option(help="Send the token over plain http to another machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign in to a server; later commands use it."""
    from pydantic import SecretStr

    target = _checked_url(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL, allow_http=allow_http)
    if token_stdin:
        token = SecretStr(sys.stdin.readline().strip())
    elif given := os.environ.get(TOKEN_VARIABLE):
        token = SecretStr(given)
    elif browser:
        token = await _approved_token(target, as_json=as_json)
    else:
        token = SecretStr(typer.prompt("API token", hide_input=True, err=True).strip())
    await _check(target, token)
    path = save_context(target, token)
    if as_json:
        print_json({"url": target, "file": str(path)})
    else:
        typer.echo(f"Signed in to {target}; kept in {path}")


@command
def logout(as_json: AsJson = False) -> None:
    """Forget server and token. The token itself stays valid until it is revoked."""
    forgotten = forget_context()
    if as_json:
        print_json({"forgotten": forgotten})
    else:
        typer.echo("Signed out" if forgotten else "There was nothing to forget")


async def _check(url: str, token: SecretStr) -> None:
    """One call that needs a token, so that a wrong one is told now."""
    from elizacloud.client import Client

    if not token.get_secret_value().isascii() or not token.get_secret_value().isprintable() or not token:
        raise Invalid("cannot use this token: it is empty or has characters that a token never has")
    async with Client(url, token) as client:
        async for _ in client.tokens():
            break


async def _approved_token(url: str, *, as_json: bool) -> SecretStr:
    """Have a person approve the login in a browser, and fetch the token, which is given out once."""
    import asyncio

    from elizacloud.client import TIMED_OUT, Client

    async with Client(url) as client:
        session = await client.open_cli_session()
        typer.echo(f"Open this page and approve the login with the code {session.user_code}:", err=True)
        typer.echo(f"\n  {session.browser_url}\n", err=True)
        if not as_json and sys.stderr.isatty():
            typer.launch(session.browser_url)
        try:
            async with asyncio.timeout(APPROVAL_SECONDS):
                while session.token is None:
                    if session.status in ("expired", "denied", "taken"):
                        raise Invalid(f"cannot sign in: the login is {session.status}; start it again")
                    await asyncio.sleep(POLL_SECONDS)
                    session = await client.poll_cli_session(session.session_id)
        except TimeoutError as error:
            raise Unavailable(
                f"cannot sign in: nobody approved the login in {APPROVAL_SECONDS / 60:.0f} minutes; start it again",
                code=TIMED_OUT,
            ) from error
    return session.token


def _checked_url(url: str, *, allow_http: bool) -> str:
    from elizacloud.settings import is_local_address

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise Invalid(f"cannot use {url!r} as a server: give https://host or http://127.0.0.1:8420")
    if parts.scheme == "http" and not is_local_address(parts.hostname) and not allow_http:
        raise Invalid(
            f"cannot sign in to {url}: plain http would show the token to the network; use https, or --allow-http"
        )
    return url.rstrip("/")
