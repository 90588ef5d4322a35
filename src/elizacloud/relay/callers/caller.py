"""Who asks for an agent, once that is known, and what has to hold for their request to go on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """How a caller showed who they are; agents are told."""

    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    JWT = "jwt"
    SESSION = "session"
    TICKET = "ticket"


class Credential(NamedTuple):
    """`token_id` is the id that the table must still have, if there is one."""

    kind: Kind
    token_id: str | None
    expires_at: datetime | None
    jwt: str | None = None

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind.value!r}, token_id={self.token_id!r})"


class Caller(NamedTuple):
    """Who may reach an agent, seen from that agent."""

    owner_id: str
    """The agent's owner, whose budget the request uses."""
    is_owner: bool
    """The credential is the owner's own (or a platform's that acts for them), not one that only reaches agents."""
    credential: Credential
