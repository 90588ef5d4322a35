"""What can be wrong between us and a Headscale, each as a finding with its cause and what to do. Changes nothing.

`doctor` shows all findings; `serve` refuses to start on one that is `FAIL`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic import SecretStr

from elizacloud.errors import Error, HeadscaleRefused
from elizacloud.headscale.answers import KEY_REFUSED
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.http import HeadscaleHttp
from elizacloud.headscale.policy import default_policy, differences
from elizacloud.model import utc_now

CALL_SECONDS = 5.0
CLOCK_SKEW_SECONDS = 60.0
"""Keys live for minutes: a clock that is off by more makes them expire before their use, or long after it."""


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`cause` says what was seen, `fix` what a person can do; the fix is empty when all is well."""

    check: str
    verdict: Verdict
    cause: str
    fix: str = ""


async def preflight(
    api_url: str, key: SecretStr, *, join_url: str | None = None, operator: bool = False
) -> list[Finding]:
    """Look at a Headscale in the order in which things depend on each other; stops at the first that hides the rest."""
    http = HeadscaleHttp(api_url, key, deadline_seconds=CALL_SECONDS)
    client = HeadscaleClient(api_url, key, deadline_seconds=CALL_SECONDS)
    try:
        return [finding async for finding in _findings(http, client, join_url, operator)]
    finally:
        await http.close()
        await client.close()


async def _findings(
    http: HeadscaleHttp, client: HeadscaleClient, join_url: str | None, operator: bool
) -> AsyncIterator[Finding]:
    try:
        await client.health()
        yield Finding("headscale reachable", Verdict.OK, f"{http.url} and its database answer")
    except Error as error:
        yield Finding("headscale reachable", Verdict.FAIL, str(error), "start Headscale or correct its API URL")
        return
    try:
        version = await client.version()
        yield Finding("headscale version", Verdict.OK, f"{version.text}, API {version.api[0]}.{version.api[1]}")
    except Error as error:
        yield Finding("headscale version", Verdict.FAIL, str(error), "install a supported version")
        return
    yield await _clock(http)
    if join_url is not None and join_url.rstrip("/") != http.url:
        yield await _join_address(http, join_url)
    try:
        stored = await client.get_policy()
        yield Finding("headscale API key", Verdict.OK, "accepted")
    except HeadscaleRefused as error:
        if error.reason == KEY_REFUSED:
            fix = "make a key with `headscale apikeys create` and set ELIZACLOUD_HEADSCALE_API_KEY"
            yield Finding("headscale API key", Verdict.FAIL, str(error), fix)
        else:
            yield Finding("headscale policy", Verdict.FAIL, str(error), "see Headscale's log")
        return
    except Error as error:
        yield Finding("headscale policy", Verdict.FAIL, str(error), "see Headscale's log")
        return
    differ = differences(stored, default_policy(version.api, operator=operator))
    if not differ:
        yield Finding("headscale policy", Verdict.OK, "the relay reaches agents on their port, nobody else does")
    elif stored is None:
        cause = "there is none yet, which allows everything"
        yield Finding("headscale policy", Verdict.WARN, cause, "`elizacloud serve` installs it when it starts")
    else:
        cause = f"not the one that agents need: {'; '.join(differ)}"
        yield Finding("headscale policy", Verdict.FAIL, cause, "change it, or let elizacloud replace it")


async def _clock(http: HeadscaleHttp) -> Finding:
    check = "clock"
    try:
        answer = await http.call("GET", "/health", doing="compare the clocks", with_key=False)
    except Error as error:
        return Finding(check, Verdict.WARN, str(error), "see Headscale's log")
    if answer.server_time is None:
        return Finding(check, Verdict.WARN, "Headscale does not tell its time", "let its proxy pass the Date header on")
    ahead_seconds = (utc_now() - answer.server_time).total_seconds()
    cause = f"{abs(ahead_seconds):.0f} s {'ahead of' if ahead_seconds > 0 else 'behind'} Headscale's"
    if abs(ahead_seconds) > CLOCK_SKEW_SECONDS:
        return Finding(check, Verdict.FAIL, cause, "set both clocks by NTP, or keys expire at the wrong time")
    return Finding(check, Verdict.OK, cause)


async def _join_address(http: HeadscaleHttp, join_url: str) -> Finding:
    """Whether both URLs lead to one server: it shows the same public key at each."""
    check = "join address"
    other = HeadscaleHttp(join_url, SecretStr(""), deadline_seconds=CALL_SECONDS)
    try:
        keys = []
        for side in (http, other):
            # Any recent capability version will do; the answer for old ones has no key (hscontrol/handlers.go).
            answer = await side.call("GET", "/key", doing="compare the addresses", query={"v": "130"}, with_key=False)
            keys.append(answer.value.get("publicKey") if answer.ok and answer.value is not None else None)
    except Error as error:
        return Finding(check, Verdict.FAIL, str(error), "correct ELIZACLOUD_HEADSCALE_JOIN_URL, or the proxy there")
    finally:
        await other.close()
    if keys[0] is None or keys[0] != keys[1]:
        cause = f"{join_url} does not lead to the Headscale at {http.url}"
        return Finding(check, Verdict.FAIL, cause, "set ELIZACLOUD_HEADSCALE_JOIN_URL to its server_url")
    return Finding(check, Verdict.OK, f"{join_url} leads to the same Headscale")
