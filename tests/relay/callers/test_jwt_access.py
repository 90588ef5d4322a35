"""JWTs at the relay: ours for one agent or all of an owner's, and those of trusted issuers."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from elizacloud.auth import jose
from elizacloud.upstreams import KnownIssuer, PublicKey
from tests.relay.browsers import COOKIE, PARENT, SWITCHED, UPGRADE, by_host, signed_in
from tests.relay.conftest import AGENT, AGENT_TOKEN, OTHER_AGENT, OWNER, Cloud, RawAgent, known_token, request, upstream

ISSUER = "https://cloud.test"
PLATFORM = "https://platform.test"
KEY_ID, PRIVATE = jose.new_private_key()
PLATFORM_KEY_ID, PLATFORM_PRIVATE = jose.new_private_key()
TRUSTED = [
    KnownIssuer(ISSUER, (jose.public_part(PRIVATE),)),
    KnownIssuer(PLATFORM, (jose.public_part(PLATFORM_PRIVATE),), "elizacloud", "user_id", "platform:"),
]


def ours(typ: str = "at+jwt", **claims: object) -> str:
    now = int(time.time())
    standard: dict[str, object] = {
        "iss": ISSUER,
        "sub": OWNER,
        "aud": f"agent:{AGENT}",
        "iat": now,
        "exp": now + 900,
        "jti": "j1",
        "tid": PARENT,
    }
    return jose.Signer(KEY_ID, PRIVATE).sign(standard | claims, typ=typ)


def theirs(user_id: str = "u1", **claims: object) -> str:
    now = int(time.time())
    standard: dict[str, object] = {"iss": PLATFORM, "aud": "elizacloud", "iat": now, "exp": now + 300}
    signer = jose.Signer(PLATFORM_KEY_ID, PLATFORM_PRIVATE)
    return signer.sign(standard | {"user_id": user_id} | claims, typ="JWT")


@pytest.fixture
async def cloud(run_dir: Path) -> AsyncIterator[Cloud]:
    async with Cloud(run_dir).running() as running:
        running.hub.trust(TRUSTED, None)
        await running.told()
        yield running


@pytest.mark.parametrize("audience", [f"agent:{AGENT}", "agents"])
async def test_ours_reaches_what_it_is_for(cloud: Cloud, agent: RawAgent, audience: str) -> None:
    token = ours(aud=audience)
    for data in (request(token=token), by_host(headers=f"Authorization: Bearer {token}\r\n"), request(token=token)):
        assert (await cloud.ask(data)).status == 200
    assert f"Authorization: Bearer {AGENT_TOKEN}".encode() in agent.lines
    assert all(token.encode() not in head for head in agent.heads)


async def test_ours_opens_a_websocket(cloud: Cloud, agent: RawAgent) -> None:
    agent.answer = SWITCHED
    token = ours()
    offered = f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud, elizacloud.bearer.{token}\r\n"
    assert (await cloud.ask(by_host("/ws", headers=offered))).status == 101
    assert token.encode() not in agent.heads[-1]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (lambda: ours(aud=f"agent:{OTHER_AGENT}"), 404, "agent_not_found"),
        (lambda: ours(sub="stranger", aud="agents"), 404, "agent_not_found"),
        (lambda: ours(sub="stranger"), 404, "agent_not_found"),
        (lambda: ours(aud="elizacloud"), 401, "invalid_token"),
        (lambda: ours(tid="revoked00001"), 401, "invalid_token"),
        (lambda: ours(tid="tokenid00005"), 401, "expired_token"),
        (lambda: ours(typ="JWT"), 401, "invalid_token"),
        (lambda: ours(iss="https://evil.test"), 401, "invalid_token"),
        (lambda: ours(iss=PLATFORM), 401, "invalid_token"),
        (lambda: ours(exp=int(time.time()) - 1), 401, "expired_token"),
        (lambda: ours()[:-8] + "AAAAAAAA", 401, "invalid_token"),
        (lambda: theirs(), 404, "agent_not_found"),
        (lambda: theirs(aud="another"), 401, "invalid_token"),
        (lambda: "eyJ9.e30.x", 401, "invalid_token"),
    ],
)
async def test_nothing_else_does(
    cloud: Cloud, agent: RawAgent, token: Callable[[], str], status: int, code: str
) -> None:
    answer = await cloud.ask(request(token=token()))
    assert (answer.status, answer.header("Elizacloud-Error")) == (status, code)
    assert agent.heads == []


async def test_a_trusted_issuers_is_its_owners(cloud: Cloud, agent: RawAgent) -> None:
    owner = "platform:u1"
    cloud.hub.load([], [], ())
    cloud.hub.trust(TRUSTED, None)
    cloud.hub.publish(upstream(owner_id=owner))
    await cloud.told()
    assert (await cloud.ask(request(token=theirs()))).status == 200
    assert (await cloud.ask(request(token=theirs("u2")))).status == 404
    assert (await cloud.ask(request(token=theirs(), headers="Elizacloud-Owner: owner\r\n"))).status == 403


async def test_one_that_was_seen_before_ends_with_its_parent_and_with_its_key(cloud: Cloud, agent: RawAgent) -> None:
    token, other = ours(), theirs()
    assert (await cloud.ask(request(token=token))).status == 200
    cloud.hub.revoke_token(PARENT)
    await cloud.told()
    assert (await cloud.ask(request(token=token))).status == 401
    assert (await cloud.ask(request(token=other))).status == 404
    key_id, private = jose.new_private_key()
    assert key_id != PLATFORM_KEY_ID
    cloud.hub.trust([KnownIssuer(PLATFORM, (jose.public_part(private),), "elizacloud", "user_id")], None)
    await cloud.told()
    assert (await cloud.ask(request(token=other))).status == 401


async def test_one_of_ours_beside_a_cookie_is_the_credential_and_the_agents_own_is_not(
    cloud: Cloud, agent: RawAgent
) -> None:
    await signed_in(cloud)
    expired = ours(exp=int(time.time()) - 1)
    answer = await cloud.ask(by_host(cookie=COOKIE, headers=f"Authorization: Bearer {expired}\r\n"))
    assert answer.status == 401
    agents_own = ours(iss="https://the-agents-own.test")
    assert (await cloud.ask(by_host(cookie=COOKIE, headers=f"Authorization: Bearer {agents_own}\r\n"))).status == 200
    assert f"Authorization: Bearer {agents_own}".encode() in agent.lines
    assert (await cloud.ask(by_host(f"/x?y={ours()}&z=1", cookie=COOKIE))).status == 200
    assert agent.lines[0] == b"GET /x?z=1 HTTP/1.1"


async def test_its_signature_is_checked_once(cloud: Cloud, agent: RawAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def check(token: str, key: PublicKey, real: Callable[[str, PublicKey], None] = jose.check_signature) -> None:
        checked.append(token)
        real(token, key)

    monkeypatch.setattr(jose, "check_signature", check)
    token = ours()
    for number in range(3):
        assert (await cloud.ask(request(f"/{number}", token=token))).status == 200
        cloud.hub.add_token(known_token(f"ec_other_{number}", 6 + number))  # the table changes in between
        await cloud.told()
    assert checked == [token]


async def test_a_new_key_of_a_platform_is_asked_for_and_not_at_each_request(cloud: Cloud, agent: RawAgent) -> None:
    signer = jose.Signer(*jose.new_private_key())
    now = int(time.time())
    token = signer.sign({"iss": PLATFORM, "aud": "elizacloud", "iat": now, "exp": now + 60, "user_id": "u1"}, typ="JWT")
    for _ in range(3):
        assert (await cloud.ask(request(token=token))).header("Elizacloud-Error") == "invalid_token"
    await cloud.heard.any.wait()
    assert cloud.heard.sought == [PLATFORM]
