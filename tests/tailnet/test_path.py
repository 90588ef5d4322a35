"""Pings until one is answered."""

from __future__ import annotations

import json

import pytest

from elizacloud.errors import TailnetUnavailable
from elizacloud.tailnet import LocalApi, find_path, find_paths
from tests.tailnet.local_api import FakeLocalApi

PONG = (200, '{"LatencySeconds": 0.001}')


async def test_a_ping_that_is_lost_is_sent_again(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.silent["ping"] = 3
    fake.answers["ping"] = PONG

    await find_path(api, "100.64.0.2", within_seconds=20)

    assert fake.paths() == ["ping?ip=100.64.0.2&type=disco"] * 4


async def test_a_peer_that_tailscaled_does_not_know_yet_is_asked_for_again(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.answers["ping"] = (200, '{"Err": "no matching peer"}')

    with pytest.raises(TailnetUnavailable, match="no matching peer"):
        await find_path(api, "100.64.0.2", within_seconds=0.2)

    assert len(fake.asked) > 1


async def test_a_peer_that_never_answers(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.silent["ping"] = 1000

    with pytest.raises(TailnetUnavailable, match="cannot find a path"):
        await find_path(api, "100.64.0.2", within_seconds=0.2)


async def test_paths_to_all_peers_are_sought_and_none_is_missed(fake: FakeLocalApi, api: LocalApi) -> None:
    peers = {
        "a": {"TailscaleIPs": ["100.64.0.2", "fd7a::2"]},
        "b": {"TailscaleIPs": None},
        "c": {"TailscaleIPs": ["100.64.0.3"]},
    }
    fake.answers["status"] = (200, json.dumps({"Peer": peers}))
    fake.answers["ping"] = PONG

    await find_paths(api, within_seconds=20)

    assert set(fake.paths()[1:]) == {"ping?ip=100.64.0.2&type=disco", "ping?ip=100.64.0.3&type=disco"}


@pytest.mark.parametrize("broken", ["ping", "status"])
async def test_paths_that_are_not_found_are_no_error(fake: FakeLocalApi, api: LocalApi, broken: str) -> None:
    fake.answers["status"] = (200, json.dumps({"Peer": {"a": {"TailscaleIPs": ["100.64.0.2"]}}}))
    fake.answers[broken] = (500, "broken")

    await find_paths(api, within_seconds=0.1)


async def test_a_node_without_peers_has_nothing_to_find(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.answers["status"] = (200, '{"Peer": null}')

    await find_paths(api, within_seconds=1)

    assert fake.paths() == ["status"]
