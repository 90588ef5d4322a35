"""Trusted issuers: real servers on loopback that answer well, badly, slowly, endlessly and not at all."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc.jwk import OctKey, RSAKey

from elizacloud.auth import trusted
from elizacloud.auth.trusted import TrustedIssuers, fetched, keys_of
from elizacloud.errors import Error, Invalid, Misconfigured, Unavailable
from elizacloud.settings import TrustedIssuer
from tests.auth.conftest import OUR_NAME, THEIR_NAME, THEIRS, Forge, a_forge
from tests.fakes.relays import FakeRelays


class Platform:
    """Publishes keys; a test decides what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: list[Any] = [THEIRS.jwk]
        self.body: bytes | None = None
        self.status = 200
        self.location = ""
        self.asked = 0
        self.stuck = asyncio.Event()
        self.stuck.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        await self.stuck.wait()
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        headers = {"Location": self.location} if self.location else {}
        return web.Response(status=self.status, body=body, headers=headers)

    def issuer(self, name: str = THEIR_NAME) -> TrustedIssuer:
        return TrustedIssuer(issuer=name, jwks_url=f"{self.url}/keys", audience="cloud", owner_prefix="p|")


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    app = web.Application()
    runner = web.AppRunner(app)
    found = Platform("")
    app.router.add_get("/keys", found.answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    found.url = f"http://{host}:{port}"
    yield found
    found.stuck.set()
    await runner.cleanup()


@pytest.fixture
def trusting(relays: FakeRelays, platform: Platform) -> TrustedIssuers:
    return TrustedIssuers([platform.issuer()], relays, ours=OUR_NAME)


async def test_keys_are_fetched_and_relays_told(
    trusting: TrustedIssuers, platform: Platform, relays: FakeRelays
) -> None:
    await trusting.refresh()
    known = trusting.known[THEIR_NAME]
    assert (known.keys, known.audience, known.owner_prefix) == ((THEIRS.public,), "cloud", "p|")
    assert relays.table.issuers == {THEIR_NAME: known}
    revision = relays.table.revision
    await trusting.refresh()
    assert trusting.known[THEIR_NAME] is known
    assert relays.table.revision == revision


def bad_answers(platform: Platform) -> dict[str, Callable[[], None]]:
    def say(**values: Any) -> Callable[[], None]:
        return lambda: vars(platform).update(values)

    return {
        "an error": say(status=500),
        "not there": say(status=404),
        "a redirect": say(status=302, location=f"{platform.url}/keys"),
        "no json": say(body=b"<html>"),
        "an empty answer": say(body=b""),
        "a list": say(body=b"[]"),
        "no keys": say(keys=[]),
        "keys that are none": say(body=b'{"keys": {"a": 1}}'),
        "only bad keys": say(keys=[1, {}, {"kty": "oct", "kid": "a", "k": "AAAA"}]),
        "very many keys": say(keys=[THEIRS.jwk] * 65),
        "one kid, two keys": say(keys=[THEIRS.jwk, a_forge(THEIRS.kid).jwk]),
        "an endless answer": say(body=b" " * (trusted.MAX_BYTES + 1)),
        "very deep": say(body=b"[" * 100_000),
    }


@pytest.mark.parametrize(
    "what",
    [
        "an error", "not there", "a redirect", "no json", "an empty answer", "a list", "no keys", "keys that are none",
        "only bad keys", "very many keys", "one kid, two keys", "an endless answer", "very deep",
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_good_changes_nothing(
    trusting: TrustedIssuers, platform: Platform, relays: FakeRelays, what: str
) -> None:
    await trusting.refresh()
    known, revision = trusting.known[THEIR_NAME], relays.table.revision
    bad_answers(platform)[what]()
    await trusting.refresh()
    assert platform.asked == 2
    assert trusting.known[THEIR_NAME] is known
    assert relays.table.revision == revision


async def test_an_issuer_that_is_gone_keeps_its_keys(relays: FakeRelays, platform: Platform) -> None:
    trusting = TrustedIssuers([platform.issuer()], relays, ours=OUR_NAME)
    await trusting.refresh()
    gone = TrustedIssuer(issuer=THEIR_NAME, jwks_url="http://127.0.0.1:1/keys", audience="cloud")
    trusting._issuers[THEIR_NAME] = gone
    await trusting.refresh()
    assert trusting.known[THEIR_NAME].keys == (THEIRS.public,)


async def test_one_that_does_not_answer_holds_nobody_up(
    platform: Platform, relays: FakeRelays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusted, "FETCH_SECONDS", 0.2)
    platform.stuck.clear()
    with pytest.raises(Unavailable):
        await fetched(f"{platform.url}/keys")


async def test_keys_that_rotate_are_followed(trusting: TrustedIssuers, platform: Platform, relays: FakeRelays) -> None:
    await trusting.refresh()
    following = a_forge("next", "ES256")
    platform.keys = [THEIRS.jwk, following.jwk]
    await trusting.refresh()
    assert relays.table.issuers[THEIR_NAME].keys == (THEIRS.public, following.public)
    platform.keys = [following.jwk]
    await trusting.refresh()
    assert relays.table.issuers[THEIR_NAME].keys == (following.public,)


async def test_an_unknown_key_is_looked_for_now_and_then(relays: FakeRelays, platform: Platform) -> None:
    now = [1000.0]
    trusting = TrustedIssuers([platform.issuer()], relays, ours=OUR_NAME, clock=lambda: now[0])
    await trusting.refresh()
    assert await trusting.seek(THEIR_NAME)
    assert platform.asked == 2
    assert not any([await trusting.seek(THEIR_NAME) for _ in range(50)])
    assert platform.asked == 2
    now[0] += 30
    assert await trusting.seek(THEIR_NAME)
    assert platform.asked == 3
    assert not await trusting.seek("https://nobody.example")


async def test_many_who_look_at_once_share_one_look(relays: FakeRelays, platform: Platform) -> None:
    trusting = TrustedIssuers([platform.issuer()], relays, ours=OUR_NAME)
    async with asyncio.TaskGroup() as tasks:
        looking = [tasks.create_task(trusting.seek(THEIR_NAME), name=f"{number}") for number in range(20)]
    assert platform.asked == 1
    assert all(task.result() for task in looking)


@pytest.mark.parametrize("name", [OUR_NAME, f"{OUR_NAME}/assertion"])
def test_nobody_else_has_our_name(relays: FakeRelays, name: str) -> None:
    issuer = TrustedIssuer(issuer=name, jwks_url="https://thief.example/keys", audience="cloud")
    with pytest.raises(Misconfigured, match="our own name"):
        TrustedIssuers([issuer], relays, ours=OUR_NAME)


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_keys_for_other_uses_are_left_out() -> None:
    good = THEIRS.jwk
    others = [
        OctKey.generate_key(256).as_dict(private=True) | {"kid": "o", "alg": "HS256"},
        good | {"kid": "e", "use": "enc"},
        good | {"kid": "s", "key_ops": ["sign"]},
        good | {"kid": "h", "alg": "HS256"},
        good | {"kid": "n", "alg": "none"},
        good | {"kid": "w", "alg": "RS256"},
        good | {"kid": 7},
        {name: value for name, value in good.items() if name != "kid"},
        {"kty": "EC", "kid": "b", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"},
        {"kty": "OKP", "kid": "x", "crv": "X25519", "x": "AA"},
    ]
    assert keys_of(jwks(*others, good)) == (THEIRS.public,)


ODD: tuple[Any, ...] = (None, 7, 1.5, True, [], ["sig"], {}, {"a": []}, "", "\ud800", "\u00e9", "\n", "x" * 5000)


@pytest.mark.parametrize("member", ["kid", "kty", "alg", "use", "key_ops", "crv", "x", "y", "n", "e"])
def test_an_odd_member_of_a_key_costs_no_other_key(member: str) -> None:
    good = a_forge("good").jwk
    for algorithm in ("EdDSA", "ES256", "RS256"):
        whole = a_forge("odd", algorithm).jwk
        odd = [{**whole, member: value} for value in ODD if member in whole or member in ("use", "key_ops")]
        odd += [{**whole, "use": ["sig"]}, {**whole, "key_ops": "verify"}, {**whole, "key_ops": 7}]
        assert keys_of(jwks(*odd, good)) == keys_of(jwks(good))


@pytest.mark.parametrize("error", [TypeError("unhashable"), RecursionError(), KeyError("keys"), OSError(28, "full")])
async def test_whatever_goes_wrong_in_a_look_ends_nothing(relays: FakeRelays, error: Exception) -> None:
    async def fetch(url: str) -> bytes:
        raise error

    issuer = TrustedIssuer(issuer=THEIR_NAME, jwks_url="https://a.example/", audience="cloud")
    trusting = TrustedIssuers([issuer], relays, ours=OUR_NAME, fetch=fetch)
    await trusting.refresh()
    assert not await trusting.seek(THEIR_NAME)
    assert trusting.known == {}


def test_a_key_without_an_algorithm_has_the_one_of_its_kind() -> None:
    for algorithm in ("EdDSA", "ES256", "RS256"):
        forge = a_forge("k", algorithm)
        without = {name: value for name, value in forge.jwk.items() if name != "alg"}
        assert keys_of(jwks(without)) == (forge.public,)


def test_a_weak_rsa_key_is_refused() -> None:
    with pytest.warns(match="2048"):
        weak = RSAKey.generate_key(1024)
    with pytest.raises(Invalid):
        keys_of(jwks(Forge(weak, "k", "RS256").jwk))


def test_a_private_key_by_mistake_is_not_passed_on() -> None:
    leaked = THEIRS.key.as_dict(private=True) | {"kid": THEIRS.kid, "alg": "ES256"}
    assert '"d"' not in keys_of(jwks(leaked))[0].jwk


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/keys", "http://[::1]:1/", "not a url", "http://127.0.0.1:99999/"])
async def test_what_cannot_be_fetched_is_unavailable(url: str) -> None:
    with pytest.raises(Error) as failed:
        await fetched(url)
    assert isinstance(failed.value, Unavailable)


async def test_the_last_keys_outlive_a_restart(platform: Platform, tmp_path: Path) -> None:
    kept = tmp_path / "keys.json"
    await TrustedIssuers([platform.issuer()], FakeRelays(), ours=OUR_NAME, kept=kept).refresh()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    platform.status = 500
    relays = FakeRelays()
    restarted = TrustedIssuers([platform.issuer()], relays, ours=OUR_NAME, kept=kept)
    restarted.recall()
    await restarted.refresh()
    assert relays.table.issuers[THEIR_NAME].keys == (THEIRS.public,)
    elsewhere = TrustedIssuer(issuer=THEIR_NAME, jwks_url=f"{platform.url}/other", audience="cloud")
    moved = TrustedIssuers([elsewhere], relays, ours=OUR_NAME, kept=kept)
    moved.recall()
    assert moved.known == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"u": 1}', b'{"u": [{"kty": "oct", "kid": "a"}]}', b"\xff"])
def test_a_damaged_file_of_keys_is_not_used(relays: FakeRelays, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys.json").write_bytes(content)
    issuer = TrustedIssuer(issuer=THEIR_NAME, jwks_url="https://a.example/", audience="cloud")
    trusting = TrustedIssuers([issuer], relays, ours=OUR_NAME, kept=tmp_path / "keys.json")
    trusting.recall()
    assert trusting.known == {}
