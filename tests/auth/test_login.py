"""Logins of a command line: the states of a session, its end, and how many there may be."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import SecretStr

from elizacloud.auth import login
from elizacloud.auth.issuing import Tokens
from elizacloud.auth.login import LIFETIME, Logins, Status
from elizacloud.errors import Conflict, Forbidden, NotFound, TooMany
from elizacloud.model import Principal, Scope
from elizacloud.store import Store
from tests.auth.conftest import Clock
from tests.auth.test_issuing import OWNER, tokens  # noqa: F401 - a fixture


@pytest.fixture
def logins(store: Store, tokens: Tokens, clock: Clock) -> Logins:  # noqa: F811
    return Logins(store, tokens, clock)


async def test_a_session_goes_from_pending_to_approved_to_taken(logins: Logins) -> None:
    session_id, opened = await logins.open()
    assert (await logins.poll(session_id)).status is Status.PENDING
    await logins.approve(opened.user_code.replace("-", "").lower(), OWNER, "ann")
    approved = await logins.poll(session_id)
    assert (approved.status, approved.token is not None) == (Status.APPROVED, True)
    again = await logins.poll(session_id)
    assert (again.status, again.token) == (Status.TAKEN, None)


async def test_a_session_ends_after_a_while(logins: Logins, clock: Clock) -> None:
    session_id, opened = await logins.open()
    clock.now += LIFETIME
    assert (await logins.poll(session_id)).status is Status.EXPIRED
    with pytest.raises(NotFound):
        await logins.approve(opened.user_code, OWNER, "ann")


async def test_approving_needs_the_right_to_manage_and_counts_once(logins: Logins) -> None:
    _, opened = await logins.open()
    with pytest.raises(Forbidden):
        await logins.approve(opened.user_code, Principal("t", "ann", frozenset({Scope.RELAY})), "ann")
    await logins.approve(opened.user_code, OWNER, "ann")
    with pytest.raises(Conflict):
        await logins.approve(opened.user_code, OWNER, "bob")


async def test_the_user_code_is_not_the_session(logins: Logins) -> None:
    _, opened = await logins.open()
    with pytest.raises(NotFound):
        await logins.poll(SecretStr(opened.user_code))


async def test_open_sessions_are_bounded(logins: Logins, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "OPEN_MAX", 2)
    for _ in range(2):
        await logins.open()
    with pytest.raises(TooMany):
        await logins.open()
    clock.now += LIFETIME + timedelta(seconds=1)
    await logins.open()
