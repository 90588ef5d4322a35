"""One request to the API: credential, deadline, and foreign errors turned into ours in one place.

The token goes in the Authorization header only, and never along a redirect.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from yarl import URL

from elizacloud import errors
from elizacloud.errors import Error, Unavailable

UNREACHABLE = "unreachable"
"""`Error.reason` when nothing answered at the URL."""
TIMED_OUT = "timed_out"
"""`Error.reason` when a wait reached its deadline."""
CALL_SECONDS = 30.0
CONNECT_SECONDS = 10.0
CALL = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)


def _with_subclasses(error: type[Error]) -> Iterable[type[Error]]:
    yield error
    for subclass in error.__subclasses__():
        yield from _with_subclasses(subclass)


_BY_CODE = {error.code: error for error in _with_subclasses(Error)}
_BY_STATUS: dict[int, type[Error]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.NotFound,
    413: errors.Invalid,
    415: errors.Invalid,
    422: errors.Invalid,
    429: errors.TooMany,
    502: errors.Refused,
    503: errors.Unavailable,
    504: errors.Unavailable,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> Error:
    """The error that a problem+json answer (RFC 9457) tells of: by its code if it is one of ours, else by its status."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    code = problem.get("code") if isinstance(problem.get("code"), str) else None
    said = problem.get("detail") or problem.get("title")
    message = str(said) if said else f"cannot do this: the server answered with HTTP status {status}"
    retry_after = headers.get("Retry-After", "")
    return _BY_CODE.get(code or "", _BY_STATUS.get(status, Error))(
        message, code=code, retry_after_seconds=float(retry_after) if retry_after.isdigit() else None
    )


class Transport:
    """Requests to one server, over TCP or over the unix socket of its API."""

    def __init__(
        self, url: str, token: SecretStr | None, *, socket: Path | None = None, owner_id: str | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._socket = socket
        self._owner_id = owner_id
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        within_seconds: float = CALL_SECONDS,
    ) -> Any:
        """The answer's JSON, None when it has no body; raises the error that it tells of."""
        timeout = aiohttp.ClientTimeout(total=within_seconds, sock_connect=CONNECT_SECONDS)
        async with self.request(method, path, body=body, query=query, headers=headers, timeout=timeout) as answer:
            content = await answer.read()
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise self._not_ours() from error

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout = CALL,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that succeeded, to be read by the caller. A body is JSON, unless it is bytes or an iterator of bytes.

        Raises Unavailable with reason UNREACHABLE when nothing answers or the answer breaks off, and TIMED_OUT.
        """
        url = URL(f"{self.url}{path}", encoded=True).update_query(query or {})
        sent: dict[str, Any] = {}
        if body is not None:
            raw = isinstance(body, (bytes, bytearray)) or hasattr(body, "__aiter__")
            sent = {"data": body} if raw else {"json": body}
        try:
            async with self._opened().request(
                method, url, headers=headers, timeout=timeout, allow_redirects=False, **sent
            ) as answer:
                if answer.status >= 300:
                    if "Location" in answer.headers and answer.status < 400:
                        raise self._not_ours(f"it redirects to {answer.headers['Location']}")
                    raise error_of(answer.status, answer.headers, await answer.read())
                yield answer
        except TimeoutError as error:
            raise Unavailable(f"cannot get an answer from {self.url} in time: try again", code=TIMED_OUT) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"cannot reach {self.url}: {_reason(error)}; is elizacloud running there? (`elizacloud up` starts it)",
                code=UNREACHABLE,
            ) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {}
            if self._token is not None:
                headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
            if self._owner_id is not None:
                headers["Elizacloud-Owner"] = self._owner_id
            connector = aiohttp.UnixConnector(str(self._socket)) if self._socket else aiohttp.TCPConnector()
            self._session = aiohttp.ClientSession(
                connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _not_ours(self, why: str = "its answer is not JSON") -> Error:
        return Unavailable(f"cannot use {self.url}: {why}; is it the URL of an elizacloud?", code=UNREACHABLE)


def _reason(error: Exception) -> str:
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    return os.strerror(number) if number and number > 0 else str(error) or type(error).__name__
