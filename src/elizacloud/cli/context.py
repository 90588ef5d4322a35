"""Which server the CLI speaks to and with which token: environment first, then the context file that `login` writes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elizacloud.errors import Misconfigured, Unauthenticated
from elizacloud.files import replace_private

if TYPE_CHECKING:
    from pydantic import SecretStr

    from elizacloud.client import Client

URL_VARIABLE = "ELIZACLOUD_URL"
TOKEN_VARIABLE = "ELIZACLOUD_TOKEN"  # noqa: S105 - a variable's name
DEFAULT_URL = "http://127.0.0.1:8420"


@dataclass(frozen=True)
class Context:
    """A server and a token; `source` says where the token came from."""

    url: str
    token: SecretStr | None
    source: str


def context_file() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir("elizacloud")) / "context.json"


def load_context() -> Context:
    """The context in force; the token is None when there is none anywhere. Misconfigured when the file is damaged."""
    from pydantic import SecretStr

    url, token = os.environ.get(URL_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    saved = _read(context_file())
    if saved is not None and url and url.rstrip("/") != saved[0]:
        # A token is for the server that gave it out: it must not be shown to another one.
        saved = None
    if token:
        return Context((url or (saved[0] if saved else DEFAULT_URL)).rstrip("/"), SecretStr(token), TOKEN_VARIABLE)
    if saved is not None:
        return Context(saved[0], SecretStr(saved[1]), str(context_file()))
    return Context((url or DEFAULT_URL).rstrip("/"), None, "nowhere")


def save_context(url: str, token: SecretStr) -> Path:
    """Write the context file, 0600 in a 0700 directory, as a whole."""
    path = context_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(path, json.dumps({"url": url.rstrip("/"), "token": token.get_secret_value()}))
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror}; set {TOKEN_VARIABLE} instead") from error
    return path


def forget_context() -> bool:
    """Remove the context file; False when there was none."""
    try:
        context_file().unlink()
    except FileNotFoundError:
        return False
    return True


def connect(*, owner_id: str | None = None) -> Client:
    """A client of the server in force; Unauthenticated when there is no token for it."""
    from elizacloud.client import Client

    context = load_context()
    if context.token is None:
        raise Unauthenticated(
            f"cannot call {context.url} without a token: run `elizacloud login`, or set {URL_VARIABLE} and {TOKEN_VARIABLE}",
            code="no_credential",
        )
    return Client(context.url, context.token, owner_id=owner_id)


def _read(path: Path) -> tuple[str, str] | None:
    try:
        saved = json.loads(path.read_text())
        return str(saved["url"]), str(saved["token"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"cannot read {path}: it is damaged; run `elizacloud login` again") from error
