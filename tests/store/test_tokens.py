from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from elizacloud.errors import Conflict, Invalid, NotFound
from elizacloud.model import ApiToken, Scope, TokenKind
from elizacloud.store import Store
from tests.fakes.store import created
from tests.store.conftest import Clock


def a_token(number: int = 1, **changes: object) -> ApiToken:
    token = ApiToken(
        id=f"token-{number}",
        owner_id="owner-1",
        name="laptop",
        scopes=frozenset({Scope.OWNER, Scope.RELAY}),
        agent_id=None,
        sha256=f"{number:064x}",
        created_at=datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC),
    )
    return replace(token, **changes)  # type: ignore[arg-type]


async def test_a_token_is_found_by_its_hash_as_it_was_made(store: Store) -> None:
    agent = await created(store)
    plain, bound = a_token(1), a_token(2, agent_id=agent.id, expires_at=datetime(2030, 1, 1, tzinfo=UTC))
    for token in (plain, bound):
        assert await store.tokens.create(token) == token
        assert await store.tokens.by_sha256(token.sha256) == token
    assert await store.tokens.by_sha256("0" * 64) is None
    assert await store.tokens.by_sha256("") is None


async def test_a_token_of_no_agent_or_a_known_value_is_refused(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.tokens.create(a_token(1, agent_id="nothing"))
    await store.tokens.create(a_token(1))
    for twice in [a_token(2, sha256=a_token(1).sha256), a_token(1, sha256="f" * 64)]:
        with pytest.raises(Conflict):
            await store.tokens.create(twice)
    with pytest.raises(Invalid):
        await store.tokens.create(a_token(3, owner_id=""))


async def test_an_owner_sees_their_own_tokens_newest_first(store: Store) -> None:
    for token in (a_token(1), a_token(2), a_token(3, owner_id="owner-2")):
        await store.tokens.create(token)
    assert [token.id for token in await store.tokens.list("owner-1")] == ["token-2", "token-1"]
    assert await store.tokens.list("nobody") == []


async def test_a_revoked_token_is_revoked_for_good(store: Store, clock: Clock) -> None:
    await store.tokens.create(a_token(1))
    revoked = await store.tokens.revoke("token-1", "owner-1")
    assert revoked.revoked_at == clock()
    clock.pass_seconds(5)
    assert await store.tokens.revoke("token-1") == revoked
    assert await store.tokens.by_sha256(revoked.sha256) == revoked
    assert await store.tokens.list("owner-1") == []
    assert await store.tokens.list_live() == []


async def test_what_was_made_with_a_token_is_revoked_with_it(store: Store, clock: Clock) -> None:
    agent = await created(store)
    await store.tokens.create(a_token(1))
    for number, parent_id in ((2, "token-1"), (3, "token-9")):
        await store.tokens.create(
            a_token(number, agent_id=agent.id, kind=TokenKind.SESSION, parent_id=parent_id, scopes=frozenset())
        )
    await store.tokens.revoke("token-1", "owner-1")
    session = await store.tokens.by_sha256(a_token(2).sha256)
    assert session is not None
    assert (session.kind, session.parent_id, session.revoked_at) == (TokenKind.SESSION, "token-1", clock())
    assert [token.id for token in await store.tokens.list_live()] == ["token-3"]
    assert await store.tokens.list("owner-1") == []


async def test_one_token_of_an_owner_is_kept_also_when_it_was_revoked_before(store: Store, clock: Clock) -> None:
    agent, first, second = await created(store), a_token(1), a_token(2)
    await store.tokens.create(a_token(3, owner_id="owner-2"))
    await store.tokens.keep_only(first)
    await store.tokens.create(
        a_token(4, agent_id=agent.id, kind=TokenKind.SESSION, parent_id=first.id, scopes=frozenset())
    )
    await store.tokens.keep_only(second)
    assert [token.id for token in await store.tokens.list("owner-1")] == [second.id]
    assert {token.id for token in await store.tokens.list_live()} == {second.id, "token-3"}, "nor what was made with it"
    await store.tokens.keep_only(first)
    await store.tokens.create(
        a_token(5, agent_id=agent.id, kind=TokenKind.SESSION, parent_id=first.id, scopes=frozenset())
    )
    await store.tokens.keep_only(first)
    assert await store.tokens.list("owner-1") == [first]
    assert {token.id for token in await store.tokens.list_live()} == {first.id, "token-3", "token-5"}
    with pytest.raises(Conflict, match="another owner's"):
        await store.tokens.keep_only(a_token(6, sha256=a_token(3).sha256))
    assert {token.id for token in await store.tokens.list_live()} == {first.id, "token-3", "token-5"}


async def test_dead_tokens_are_forgotten_in_batches(store: Store, clock: Clock) -> None:
    soon = clock() + timedelta(seconds=10)
    for number in range(1, 6):
        await store.tokens.create(a_token(number, expires_at=soon, kind=TokenKind.SESSION, parent_id="token-7"))
    await store.tokens.create(a_token(6, expires_at=soon))
    await store.tokens.create(a_token(7))
    assert await store.tokens.prune(batch=10) == 0
    clock.pass_seconds(10)
    assert [await store.tokens.prune(batch=3) for _ in range(3)] == [3, 2, 0]
    assert [token.id for token in await store.tokens.list("owner-1")] == ["token-7", "token-6"]
    clock.pass_seconds(30 * 86_400)
    assert await store.tokens.prune(batch=10) == 1
    await store.tokens.revoke("token-7")
    assert await store.tokens.prune(batch=10) == 0
    clock.pass_seconds(30 * 86_400)
    assert await store.tokens.prune(batch=10) == 1


async def test_only_the_owner_or_an_operator_revokes(store: Store) -> None:
    await store.tokens.create(a_token(1))
    for token_id, owner_id in [("token-1", "owner-2"), ("nothing", None)]:
        with pytest.raises(NotFound):
            await store.tokens.revoke(token_id, owner_id)
    assert len(await store.tokens.list_live()) == 1


async def test_an_expired_token_is_not_live(store: Store, clock: Clock) -> None:
    await store.tokens.create(a_token(1, expires_at=clock() + timedelta(seconds=10)))
    await store.tokens.create(a_token(2))
    assert len(await store.tokens.list_live()) == 2
    clock.pass_seconds(10)
    assert [token.id for token in await store.tokens.list_live()] == ["token-2"]


async def test_the_tokens_of_an_agent_are_revoked_together(store: Store) -> None:
    agent = await created(store)
    for token in (a_token(1, agent_id=agent.id), a_token(2, agent_id=agent.id), a_token(3)):
        await store.tokens.create(token)
    await store.tokens.revoke("token-1")
    assert [token.id for token in await store.tokens.revoke_of_agent(agent.id)] == ["token-2"]
    assert [token.id for token in await store.tokens.list_live()] == ["token-3"]
