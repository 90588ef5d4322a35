"""Each thing that can be wrong is one finding with a cause and a fix, and hides no other that can still be looked at."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.headscale.bootstrap import bootstrap, obtain_api_key
from elizacloud.headscale.policy import default_policy
from elizacloud.headscale.preflight import Finding, Verdict, preflight
from elizacloud.headscale.records import policy_text
from elizacloud.model import utc_now
from tests.headscale.scripted import Scripted, serving
from tests.headscale.support import devcontrol, running, supervised

KEY = SecretStr("hskey-api-0123456789ab-secret")


def good(scripted: Scripted) -> None:
    date = {"Date": format_datetime(utc_now(), usegmt=True)}
    scripted.on("GET", "/health", {"status": "pass"}, headers=date)
    scripted.on("GET", "/version", {"version": "v0.29.2"})
    scripted.on("GET", "/key", {"publicKey": "mkey:aa"})
    scripted.on("GET", "/api/v1/policy", {"policy": policy_text(default_policy((0, 29)))})


async def findings(scripted: Scripted, *, join_url: str | None = None) -> dict[str, Finding]:
    return {finding.check: finding for finding in await preflight(scripted.url, KEY, join_url=join_url)}


def replace(scripted: Scripted, path: str) -> None:
    del scripted.script["GET", path]


async def test_all_is_well(scripted: Scripted) -> None:
    good(scripted)
    found = await findings(scripted)
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert len(found) == 5
    assert not any(finding.fix for finding in found.values())


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    (only,) = await preflight(url, KEY)
    assert (only.check, only.verdict) == ("headscale reachable", Verdict.FAIL)
    assert only.fix


async def test_a_version_that_we_do_not_support(scripted: Scripted) -> None:
    good(scripted)
    replace(scripted, "/version")
    scripted.on("GET", "/version", {"version": "v0.26.1"})
    found = await findings(scripted)
    assert found["headscale version"].verdict is Verdict.FAIL
    assert "0.26.1" in found["headscale version"].cause


async def test_a_key_that_is_not_accepted(scripted: Scripted) -> None:
    good(scripted)
    replace(scripted, "/api/v1/policy")
    scripted.on("GET", "/api/v1/policy", status=401, text="Unauthorized", content_type="text/plain")
    found = await findings(scripted)
    assert found["headscale API key"].verdict is Verdict.FAIL
    assert "apikeys create" in found["headscale API key"].fix
    assert KEY.get_secret_value() not in str(found)


@pytest.mark.parametrize(("ahead", "word"), [(600, "behind"), (-600, "ahead of")])
async def test_a_clock_that_is_far_off(scripted: Scripted, ahead: int, word: str) -> None:
    good(scripted)
    replace(scripted, "/health")
    date = format_datetime(utc_now() + timedelta(seconds=ahead), usegmt=True)
    scripted.on("GET", "/health", {"status": "pass"}, headers={"Date": date})
    clock = (await findings(scripted))["clock"]
    assert clock.verdict is Verdict.FAIL
    assert word in clock.cause


async def test_no_policy_and_a_foreign_one(scripted: Scripted) -> None:
    good(scripted)
    replace(scripted, "/api/v1/policy")
    absent = {"code": 2, "message": "loading ACL from database: acl policy not found"}
    scripted.on("GET", "/api/v1/policy", absent, status=500)
    scripted.on("GET", "/api/v1/policy", {"policy": '{"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}]}'})
    assert (await findings(scripted))["headscale policy"].verdict is Verdict.WARN
    foreign = (await findings(scripted))["headscale policy"]
    assert foreign.verdict is Verdict.FAIL
    assert "it lets * reach *" in foreign.cause


async def test_a_join_url_that_leads_elsewhere(scripted: Scripted) -> None:
    good(scripted)
    async with serving() as same, serving() as other:
        same.on("GET", "/key", {"publicKey": "mkey:aa"})
        other.on("GET", "/key", {"publicKey": "mkey:bb"})
        assert (await findings(scripted, join_url=same.url))["join address"].verdict is Verdict.OK
        wrong = (await findings(scripted, join_url=other.url))["join address"]
    assert wrong.verdict is Verdict.FAIL
    assert "ELIZACLOUD_HEADSCALE_JOIN_URL" in wrong.fix
    assert not any("Authorization" in asked.headers for asked in other.asked)


async def test_a_running_devcontrol_has_no_finding(home: Path) -> None:
    server = supervised(home, devcontrol())
    async with running(server):
        async with asyncio.timeout(10):
            await (await bootstrap(server)).close()
        found = await preflight(server.url, await obtain_api_key(server), join_url=f"{server.join_url}/")
    assert {finding.verdict for finding in found} == {Verdict.OK}
