"""What the relay itself answers: problem+json (RFC 9457) with a header that tells it apart from the agent's answers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from elizacloud.errors import Error
from elizacloud.relay.http1.head import BadMessage

ERROR_HEADER = "Elizacloud-Error"
"""Carries the stable code; an agent's own header of this name never passes."""


_CHALLENGES = {
    "no_credential": "",
    "malformed_credential": ', error="invalid_request"',
    "two_credentials": ', error="invalid_request"',
}
"""What WWW-Authenticate adds for a code (RFC 6750 section 3.1); for all others the token is invalid."""


class OwnAnswer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def code(self) -> str: ...

    def encode(self, *, head_only: bool, close: bool, edge_lines: bytes) -> bytes:
        """The whole message; without the body for HEAD. `edge_lines` are what the edge adds to every answer."""


class Answered(Error):
    """Ends a request with an answer that the relay has itself, good or bad."""

    def __init__(self, answer: OwnAnswer) -> None:
        super().__init__(answer.code)
        self.answer = answer


def challenge(code: str) -> str:
    """The WWW-Authenticate of a 401."""
    error = _CHALLENGES.get(code, ', error="invalid_token"')
    return f'WWW-Authenticate: Bearer realm="elizacloud"{error}'


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of our own. `detail` is a sentence for people: what cannot be done, why, what to do."""

    status: int
    code: str
    detail: str
    retry_after_seconds: float | None = None

    def encode(self, *, head_only: bool, close: bool, edge_lines: bytes = b"") -> bytes:
        title = _title(self.status)
        body = json.dumps(
            {"type": "about:blank", "title": title, "status": self.status, "code": self.code, "detail": self.detail},
            separators=(",", ":"),
        ).encode()
        lines = [
            f"HTTP/1.1 {self.status} {title}",
            "Content-Type: application/problem+json",
            f"Content-Length: {len(body)}",
            f"{ERROR_HEADER}: {self.code}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
        ]
        if self.status == HTTPStatus.UNAUTHORIZED:
            lines.append(challenge(self.code))
        if self.retry_after_seconds is not None:
            lines.append(f"Retry-After: {max(1, math.ceil(self.retry_after_seconds))}")
        if close:
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n").encode() + edge_lines + b"\r\n"
        return head if head_only else head + body


def answer_to(error: Error) -> OwnAnswer:
    if isinstance(error, Answered):
        return error.answer
    return Answer(error.status, error.reason, str(error), error.retry_after_seconds)


def answer_to_bad(message: BadMessage) -> Answer:
    return Answer(message.status, message.code, f"cannot read the request: {message}; correct the client")


def answer_to_lost(kind: str, reason: str) -> Answer:
    """The upstream, which is an agent or the API, ended the connection before its answer began."""
    if kind == "api":
        return Answer(502, "control_plane_unavailable", "cannot answer: the control plane closed the connection", 1)
    return Answer(502, "agent_refused", f"cannot reach the agent: {reason}; is it running and healthy?", 1)


def answer_to_late(kind: str, seconds: float) -> Answer:
    who, code = _who_is_late(kind)
    return Answer(504, code, f"cannot answer: the {who} did not begin its answer in {seconds:g} s")


def answer_to_full(kind: str, seconds: float) -> Answer:
    who, code = _who_is_late(kind)
    return Answer(504, code, f"cannot send the request on: the {who} took nothing of its body for {seconds:g} s")


def _who_is_late(kind: str) -> tuple[str, str]:
    return ("control plane", "api_timeout") if kind == "api" else ("agent", "agent_timeout")


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
