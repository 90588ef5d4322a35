"""Each access rule, and an attack on it."""

from datetime import UTC, datetime, timedelta

import pytest

from elizacloud.auth.access import Action, acting_owner, check_action, check_agent, checked_owner_id, principal_of
from elizacloud.errors import Error, Forbidden, Invalid, NotFound, Unauthenticated
from elizacloud.model import ApiToken, Principal, Scope, TokenKind
from elizacloud.upstreams import KnownToken

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OWNER = Principal("t1", "ann", frozenset({Scope.OWNER}))
SERVICE = Principal("t2", "platform", frozenset({Scope.SERVICE}))
BOUND = Principal("t3", "ann", frozenset({Scope.RELAY}), agent_id="a1")
RELAY = Principal("t4", "ann", frozenset({Scope.RELAY}))
BOUND_OWNER = Principal("t5", "ann", frozenset({Scope.OWNER}), agent_id="a1")


def api_token(**changes: object) -> ApiToken:
    values: dict[str, object] = {
        "id": "t1", "owner_id": "ann", "name": "laptop", "scopes": frozenset({Scope.OWNER}), "agent_id": None,
        "sha256": "00", "created_at": NOW,
    }  # fmt: skip
    return ApiToken(**(values | changes))  # type: ignore[arg-type]


def test_the_api_and_the_relay_see_the_same_principal() -> None:
    stored = api_token(agent_id="a1", expires_at=NOW + timedelta(hours=1))
    known = KnownToken("t1", "00", "ann", frozenset({Scope.OWNER}), "a1", NOW + timedelta(hours=1))
    assert principal_of(stored, NOW) == principal_of(known, NOW)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "invalid_token"),
        (api_token(revoked_at=NOW - timedelta(days=1)), "invalid_token"),
        (api_token(expires_at=NOW), "expired_token"),
        (KnownToken("t", "00", "ann", frozenset({Scope.OWNER}), None, NOW - timedelta(seconds=1)), "expired_token"),
        (api_token(kind=TokenKind.SESSION), "invalid_token"),
    ],
)
def test_unknown_revoked_and_expired_tokens_are_refused(token: KnownToken | ApiToken | None, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        principal_of(token, NOW)
    assert caught.value.reason == reason


def test_a_session_counts_where_sessions_count_and_an_api_token_does_not() -> None:
    assert principal_of(api_token(kind=TokenKind.SESSION), NOW, kind=TokenKind.SESSION).owner_id == "ann"
    with pytest.raises(Unauthenticated):
        principal_of(api_token(), NOW, kind=TokenKind.SESSION)


def test_a_service_token_may_name_any_owner_and_is_itself_otherwise() -> None:
    assert acting_owner(SERVICE, "bob") == "bob"
    assert acting_owner(SERVICE, None) == "platform"
    assert acting_owner(OWNER, "ann") == "ann"


def test_an_owners_token_cannot_name_somebody_else() -> None:
    with pytest.raises(Forbidden) as caught:
        acting_owner(OWNER, "bob")
    assert caught.value.reason == "owner_not_allowed"


@pytest.mark.parametrize("owner_id", ["", " ", "a b", "x" * 129, "a\n", "ä", "../x", "-a"])
def test_a_service_token_cannot_name_a_malformed_owner(owner_id: str) -> None:
    with pytest.raises(Invalid):
        acting_owner(SERVICE, owner_id)


@pytest.mark.parametrize("owner_id", ["a", "auth0|5f7c", "did:privy:cm1", "ann@example.com", "x" * 128])
def test_the_usual_shapes_of_user_ids_are_owners(owner_id: str) -> None:
    assert checked_owner_id(owner_id) == owner_id


@pytest.mark.parametrize(
    ("principal", "action", "agent_id", "agent_owner", "named", "error"),
    [
        (OWNER, Action.REACH, "a1", "ann", None, None),
        (OWNER, Action.MANAGE, "a1", "ann", None, None),
        (OWNER, Action.REACH, "a1", "bob", None, NotFound),
        (OWNER, Action.REACH, "a1", "bob", "bob", Forbidden),
        (SERVICE, Action.MANAGE, "a1", "bob", "bob", None),
        (SERVICE, Action.MANAGE, "a1", "bob", None, NotFound),
        (SERVICE, Action.MANAGE, "a1", "bob", "ann", NotFound),
        (RELAY, Action.REACH, "a1", "ann", None, None),
        (RELAY, Action.MANAGE, "a1", "ann", None, Forbidden),
        (BOUND, Action.REACH, "a1", "ann", None, None),
        (BOUND, Action.REACH, "a2", "ann", None, NotFound),
        (BOUND, Action.REACH, "a1", "bob", None, NotFound),
        (BOUND, Action.MANAGE, "a2", "ann", None, NotFound),
        (BOUND_OWNER, Action.MANAGE, "a1", "ann", None, Forbidden),
    ],
)
def test_who_may_do_what(
    principal: Principal, action: Action, agent_id: str, agent_owner: str, named: str | None, error: type[Error] | None
) -> None:
    def attempt() -> None:
        check_agent(principal, action, agent_id=agent_id, agent_owner_id=agent_owner, named_owner=named)

    if error is None:
        attempt()
    else:
        with pytest.raises(error):
            attempt()


def test_a_token_without_scopes_manages_nothing() -> None:
    with pytest.raises(Forbidden):
        check_action(Principal("t", "ann", frozenset()), Action.MANAGE)
