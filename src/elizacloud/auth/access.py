"""The access rules, as pure functions: the API and every relay worker decide by these and nothing else.

- A token acts for its own owner. A service token may name another one with the `Elizacloud-Owner` header.
- A token bound to one agent reaches that agent and nothing else.
- Scope `relay` reaches agents; scopes `owner` and `service` also manage them.
- Somebody else's agent does not exist (NotFound), so that nobody learns which ids are taken.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum

from elizacloud.errors import Forbidden, Invalid, NotFound, Unauthenticated
from elizacloud.model import ApiToken, Principal, Scope, TokenKind
from elizacloud.upstreams import KnownToken

OWNER_HEADER = "Elizacloud-Owner"
OWNER_ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._:@|+-]{0,127}$"
_OWNER_ID = re.compile(OWNER_ID_PATTERN.removesuffix("$"))


class Action(StrEnum):
    """What a caller wants to do: send a request to an agent, or create, see, change and delete agents and tokens."""

    REACH = "reach"
    MANAGE = "manage"


def checked_owner_id(owner_id: str) -> str:
    """Return it; raise Invalid unless it is 1 to 128 letters, digits and ._:@|+- with a letter or digit first."""
    if _OWNER_ID.fullmatch(owner_id) is None:
        raise Invalid(
            "cannot use this owner id: give 1 to 128 letters, digits or any of ._:@|+- with a letter or digit first",
            code="invalid_owner",
        )
    return owner_id


def principal_of(token: KnownToken | ApiToken | None, now: datetime, *, kind: TokenKind = TokenKind.API) -> Principal:
    """Who holds this token; raise Unauthenticated when it is unknown (None), of another kind, revoked or expired.

    A session counts as a cookie and an API token as a bearer: whoever reads a credential says which kind it looks for.
    """
    if token is None or token.kind is not kind or (isinstance(token, ApiToken) and token.revoked_at is not None):
        raise Unauthenticated(
            "cannot accept this token: it is unknown or was revoked; create a new one", code="invalid_token"
        )
    token_id = token.id if isinstance(token, ApiToken) else token.token_id
    principal = Principal(token_id, token.owner_id, token.scopes, token.agent_id, token.expires_at)
    check_not_expired(principal, now)
    return principal


def check_not_expired(principal: Principal, now: datetime) -> None:
    """Raise Unauthenticated when the principal's token has expired; for principals that are kept for a while."""
    if principal.expires_at is not None and principal.expires_at <= now:
        raise Unauthenticated("cannot accept this token: it has expired; create a new one", code="expired_token")


def acting_owner(principal: Principal, named_owner: str | None) -> str:
    """The owner that the caller acts for; Forbidden when it names another one without scope `service`."""
    if named_owner is None or named_owner == principal.owner_id:
        return principal.owner_id
    if Scope.SERVICE not in principal.scopes:
        raise Forbidden(
            f"cannot act for another owner: only a service token may name one in {OWNER_HEADER}",
            code="owner_not_allowed",
        )
    return checked_owner_id(named_owner)


def check_action(principal: Principal, action: Action) -> None:
    """Raise Forbidden unless the token's scopes and binding allow this kind of action at all."""
    if action is Action.REACH:
        return
    if not principal.scopes & {Scope.OWNER, Scope.SERVICE}:
        raise Forbidden("cannot manage agents with a token that only reaches them: use an owner's token", code="scope")
    if principal.agent_id is not None:
        raise Forbidden("cannot manage with a token that is bound to one agent: use an owner's token", code="scope")


def check_agent(
    principal: Principal, action: Action, *, agent_id: str, agent_owner_id: str, named_owner: str | None = None
) -> None:
    """Raise NotFound when the agent is another owner's or not the one the token is bound to; see check_action."""
    owner_id = acting_owner(principal, named_owner)
    if owner_id != agent_owner_id or principal.agent_id not in (None, agent_id):
        raise NotFound("cannot find this agent: check its id and the token's owner", code="agent_not_found")
    check_action(principal, action)
