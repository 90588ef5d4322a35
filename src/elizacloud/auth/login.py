"""Logging a command line in: it opens a session, a person approves its user code in a browser, and it takes one token.

Modelled on the OAuth 2.0 device grant (RFC 8628): the session id is the secret of the command line, the user code is what the
person compares. The page asks the person for a token of their own, so that nothing a browser sends by itself approves.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import SecretStr

from elizacloud.auth.access import Action, check_action
from elizacloud.auth.issuing import Tokens
from elizacloud.errors import Conflict, NotFound, TooMany
from elizacloud.model import Principal
from elizacloud.store import CliSession, Store

LIFETIME = timedelta(minutes=10)
OPEN_MAX = 1000
"""Anyone can open a session, so their number is bounded."""
# RFC 8628 section 6.1: no vowels, so that no code is a word.
_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
_TRIES = 5


class Status(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    TAKEN = "taken"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Login:
    """A session as the command line sees it. `token` is there in exactly one answer."""

    status: Status
    user_code: str
    expires_at: datetime
    token: SecretStr | None = None


class Logins:
    def __init__(self, store: Store, tokens: Tokens, now: Callable[[], datetime]) -> None:
        self._store = store
        self._tokens = tokens
        self._now = now
        self._opened: deque[datetime] = deque()

    async def open(self) -> tuple[SecretStr, Login]:
        """A new session and its id, which is a secret. Raises TooMany when very many are open."""
        now = self._now()
        while self._opened and self._opened[0] <= now - LIFETIME:
            self._opened.popleft()
        if len(self._opened) >= OPEN_MAX:
            raise TooMany("cannot begin a login: too many are open; try again later", retry_after_seconds=60)
        self._opened.append(now)
        session_id = SecretStr(secrets.token_urlsafe(32))
        for attempt in range(_TRIES):
            session = CliSession(_sha256(session_id), _new_code(), created_at=now, expires_at=now + LIFETIME)
            try:
                await self._store.sessions.create(session)
                break
            except Conflict:
                if attempt == _TRIES - 1:
                    raise
        return session_id, Login(Status.PENDING, session.user_code, session.expires_at)

    async def poll(self, session_id: SecretStr) -> Login:
        """How it stands; the first call after the approval gets the token. NotFound `session_not_found`."""
        try:
            session = await self._store.sessions.get(_sha256(session_id))
        except NotFound as error:
            raise NotFound(
                "cannot find this login: it has expired or never was; start it again", code="session_not_found"
            ) from error
        taken = await self._store.sessions.take(session.sha256) if session.approved_at is not None else None
        if taken is not None and taken.owner_id is not None:
            issued = await self._tokens.issue(taken.owner_id, f"login {taken.created_at:%Y-%m-%d %H:%M}", by=None)
            return Login(Status.APPROVED, session.user_code, session.expires_at, issued.value)
        return Login(self._status(session), session.user_code, session.expires_at)

    async def approve(self, user_code: str, principal: Principal, owner_id: str) -> None:
        """Let the command line that shows this code act for the owner. The caller checked that it may act for them.

        Raises Forbidden for a token that manages nothing, NotFound, and Conflict `approved_before`.
        """
        check_action(principal, Action.MANAGE)
        await self._store.sessions.approve(_normal(user_code), owner_id)

    def _status(self, session: CliSession) -> Status:
        if session.taken_at is not None or session.approved_at is not None:
            return Status.TAKEN
        return Status.EXPIRED if session.expires_at <= self._now() else Status.PENDING


def _new_code() -> str:
    letters = "".join(secrets.choice(_CODE_ALPHABET) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def _normal(user_code: str) -> str:
    """As it was made, however the person wrote it."""
    letters = "".join(character for character in user_code.upper() if character in _CODE_ALPHABET)
    return f"{letters[:4]}-{letters[4:]}"


def _sha256(session_id: SecretStr) -> str:
    return hashlib.sha256(session_id.get_secret_value().encode()).hexdigest()
