"""Every error that someone catches, in one tree.

    Error
    ├── Invalid               422  a value that cannot be accepted, ever
    ├── Unauthenticated       401  no credential, or one that we do not know
    ├── Forbidden             403  a known caller who may not do this
    ├── NotFound              404  absent, or somebody else's
    ├── Conflict              409  the present state does not allow it
    ├── TooMany               429  a budget is used up; try later
    ├── Unavailable           503  something we need did not answer; nothing is known about its state
    │   ├── HeadscaleUnavailable
    │   ├── RuntimeUnavailable
    │   ├── TailnetUnavailable
    │   ├── StoreUnavailable
    │   └── LeaseLost
    ├── Refused               502  something we need answered "no"; asking again will not help
    │   ├── HeadscaleRefused
    │   └── RuntimeRefused
    └── Misconfigured         500  a setting, file or machine that an operator has to change

`code` is stable and documented; `status` is the HTTP status that api/ and relay/ answer with. Messages say what cannot
be done, why, and what to do. An adapter maps foreign errors onto these in one place, `raise ... from`.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """The base of all errors that are ours. `str(error)` is a sentence for people."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, code: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason = code or self.code
        self.retry_after_seconds = retry_after_seconds


class Invalid(Error):
    code, status = "invalid", 422


class Unauthenticated(Error):
    code, status = "unauthenticated", 401


class Forbidden(Error):
    code, status = "forbidden", 403


class NotFound(Error):
    code, status = "not_found", 404


class Conflict(Error):
    code, status = "conflict", 409


class TooMany(Error):
    code, status = "too_many", 429


class Unavailable(Error):
    code, status = "unavailable", 503


class HeadscaleUnavailable(Unavailable):
    code = "headscale_unavailable"


class RuntimeUnavailable(Unavailable):
    code = "runtime_unavailable"


class TailnetUnavailable(Unavailable):
    code = "tailnet_unavailable"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class LeaseLost(Unavailable):
    """Another control plane does this by now: leave it, and do nothing more."""

    code = "lease_lost"


class Refused(Error):
    code, status = "refused", 502


class HeadscaleRefused(Refused):
    code = "headscale_refused"


class RuntimeRefused(Refused):
    code = "runtime_refused"


class Misconfigured(Error):
    code, status = "misconfigured", 500
