"""The one place where what Headscale answers becomes our errors. Pure.

Up to 0.29 most of what the application refuses comes as 500 with a gRPC code 2 or 13 and a message (hscontrol/grpcv1.go,
v0.29.2), a missing node as 404 with code 5, a wrong key as 401 in plain text; 0.30 answers problem+json throughout
(hscontrol/api/v1/errors.go). A 404 or a page that Headscale did not write is somebody else's answer, never "absent".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from elizacloud.errors import Error, HeadscaleRefused, HeadscaleUnavailable

KEY_REFUSED = "headscale_key_refused"
"""The `reason` of the HeadscaleRefused that means "wrong or expired API key"."""

_GRPC_NOT_FOUND = 5
_GRPC_TRY_AGAIN = {4, 8, 14}  # deadline exceeded, resource exhausted, unavailable
# Its own database in trouble looks like any other refusal (code 2); these are the words of SQLite and of Go's dialer.
_TROUBLE = ("database is locked", "disk is full", "disk i/o", "sqlite_busy", "connection refused", "context deadline")
_POLICY_ABSENT = "acl policy not found"
_POLICY_IN_A_FILE = "update is disabled for modes other than 'database'"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `value` is the JSON object of the body, None when the body is none."""

    status: int
    value: Mapping[str, Any] | None
    location: str = ""
    retry_after_seconds: float | None = None
    server_time: datetime | None = None
    """By its Date header, to the second."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300 and self.value is not None

    @property
    def absent(self) -> bool:
        """Headscale itself said that there is no such thing."""
        if self.status != 404 or self.value is None:
            return False
        return self.value.get("code") == _GRPC_NOT_FOUND or self.value.get("status") == 404

    @property
    def policy_absent(self) -> bool:
        return self.status == 500 and _POLICY_ABSENT in self.message.lower()

    @property
    def message(self) -> str:
        """Headscale's own words, without line breaks and shortened; empty when it gave none."""
        if self.value is None:
            return ""
        parts = [str(self.value.get("message") or self.value.get("detail") or "")]
        details = self.value.get("errors")
        for detail in details if isinstance(details, list) else []:
            if isinstance(detail, Mapping) and isinstance(detail.get("message"), str):
                parts.append(detail["message"])
        return " ".join(": ".join(part for part in parts if part).split())[:300]


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    retry_after = headers.get("Retry-After", "")
    return Answer(
        status,
        value if isinstance(value, dict) else None,
        headers.get("Location", ""),
        float(retry_after) if retry_after.isdecimal() else None,
        _date(headers.get("Date", "")),
    )


def error_of(answer: Answer, doing: str, url: str) -> Error:
    """The error for an answer that is not the wanted one; `doing` completes "cannot ...", `url` is Headscale's."""
    cannot = f"cannot {doing}: Headscale at {url}"
    status, message = answer.status, answer.message
    if status == 401:
        return HeadscaleRefused(
            f"{cannot} does not accept the API key; make one with `headscale apikeys create` and give it as"
            " ELIZACLOUD_HEADSCALE_API_KEY",
            code=KEY_REFUSED,
        )
    if 300 <= status < 400:
        return HeadscaleRefused(
            f"{cannot} redirects to {answer.location or 'another address'}, which is never followed with a key;"
            " set ELIZACLOUD_HEADSCALE_API_URL to the final address"
        )
    if status in (408, 425, 429, 502, 503, 504) or (status >= 500 and _is_trouble(answer)):
        return HeadscaleUnavailable(
            f"{cannot} answers {status}{f' ({message})' if message else ''}; it is tried again",
            retry_after_seconds=answer.retry_after_seconds,
        )
    if _POLICY_IN_A_FILE in message:
        return HeadscaleRefused(f"{cannot} keeps its policy in a file; set policy.mode to database in its config.yaml")
    if answer.value is None:
        return HeadscaleRefused(
            f"{cannot} answers {status} and no JSON, so it may not be Headscale; check ELIZACLOUD_HEADSCALE_API_URL"
        )
    return HeadscaleRefused(f"{cannot} refuses: {message or f'it answers {status}'}")


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def _is_trouble(answer: Answer) -> bool:
    """A 5xx that asking again may cure: no reason given, or one that is about the server and not the request."""
    if answer.value is None or answer.value.get("code") in _GRPC_TRY_AGAIN:
        return True
    message = answer.message.lower()
    if "code" not in answer.value:
        # 0.30 gives every refusal a status of its own, so that its 500 is a fault.
        return _POLICY_IN_A_FILE not in message
    return not message or any(words in message for words in _TROUBLE)
