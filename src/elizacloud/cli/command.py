"""What all commands share: how an error becomes one sentence on standard error and an exit code."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, ParamSpec

import typer

from elizacloud import errors

P = ParamSpec("P")

FAILED = 1
NOT_FOUND = 3
NOT_ALLOWED = 4
UNAVAILABLE = 5
TIMED_OUT = 6
INTERRUPTED = 130

EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 not found; 4 not signed in or not allowed; "
    "5 server not reached or not available; 6 timed out; 130 interrupted."
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; errors as a problem object on standard error.")]


def exit_code_of(error: errors.Error) -> int:
    if error.reason == "timed_out":
        return TIMED_OUT
    match error:
        case errors.NotFound():
            return NOT_FOUND
        case errors.Unauthenticated() | errors.Forbidden():
            return NOT_ALLOWED
        case errors.Unavailable():
            return UNAVAILABLE
        case _:
            return FAILED


def command(function: Callable[P, Coroutine[Any, Any, None] | None]) -> Callable[P, None]:
    """Run the function, awaiting it if it is async, and end the process as errors of ours ask for."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json", False))
        try:
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                import asyncio

                asyncio.run(result)
        except errors.Error as error:
            tell(error, as_json=as_json)
            raise typer.Exit(exit_code_of(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough. Python would complain once more when it flushes at exit.
            sys.stdout = None
            raise typer.Exit(0) from None

    return run


def tell(error: errors.Error, *, as_json: bool) -> None:
    """The error on standard error: a sentence, or the fields of RFC 9457."""
    if as_json:
        problem: dict[str, Any] = {
            "title": type(error).__name__,
            "status": error.status,
            "code": error.reason,
            "detail": str(error),
        }
        typer.echo(json.dumps(problem), err=True)
    else:
        typer.echo(f"elizacloud: {error}", err=True)
