"""Who asks, and may they reach this agent: the rules of auth/access.py on a worker's own copy of what the control plane knows.

One place for every method and for upgrades. credentials.py says which credential counts, origins.py which pages may use
a browser's session; here it is looked up. What was granted once is remembered until the table changes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from elizacloud.auth.access import Action, check_agent, principal_of
from elizacloud.auth.jwt import UnknownKey, Verifier, looks_like_jwt
from elizacloud.auth.tokens import parse_bearer, token_sha256
from elizacloud.errors import NotFound, Unauthenticated, Unavailable
from elizacloud.model import Principal, Scope, TokenKind, utc_now
from elizacloud.relay.callers import query
from elizacloud.relay.callers.caller import Caller, Credential, Kind
from elizacloud.relay.callers.credentials import (
    Carried,
    Shown,
    Source,
    carried_by,
    claimed_issuer,
    looks_ours,
    misplaced,
    shown,
)
from elizacloud.relay.callers.origins import Origins
from elizacloud.relay.edge import Request
from elizacloud.relay.front import ToAgent
from elizacloud.relay.http1.head import value_of
from elizacloud.upstreams import KnownToken, Redemption, UpstreamTable

_OWNERS = frozenset({Scope.OWNER, Scope.SERVICE})
_MAX_GRANTED = 2048
_LONGEST_GRANTED_BYTES = 8192
"""A longer credential is looked up each time, so that what is remembered stays under some 16 MB, whoever sends what."""
_ASK_GAP = timedelta(seconds=10)


_Granted = dict[tuple[bytes | Shown | None, str, bytes | None], Caller]
"""By the credential as it was sent, the agent and the named owner."""


class Link(Protocol):
    """What the decision rests on, and whether it may still rest on it."""

    @property
    def table(self) -> UpstreamTable: ...

    @property
    def tokens_honoured(self) -> bool: ...

    def tell_unknown_key(self, issuer: str) -> None: ...


class Ticket(NamedTuple):
    """The caller is known once this was redeemed."""

    value: str
    named_owner: str | None


class Access:
    def __init__(self, link: Link, origins: Origins, now: Callable[[], datetime] = utc_now) -> None:
        self._link = link
        self._origins = origins
        self._verifier = Verifier(lambda: link.table.issuers, now)
        self._now = now
        self._ask_again_at: dict[str, datetime] = {}
        """By trusted issuer."""
        self._epoch, self._revision = "", -1
        """Of the table that what was granted rests on."""
        self._bearers: _Granted = {}
        self._others: _Granted = {}
        """Sessions, and bearers among subprotocols."""
        self._grants = 0
        """Counts the tables, so that a grant that is kept with a head is known to be of this one."""

    def check(self, request: Request, front: ToAgent) -> Caller | Ticket:
        """The caller, who may reach the agent; the request is told what its Authorization and its answer's lines are.

        Raises Unauthenticated, Forbidden, Invalid, NotFound (also for somebody else's agent), and Unavailable when
        this worker has not heard from the control plane for so long that it cannot tell.
        """
        if not self._link.tokens_honoured:
            raise Unavailable(
                "cannot check the credential: the control plane has not been heard for too long; try again later",
                code="control_plane_unavailable",
                retry_after_seconds=5,
            )
        table = self._link.table
        if table.revision != self._revision or table.epoch != self._epoch:
            self._epoch, self._revision = table.epoch, table.revision
            self._grants += 1
            self._bearers.clear()
            self._others.clear()
        kept = request.head.kept.get(self)
        if kept is not None and kept[0] == self._grants:
            caller: Caller = kept[1]
            if caller.credential.expires_at is None or not self._expired(caller.credential):
                return caller
        carried = carried_by(request.head)
        if carried.protocols is None and carried.for_agent is None and query.TICKET_NAME not in front.target:
            seen = self._bearers.get((carried.authorization, front.agent_id, carried.owner))
            if seen is not None and not self._expired(seen.credential):
                return seen
        return self._look_up(request, front, carried)

    def redeemed(self, ticket: Ticket, redemption: Redemption, front: ToAgent) -> Caller:
        """The caller that a ticket stood for. Raises as `check` does."""
        token = redemption.token
        principal = principal_of(token, self._now(), kind=TokenKind.SESSION)
        credential = Credential(Kind.TICKET, token.parent_id, token.expires_at)
        if (error := self.ended(credential)) is not None:
            raise error
        return self._admit(principal, credential, front, ticket.named_owner)

    def ended(self, credential: Credential) -> Unauthenticated | None:
        """Why a request that was let in with it may not go on; None when it may."""
        table = self._link.table
        if self._expired(credential):
            return Unauthenticated("cannot go on: the credential has expired", code="expired_token")
        if credential.token_id is not None and credential.token_id not in table.token_ids:
            return Unauthenticated("cannot go on: the credential was revoked", code="invalid_token")
        if credential.jwt is not None:
            try:
                self._verifier.verify(credential.jwt)
            except Unauthenticated as error:
                return error
        return None

    def owner_of(self, agent_id: str) -> str:
        """Its owner; empty for an agent that is not known."""
        table = self._link.table
        agent = table.upstreams.get(agent_id) or table.agents.get(agent_id)
        return "" if agent is None else agent.owner_id

    def is_ours(self, text: str) -> bool:
        """It is, or claims to be, a credential for us: no agent may see it."""
        return looks_ours(text) or (looks_like_jwt(text) and claimed_issuer(text) in self._link.table.issuers)

    def _look_up(self, request: Request, front: ToAgent, carried: Carried) -> Caller | Ticket:
        if carried.for_agent is not None and self.is_ours(
            carried.for_agent.decode("latin-1").partition(" ")[2].strip()
        ):
            raise misplaced("Elizacloud-Agent-Authorization is for what the agent itself knows")
        found = shown(carried, front, stream=_is_stream(request), is_ours=self.is_ours)
        named_owner = None if carried.owner is None else carried.owner.decode("latin-1")
        request.agent_authorization = found.authorization
        if found.source is Source.TICKET:
            return Ticket(found.value, named_owner)
        if found.source is Source.COOKIE:
            request.edge_lines += self._origins.check_cookie(request)
        by_bearer = found.source is Source.BEARER
        granted = self._bearers if by_bearer else self._others
        key = (carried.authorization if by_bearer else found, front.agent_id, carried.owner)
        caller = granted.get(key)
        if caller is None or self._expired(caller.credential):
            principal, credential = self._known(found)
            caller = self._admit(principal, credential, front, named_owner)
            sent_bytes = len(carried.authorization or b"") + len(carried.owner or b"") + len(found.value)
            if sent_bytes <= _LONGEST_GRANTED_BYTES:
                if len(granted) >= _MAX_GRANTED:
                    granted.clear()
                granted[key] = caller
        if by_bearer:
            request.head.kept[self] = self._grants, caller
        return caller

    def _known(self, found: Shown) -> tuple[Principal, Credential]:
        """Who the credential stands for. Raises Unauthenticated."""
        value = parse_bearer(found.value).get_secret_value() if found.source is Source.BEARER else found.value
        if found.source is not Source.COOKIE and looks_like_jwt(value):
            return self._of_jwt(value)
        # The look-up is by hash, so its timing tells nothing about any token's value.
        token = self._link.table.tokens.get(token_sha256(value))
        if value.startswith("ect_"):
            raise misplaced("a ticket is exchanged for a session, or opens one WebSocket or event stream")
        kind = TokenKind.SESSION if found.source is Source.COOKIE else TokenKind.API
        if token is not None and token.kind is not kind:
            raise misplaced("a session is a cookie, and a token is a bearer")
        principal = principal_of(token, self._now(), kind=kind)
        told = Kind.SESSION if kind is TokenKind.SESSION else Kind.TOKEN
        return principal, Credential(told, principal.token_id, principal.expires_at)

    def _of_jwt(self, value: str) -> tuple[Principal, Credential]:
        try:
            claims = self._verifier.verify(value)
        except UnknownKey as error:
            self._ask_for_key(error.issuer)
            raise
        parent: KnownToken | None = None
        if claims.parent_id is not None:
            parent = self._link.table.token_ids.get(claims.parent_id)
            principal_of(parent, self._now())
        scopes = frozenset({Scope.RELAY if claims.own else Scope.OWNER})
        principal = Principal(claims.token_id, claims.owner_id, scopes, claims.agent_id, claims.expires_at)
        expires_at = claims.expires_at
        if parent is not None and parent.expires_at is not None:
            expires_at = min(expires_at, parent.expires_at)
        return principal, Credential(Kind.JWT, claims.parent_id, expires_at, value)

    def _ask_for_key(self, issuer: str) -> None:
        """The control plane looks for it, so that the next try can succeed; anybody can send such a token, so not often."""
        now = self._now()
        if now >= self._ask_again_at.get(issuer, now):
            self._ask_again_at[issuer] = now + _ASK_GAP
            self._link.tell_unknown_key(issuer)

    def _admit(self, principal: Principal, credential: Credential, front: ToAgent, named_owner: str | None) -> Caller:
        owner_id = self.owner_of(front.agent_id)
        if not owner_id:
            raise NotFound("cannot find this agent: check its id and the token's owner", code="agent_not_found")
        check_agent(principal, Action.REACH, agent_id=front.agent_id, agent_owner_id=owner_id, named_owner=named_owner)
        return Caller(owner_id, not principal.scopes.isdisjoint(_OWNERS), credential)

    def _expired(self, credential: Credential) -> bool:
        return credential.expires_at is not None and credential.expires_at <= self._now()


def _is_stream(request: Request) -> bool:
    """A ticket is for these: a WebSocket, or an EventSource."""
    head = request.head
    if head.method != b"GET":
        return False
    return value_of(head.fields, b"upgrade") is not None or b"text/event-stream" in (
        value_of(head.fields, b"accept") or b""
    )
