"""What the relay itself shows a browser: a page that says where to get in, and the way onward after that. Pure."""

from __future__ import annotations

import html
from dataclasses import dataclass
from http import HTTPStatus

from elizacloud.relay.answers import ERROR_HEADER, challenge

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;color-scheme:light dark}}</style>
<h1>This agent is private</h1>
<p>{detail}</p>
<p>Open it from <a href="{url}" target="_top">{url}</a>, where you sign in.</p>
</html>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer for a browser; `lines` are its own header lines."""

    status: int
    code: str
    lines: tuple[str, ...] = ()
    body: bytes = b""

    def encode(self, *, head_only: bool, close: bool, edge_lines: bytes) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Length: {len(self.body)}",
            f"{ERROR_HEADER}: {self.code}" if self.status >= HTTPStatus.BAD_REQUEST else "",
            "Cache-Control: no-store",
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            *self.lines,
            "Connection: close" if close else "",
        ]
        head = "".join(f"{line}\r\n" for line in lines if line).encode("latin-1") + edge_lines + b"\r\n"
        return head if head_only else head + self.body


def sign_in_page(code: str, detail: str, url: str, frame_ancestors: str) -> Page:
    """The 401 of somebody who opened an agent's address. It needs nothing else: nothing more would be let through."""
    return Page(
        HTTPStatus.UNAUTHORIZED,
        code,
        (
            "Content-Type: text/html; charset=utf-8",
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
            f"form-action 'none'; {frame_ancestors}",
            challenge(code),
        ),
        _PAGE.format(detail=html.escape(detail), url=html.escape(url)).encode(),
    )
