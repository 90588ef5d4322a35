"""One file over HTTPS, resumable, verified: the file with the expected SHA-256, or nothing.

What is there of a broken download stays beside, under a name that nobody runs, with the validator (RFC 9110, section 8.8)
of what it is a part of. It is resumed with If-Range, so that a file that changed meanwhile comes whole; whatever a server
does, only the digest of the finished file decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin, urlsplit

import aiohttp

from elizacloud.binaries.errors import DownloadFailed
from elizacloud.binaries.progress import Progress, Update
from elizacloud.processes import Backoff

CHUNK_BYTES = 1024 * 1024
REDIRECTS = 5
ATTEMPTS = 4
TIMEOUT = aiohttp.ClientTimeout(total=1800, sock_connect=5, sock_read=20)


@dataclass(frozen=True)
class Remote:
    label: str
    url: str
    sha256: str
    max_bytes: int


class _Transient(Exception):
    """This attempt failed, the next one may not."""


async def download(
    remote: Remote,
    partial: Path,
    *,
    session: aiohttp.ClientSession,
    progress: Progress,
    timeout: aiohttp.ClientTimeout = TIMEOUT,
    backoff: Backoff = Backoff(first_seconds=0.5),  # noqa: B008 - frozen
) -> Path:
    """Returns `partial` once it is the whole, verified file. Raises DownloadFailed; then `partial` is not to be used.

    The caller holds a lock: nobody else writes `partial`.
    """
    transfer = _Transfer(remote, partial, session, timeout, progress)
    try:
        await _attempts(transfer, remote, partial, backoff)
    except BaseException:
        transfer.tell("failed")
        raise
    transfer.tell("done")
    return partial


async def _attempts(transfer: _Transfer, remote: Remote, partial: Path, backoff: Backoff) -> None:
    reason = ""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await transfer.run()
            await _verify(remote, partial)
        except _Transient as error:
            reason = str(error)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise _failed(remote, f"no connection ({error})") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or "it stalled"
        except OSError as error:
            raise _failed(remote, f"cannot write {partial} ({error.strerror})") from error
        else:
            transfer.forget()
            return
        if attempt < ATTEMPTS:
            await asyncio.sleep(backoff.delay_seconds(attempt, 0))
    raise _failed(remote, f"{reason}, also at the last of {ATTEMPTS} attempts")


async def _verify(remote: Remote, partial: Path) -> None:
    actual = await asyncio.to_thread(_sha256, partial)
    if not hmac.compare_digest(actual, remote.sha256.lower()):
        partial.unlink()
        raise _Transient(f"the file has the SHA-256 {actual} and not {remote.sha256}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _failed(remote: Remote, reason: str) -> DownloadFailed:
    return DownloadFailed(f"cannot download {remote.url}: {reason}")


class _Transfer:
    """Brings `partial` to its end, from where it is."""

    def __init__(
        self,
        remote: Remote,
        partial: Path,
        session: aiohttp.ClientSession,
        timeout: aiohttp.ClientTimeout,
        progress: Progress,
    ) -> None:
        self._remote = remote
        self._partial = partial
        self._origin = partial.with_name(f"{partial.name}.origin")
        self._session = session
        self._timeout = timeout
        self._progress = progress
        self._began = False
        self._done = 0
        self._total: int | None = None

    async def run(self) -> None:
        offset, validator = self._resumable()
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        async with contextlib.AsyncExitStack() as stack:
            answer = await self._get(stack, headers)
            if answer.status == 416 and offset:
                return  # nothing is left to fetch, or the file is another one: the digest tells
            if answer.status == 200:
                offset = 0
                self._begin(answer)
            elif answer.status == 206 and offset:
                pass  # the rest, or what claims to be
            elif answer.status in (408, 425, 429) or answer.status >= 500:
                raise _Transient(f"the server answered {answer.status}")
            else:
                raise _failed(self._remote, f"the server answered {answer.status}")
            await self._receive(answer, offset)

    def tell(self, state: Literal["running", "done", "failed"]) -> None:
        """Silent about a failure when not even an answer came."""
        if state == "failed" and not self._began:
            return
        self._began = True
        self._progress(Update(self._remote.label, self._done, self._total, "bytes", state=state))

    def forget(self) -> None:
        self._origin.unlink(missing_ok=True)

    def _resumable(self) -> tuple[int, str]:
        """How much is there and the validator of what it is a part of; (0, "") to begin anew."""
        try:
            origin = json.loads(self._origin.read_text())
            if origin["url"] == self._remote.url and origin["validator"]:
                return self._partial.stat().st_size, str(origin["validator"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    async def _get(self, stack: contextlib.AsyncExitStack, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Follow redirects by hand: never from https to http, which would show and hand over the download to anyone."""
        url = self._remote.url
        for _ in range(REDIRECTS + 1):
            answer = await stack.enter_async_context(
                self._session.get(url, headers=headers, allow_redirects=False, timeout=self._timeout)
            )
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            target = urljoin(url, answer.headers.get("Location", ""))
            if urlsplit(target).scheme not in ("https", urlsplit(self._remote.url).scheme):
                raise _failed(self._remote, f"it leads to {target}, which is not https")
            url = target
        raise _failed(self._remote, f"more than {REDIRECTS} redirects")

    def _begin(self, answer: aiohttp.ClientResponse) -> None:
        # A weak ETag must not be used for ranges (RFC 9110, section 13.1.5).
        etag = answer.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        self._partial.unlink(missing_ok=True)
        self._origin.write_text(json.dumps({"url": self._remote.url, "validator": validator}))

    async def _receive(self, answer: aiohttp.ClientResponse, offset: int) -> None:
        self._done = offset
        self._total = None if answer.content_length is None else offset + answer.content_length
        self._check_size(self._total or 0)
        with self._partial.open("ab") as file:
            self.tell("running")
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                self._done += len(chunk)
                self._check_size(self._done)
                await asyncio.to_thread(file.write, chunk)
                self.tell("running")

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._remote.max_bytes:
            self._partial.unlink(missing_ok=True)
            raise _failed(self._remote, f"it is larger than {self._remote.max_bytes} bytes")
