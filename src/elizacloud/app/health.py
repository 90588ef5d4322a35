"""`python -m elizacloud.app.health WHERE`: whether a part of the cloud answers, for the health checks of containers.

Run every few seconds, so it imports the standard library alone. WHERE is a unix socket's path or an http:// URL.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

ANSWER_SECONDS = 4.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def look(where: str, path: str, *, any_answer: bool) -> str | None:
    """Why it is not healthy, None when it is: it answered 2xx, or with `any_answer` anything at all."""
    connection: http.client.HTTPConnection
    if where.startswith("/"):
        connection = _UnixConnection(where)
    else:
        connection = http.client.HTTPConnection(urlsplit(where).netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{where} does not answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return None if any_answer or 200 <= status < 300 else f"{where}{path} answers {status}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit with 0 when it is healthy, else with 1 and the reason."""
    parser = argparse.ArgumentParser(prog="python -m elizacloud.app.health", description=__doc__)
    parser.add_argument("where", help="a unix socket's path, or http://host:port")
    parser.add_argument("--path", default="/healthz", help="what to ask for")
    parser.add_argument(
        "--any-answer", action="store_true", help="an error is healthy, too: a relay's while the control plane is down"
    )
    given = parser.parse_args(arguments)
    if (wrong := look(given.where, given.path, any_answer=given.any_answer)) is not None:
        sys.exit(wrong)


if __name__ == "__main__":
    main()
