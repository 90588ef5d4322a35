"""Logging in, step by step, against a scripted LocalAPI; tests/tailnet/test_real.py does it with real daemons."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from elizacloud.errors import TailnetUnavailable
from elizacloud.tailnet import Joined, JoinPrefs, KeyRefused, LocalApi, join
from tests.tailnet.local_api import END_OF_STREAM, FakeLocalApi

PREFS = JoinPrefs("http://127.0.0.1:8080", "milaidy-x")
KEY = SecretStr("the-key")
JOINED = Joined("9", ("100.64.0.9",))


def warning(text: str) -> dict[str, Any]:
    return {"Health": {"Warnings": {"login-state": {"Args": {"error": text}}}}}


@pytest.fixture
def fresh(fake: FakeLocalApi) -> FakeLocalApi:
    """A tailscaled without a node, which then logs in."""
    fake.status["HaveNodeKey"] = False
    fake.first = [{"State": 2}, {"State": 5}, {"State": 6}]
    return fake


@pytest.fixture
def member(fake: FakeLocalApi) -> FakeLocalApi:
    """A tailscaled that has a node and our preferences."""
    fake.prefs = {**PREFS.as_json(), "ControlURL": PREFS.join_url}
    fake.first = [{"State": 6}]
    return fake


def posted(fake: FakeLocalApi) -> list[str]:
    return [path for method, path, _body in fake.asked if method == "POST"]


async def test_a_fresh_machine_logs_in_with_the_key_once(fresh: FakeLocalApi, api: LocalApi) -> None:
    assert await join(api, PREFS, KEY, within_seconds=20) == JOINED

    assert posted(fresh) == ["start", "login-interactive"]
    (options,) = [body for _method, path, body in fresh.asked if path == "start"]
    assert options["AuthKey"] == "the-key"
    assert options["UpdatePrefs"]["ControlURL"] == PREFS.join_url
    assert options["UpdatePrefs"]["WantRunning"] is True
    assert options["UpdatePrefs"]["RouteAll"] is False
    assert options["UpdatePrefs"]["CorpDNS"] is False
    assert "AdvertiseTags" not in options["UpdatePrefs"]


async def test_a_member_is_only_waited_for(member: FakeLocalApi, api: LocalApi) -> None:
    assert await join(api, PREFS, KEY, within_seconds=20) == JOINED

    assert posted(member) == []


async def test_a_member_with_other_preferences_is_told_ours_and_spends_no_key(
    member: FakeLocalApi, api: LocalApi
) -> None:
    member.prefs["Hostname"] = "another"

    await join(api, PREFS, KEY, within_seconds=20)

    (options,) = [body for _method, path, body in member.asked if path == "start"]
    assert "AuthKey" not in options


async def test_a_member_whose_node_is_gone_forgets_its_node_key_and_uses_the_key_once(
    member: FakeLocalApi, api: LocalApi
) -> None:
    member.first = [{"State": 2}, {"State": 2}, {"State": 5}, {"State": 6}]

    await join(api, PREFS, KEY, within_seconds=20)

    assert posted(member) == ["logout", "start", "login-interactive"]


async def test_a_key_is_not_spent_while_the_old_node_is_not_forgotten(member: FakeLocalApi, api: LocalApi) -> None:
    member.first = [{"State": 2}]
    member.answers["logout"] = (500, "register request: http 500")

    with pytest.raises(TailnetUnavailable, match="cannot logout"):
        await join(api, PREFS, KEY, within_seconds=20)

    assert posted(member) == ["logout"]


async def test_a_member_whose_node_is_gone_and_no_key(member: FakeLocalApi, api: LocalApi) -> None:
    member.first = [{"State": 2}]

    with pytest.raises(KeyRefused):
        await join(api, PREFS, None, within_seconds=20)

    assert posted(member) == []


async def test_a_fresh_machine_without_a_key(fresh: FakeLocalApi, api: LocalApi) -> None:
    with pytest.raises(KeyRefused):
        await join(api, PREFS, None, within_seconds=20)

    assert posted(fresh) == []


@pytest.mark.parametrize(
    "text",
    [
        "invalid pre auth key",
        "authkey already used",
        "authkey expired",
        "register request: http 401: invalid authkey",
        "AuthKey not found",
        "auth-key has already been used",
        "invalid key: auth key revoked",
        "handling register with auth key: failed to parse auth-key: hash length mismatch, expected 64 chars, got 65",
    ],
)
@pytest.mark.parametrize("worded", ["error", "warning"])
async def test_a_dead_key_is_told_at_once(fresh: FakeLocalApi, api: LocalApi, text: str, worded: str) -> None:
    fresh.first = [{"State": 2}, {"ErrMessage": text} if worded == "error" else warning(text)]

    with pytest.raises(KeyRefused, match=text.split()[-1]):
        await join(api, PREFS, KEY, within_seconds=20)


@pytest.mark.parametrize(
    "text",
    [
        'fetch control key: Get "http://127.0.0.1:1/key": dial tcp: connection refused',
        "register request: http 500: database is locked",
        "handling register with auth key: database is locked",
        "register request: http 401: Unauthorized",
    ],
)
async def test_an_unreachable_server_is_no_dead_key(fresh: FakeLocalApi, api: LocalApi, text: str) -> None:
    fresh.first = [{"State": 2}, warning(text)]

    with pytest.raises(TailnetUnavailable) as late:
        await join(api, PREFS, KEY, within_seconds=0.3)

    assert text in str(late.value)


async def test_a_server_that_recovers_is_joined(fresh: FakeLocalApi, api: LocalApi) -> None:
    fresh.first = [{"State": 2}, warning("connection refused"), {"State": 5}, {"State": 6}]

    assert await join(api, PREFS, KEY, within_seconds=20) == JOINED


async def test_a_tailscaled_that_ends(fresh: FakeLocalApi, api: LocalApi) -> None:
    fresh.first = [{"State": 2}, END_OF_STREAM]

    with pytest.raises(TailnetUnavailable, match="ended"):
        await join(api, PREFS, KEY, within_seconds=20)


async def test_a_tailscaled_that_never_comes(short_dir: Path) -> None:
    api = LocalApi(short_dir / "none.sock")
    with pytest.raises(TailnetUnavailable):
        await join(api, PREFS, KEY, within_seconds=0.05)
    await api.close()


@pytest.mark.parametrize("first", [{"SelfChange": {"Addresses": []}}, {"State": 5}])
async def test_the_netmap_is_told_before_running_and_once(
    fresh: FakeLocalApi, api: LocalApi, first: dict[str, Any]
) -> None:
    told: list[Joined] = []
    fresh.first = [{"State": 2}, first]

    async def on_netmap(node: Joined) -> None:
        told.append(node)
        seen.set()

    seen = asyncio.Event()
    joining = asyncio.create_task(join(api, PREFS, KEY, within_seconds=20, on_netmap=on_netmap))
    bus = await fresh.subscriptions.get()
    await seen.wait()
    assert not joining.done()
    bus.put_nowait({"State": 6})
    await joining

    assert told == [JOINED]


async def test_what_is_refused_at_the_netmap_is_tried_again(fresh: FakeLocalApi, api: LocalApi) -> None:
    tries = 0

    async def too_early_once(_node: Joined) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise TailnetUnavailable("netMap is nil")

    await join(api, PREFS, KEY, within_seconds=20, on_netmap=too_early_once)

    assert tries == 2


async def test_what_is_still_refused_when_running_fails_the_join(fresh: FakeLocalApi, api: LocalApi) -> None:
    async def never(_node: Joined) -> None:
        raise TailnetUnavailable("netMap is nil")

    with pytest.raises(TailnetUnavailable, match="netMap"):
        await join(api, PREFS, KEY, within_seconds=20, on_netmap=never)
