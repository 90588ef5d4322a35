"""HTTP to Headscale: one session, a few calls at a time, a deadline on each, the key in no log, URL or repr."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable
from elizacloud.headscale.answers import Answer, read_answer

CONCURRENT_CALLS = 4
"""Each call costs Headscale a bcrypt of 50 to 70 ms, and a new key is serialised by its database: more only queue there."""

# Shorter than the 30 s after which Headscale closes an idle connection, so that we never send into a closing one.
_KEEP_ALIVE_SECONDS = 15.0


class HeadscaleHttp:
    """Calls by method and path. Raises HeadscaleUnavailable when there is no answer within the deadline."""

    def __init__(self, url: str, key: SecretStr, *, deadline_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._deadline_seconds = deadline_seconds
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<HeadscaleHttp {self.url}>"

    async def call(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        with_key: bool = True,
    ) -> Answer:
        """One request and its whole answer, whatever its status; `doing` completes the "cannot ..." of an error."""
        headers = {"Accept": "application/json"}
        if with_key:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        try:
            async with (
                asyncio.timeout(self._deadline_seconds),
                self._open().request(
                    method,
                    self.url + path,
                    params=query,
                    data=None if body is None else json.dumps(body).encode(),
                    headers=headers if body is None else {**headers, "Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                return read_answer(response.status, response.headers, await response.read())
        except TimeoutError as error:
            raise HeadscaleUnavailable(
                f"cannot {doing}: Headscale at {self.url} did not answer within {self._deadline_seconds:g} s;"
                " check that it runs and is not overloaded"
            ) from error
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError) as error:
            raise HeadscaleRefused(
                f"cannot {doing}: the TLS certificate of Headscale at {self.url} is not accepted ({error});"
                " use one that this machine trusts (SSL_CERT_FILE names a private authority)"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise HeadscaleUnavailable(
                f"cannot {doing}: Headscale at {self.url} cannot be reached ({_reason(error)}); check that it runs and"
                " that ELIZACLOUD_HEADSCALE_API_URL is right"
            ) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The limit of connections is the limit of calls: the rest wait for one, within their deadline.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONCURRENT_CALLS, keepalive_timeout=_KEEP_ALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
