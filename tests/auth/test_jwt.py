"""JWTs: the good ones, and every way that is known to make a checker take a bad one."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from elizacloud.auth.jwt import ASSERTION_TYP, UnknownKey, Verifier, looks_like_jwt
from elizacloud.errors import Unauthenticated
from elizacloud.upstreams import KnownIssuer
from tests.auth.conftest import AGENT_ID, OUR_NAME, OURS, THEIR_NAME, THEIRS, Clock, Forge, a_forge, encoded, issuers


@pytest.fixture
def verifier(clock: Clock) -> Verifier:
    known = issuers()
    return Verifier(lambda: known, clock)


def ours(clock: Clock, **changes: Any) -> dict[str, Any]:
    now = int(clock().timestamp())
    claims = {
        "iss": OUR_NAME,
        "sub": "ann",
        "aud": f"agent:{AGENT_ID}",
        "iat": now,
        "exp": now + 900,
        "jti": "j1",
        "tid": "t1",
    }
    return _without_none(claims | changes)


def theirs(clock: Clock, **changes: Any) -> dict[str, Any]:
    now = int(clock().timestamp())
    return _without_none({"iss": THEIR_NAME, "sub": "user-7", "aud": "cloud", "iat": now, "exp": now + 300} | changes)


def _without_none(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if value is not None}


def reason(verifier: Verifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        verifier.verify(token)
    assert token not in str(refused.value)
    return refused.value.reason


def test_our_token_reaches_one_agent_or_all(verifier: Verifier, clock: Clock) -> None:
    one = verifier.verify(OURS.signed(ours(clock)))
    assert (one.owner_id, one.agent_id, one.parent_id, one.token_id, one.own) == ("ann", AGENT_ID, "t1", "j1", True)
    assert one.expires_at == clock() + timedelta(seconds=900)
    every = verifier.verify(OURS.signed(ours(clock, aud="agents", tid=None)))
    assert (every.agent_id, every.parent_id) == (None, None)


def test_a_trusted_issuers_token_names_its_owner_with_the_prefix(verifier: Verifier, clock: Clock) -> None:
    claims = verifier.verify(THEIRS.signed(theirs(clock, aud=["other", "cloud"]), typ="JWT"))
    assert (claims.owner_id, claims.agent_id, claims.parent_id, claims.own) == ("p|user-7", None, None, False)
    assert verifier.verify(THEIRS.signed(theirs(clock, iat=None, jti="x"), typ=None)).owner_id == "p|user-7"


def test_another_claim_may_name_the_owner(clock: Clock) -> None:
    issuer = KnownIssuer("https://other.example", (THEIRS.public,), audience="cloud", owner_claim="email")
    verifier = Verifier(lambda: {issuer.issuer: issuer}, clock)
    token = THEIRS.signed(theirs(clock, iss=issuer.issuer, email="ann@example.com"))
    assert verifier.verify(token).owner_id == "ann@example.com"


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_each_kind_of_key_works(clock: Clock, algorithm: str) -> None:
    forge = a_forge("k", algorithm)
    issuer = KnownIssuer(THEIR_NAME, (forge.public,), audience="cloud")
    assert Verifier(lambda: {THEIR_NAME: issuer}, clock).verify(forge.signed(theirs(clock))).owner_id == "user-7"


# Signatures and keys


def test_no_signature_is_no_token(verifier: Verifier, clock: Clock) -> None:
    for algorithm in ("none", "None", "NONE"):
        first = encoded({"alg": algorithm, "kid": OURS.kid, "typ": "at+jwt"})
        for signature in ("", "AA", OURS.signed(ours(clock)).split(".")[2]):
            assert reason(verifier, f"{first}.{encoded(ours(clock))}.{signature}") == "invalid_token"


def test_the_public_key_is_no_hmac_secret(verifier: Verifier, clock: Clock) -> None:
    first = f"{encoded({'alg': 'HS256', 'kid': OURS.kid, 'typ': 'at+jwt'})}.{encoded(ours(clock))}"
    public = json.loads(OURS.public.jwk)
    for secret in (OURS.public.jwk, public["x"], public["kid"]):
        signature = hmac.new(secret.encode(), first.encode(), hashlib.sha256).digest()
        assert reason(verifier, f"{first}.{encoded(signature)}") == "invalid_token"


def test_a_key_works_with_its_own_algorithm_only(clock: Clock) -> None:
    forge = a_forge("k", "RS256")
    issuer = KnownIssuer(THEIR_NAME, (forge.public,), audience="cloud")
    verifier = Verifier(lambda: {THEIR_NAME: issuer}, clock)
    other = Forge(forge.key, "k", "PS256")
    assert reason(verifier, other.signed(theirs(clock))) == "invalid_token"
    assert reason(verifier, forge.signed(theirs(clock), alg="PS256")) == "invalid_token"


def test_a_key_in_the_header_is_not_used(verifier: Verifier, clock: Clock) -> None:
    thief = a_forge(OURS.kid)
    for header in ({"jwk": thief.jwk}, {"jku": "https://thief.example/jwks"}, {"x5u": "https://thief.example/c"}):
        assert reason(verifier, thief.signed(ours(clock), **header)) == "invalid_token"


def test_another_issuers_key_signs_nothing_in_our_name(verifier: Verifier, clock: Clock) -> None:
    for forge, claims in ((THEIRS, ours(clock)), (OURS, theirs(clock))):
        with pytest.raises(UnknownKey):
            verifier.verify(forge.signed(claims))
    for forge, claims, kid in ((THEIRS, ours(clock), OURS.kid), (OURS, theirs(clock), THEIRS.kid)):
        assert reason(verifier, forge.signed(claims, kid=kid)) == "invalid_token"


@pytest.mark.parametrize("kid", [None, "", 7, ["our-key"], {"a": 1}, "../our-key"])
def test_a_key_that_is_not_named_is_not_looked_for(verifier: Verifier, clock: Clock, kid: Any) -> None:
    assert reason(verifier, OURS.signed(ours(clock), kid=kid)) == "invalid_token"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_token_that_was_changed_is_refused(verifier: Verifier, clock: Clock, place: int) -> None:
    parts = OURS.signed(ours(clock)).split(".")
    other = OURS.signed(ours(clock, sub="bob"), extra=1).split(".")
    assert reason(verifier, ".".join([*parts[:place], other[place], *parts[place + 1 :]])) == "invalid_token"


# Types and claims


@pytest.mark.parametrize("typ", [None, "JWT", ASSERTION_TYP, "AT+JWT", "logout+jwt", 1, ["at+jwt"]])
def test_ours_must_be_of_its_type(verifier: Verifier, clock: Clock, typ: Any) -> None:
    assert reason(verifier, OURS.signed(ours(clock), typ=typ)) == "invalid_token"


@pytest.mark.parametrize("typ", [ASSERTION_TYP, "logout+jwt", "dpop+jwt", "secevent+jwt", 1, ["jwt"], [], {}])
def test_theirs_must_not_be_of_another_type(verifier: Verifier, clock: Clock, typ: Any) -> None:
    assert reason(verifier, THEIRS.signed(theirs(clock), typ=typ)) == "invalid_token"


def test_an_assertion_is_no_credential(verifier: Verifier, clock: Clock) -> None:
    """Not by its own name, and not when the name or the type is changed, as its key is not among those of access."""
    assertion = ours(clock, iss=f"{OUR_NAME}/assertion", caller="t1", jti=None, tid=None)
    asserting = a_forge("assertion-key")
    assert reason(verifier, asserting.signed(assertion, typ=ASSERTION_TYP)) == "invalid_token"
    assert reason(verifier, asserting.signed(assertion | {"iss": OUR_NAME}, typ=ASSERTION_TYP)) == "invalid_token"
    assert reason(verifier, asserting.signed(assertion | {"iss": OUR_NAME})) == "invalid_token"


BAD_OURS: list[dict[str, Any]] = [
    {"iss": None}, {"iss": "https://nobody.example"}, {"iss": [OUR_NAME]}, {"iss": OUR_NAME + "/"}, {"iss": 1},
    {"aud": None}, {"aud": "cloud"}, {"aud": ["agents"]}, {"aud": "agent:"}, {"aud": "agent:../x"}, {"aud": "Agents"},
    {"aud": f"agent:{AGENT_ID}\n"}, {"aud": {"agents": 1}},
    {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "a b"}, {"sub": "a\n"}, {"sub": "../x"}, {"sub": "x" * 129}, {"sub": ["ann"]},
    {"jti": None}, {"jti": 1}, {"tid": 1}, {"tid": ["t1"]}, {"iat": None}, {"exp": None},
    {"exp": "9999999999"}, {"exp": True}, {"exp": [1]}, {"exp": -1}, {"exp": 1e300}, {"iat": "now"}, {"nbf": "never"},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD_OURS, ids=repr)
def test_a_claim_that_is_not_right_is_refused(verifier: Verifier, clock: Clock, changes: dict[str, Any]) -> None:
    assert reason(verifier, OURS.signed(ours(clock, **changes))) == "invalid_token"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": None}, {"aud": "other"}, {"aud": []}, {"aud": ["cloud", 7]}, {"aud": f"agent:{AGENT_ID}"}, {"aud": "agents"},
        {"sub": None}, {"sub": ""}, {"sub": "a b"}, {"sub": "x" * 127}, {"sub": "a\x00"}, {"sub": 12}, {"exp": None},
    ],
    ids=repr,
)  # fmt: skip
def test_a_claim_of_theirs_that_is_not_right_is_refused(
    verifier: Verifier, clock: Clock, changes: dict[str, Any]
) -> None:
    assert reason(verifier, THEIRS.signed(theirs(clock, **changes))) == "invalid_token"


def test_nobody_else_speaks_for_the_operator(clock: Clock) -> None:
    issuer = KnownIssuer(THEIR_NAME, (THEIRS.public,), audience="cloud")
    verifier = Verifier(lambda: {THEIR_NAME: issuer}, clock)
    assert reason(verifier, THEIRS.signed(theirs(clock, sub="operator"))) == "invalid_token"


def test_times_are_kept_to(verifier: Verifier, clock: Clock) -> None:
    now = int(clock().timestamp())
    assert reason(verifier, OURS.signed(ours(clock, exp=now))) == "expired_token"
    assert reason(verifier, OURS.signed(ours(clock, iat=now - 900, exp=now - 1))) == "expired_token"
    early: list[dict[str, float]] = [{"iat": now + 31}, {"nbf": now + 31}]
    long: list[dict[str, float]] = [{"exp": now + 3631}, {"iat": now - 3000, "exp": now + 631}]
    good: list[dict[str, float]] = [{"iat": now + 29}, {"nbf": now + 29}, {"exp": now + 3600}, {"exp": now + 0.5}]
    for changes in early + long:
        assert reason(verifier, OURS.signed(ours(clock, **changes))) == "invalid_token"
    for changes in good:
        verifier.verify(OURS.signed(ours(clock, **changes)))
    assert reason(verifier, THEIRS.signed(theirs(clock, exp=now + 86_431))) == "invalid_token"
    verifier.verify(THEIRS.signed(theirs(clock, exp=now + 86_400)))


def test_a_name_that_is_there_twice_is_refused(verifier: Verifier, clock: Clock) -> None:
    claims = json.dumps(ours(clock))
    assert reason(verifier, OURS.signed((claims[:-1] + ', "sub": "bob"}').encode())) == "invalid_token"
    header = f'{{"alg":"EdDSA","alg":"none","kid":"{OURS.kid}","typ":"at+jwt"}}'.encode()
    rest = OURS.signed(ours(clock)).split(".", 1)[1]
    assert reason(verifier, f"{encoded(header)}.{rest}") == "invalid_token"


def test_an_extension_that_must_be_understood_is_refused(verifier: Verifier, clock: Clock) -> None:
    headers: list[dict[str, Any]] = [{"crit": ["b64"], "b64": False}, {"crit": []}, {"crit": ["exp"]}]
    for header in headers:
        assert reason(verifier, OURS.signed(ours(clock), **header)) == "invalid_token"


def two_parts(header: bytes, claims: bytes) -> str:
    return f"{encoded(header)}.{encoded(claims)}.AA"


RUBBISH = [
    "", ".", "..", "...", "a.b.c", "eyJ.eyJ.AA", "ey" + "A" * 9000 + ".AA.AA", "eyJhbGciOiJub25lIn0..", "é.é.é", "a.b.c.d.e",
    two_parts(b"[" * 700, b"[" * 5000), two_parts(b"[]", b"[]"), two_parts(b"{}", b'{"exp": NaN}'), two_parts(b"\xff", b"{}"),
    two_parts(b"{}", b'{"exp": ' + b"9" * 5000 + b"}"), two_parts(b"{}", b'{"iss": "\\ud800"}'),
]  # fmt: skip


@pytest.mark.parametrize("token", RUBBISH, ids=lambda token: token[:20])
def test_rubbish_is_refused_and_no_crash(verifier: Verifier, token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        verifier.verify(token)
    assert refused.value.reason == "invalid_token"


def test_a_huge_token_is_refused_unread(verifier: Verifier, clock: Clock) -> None:
    assert reason(verifier, OURS.signed(ours(clock, more="x" * 10_000))) == "invalid_token"


ODD: tuple[Any, ...] = (None, 0, 1.5, True, "", "\ud800", [], [[]], ["x"], {}, {"a": []})


@pytest.mark.parametrize("name", ["alg", "kid", "typ", "crit", "b64", "jwk", "x5c", "cty"])
def test_a_header_of_any_type_is_no_crash(verifier: Verifier, clock: Clock, name: str) -> None:
    for forge, claims in ((OURS, ours(clock)), (THEIRS, theirs(clock))):
        for odd in ODD:
            with contextlib.suppress(Unauthenticated):  # many say nothing to us, and the token is good
                verifier.verify(forge.signed(claims, **{name: odd}))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "tid"])
def test_a_claim_of_any_type_is_no_crash(verifier: Verifier, clock: Clock, name: str) -> None:
    for forge, claims in ((OURS, ours(clock)), (THEIRS, theirs(clock))):
        for odd in ODD:
            with contextlib.suppress(Unauthenticated):
                verifier.verify(forge.signed(claims | {name: odd}))


# What is remembered


def test_a_verified_token_is_remembered_until_it_expires(clock: Clock) -> None:
    known = issuers()
    verifier = Verifier(lambda: known, clock)
    token = OURS.signed(ours(clock))
    assert verifier.verify(token) is verifier.verify(token)
    clock.pass_seconds(900)
    assert reason(verifier, token) == "expired_token"


def test_an_issuer_that_changed_is_asked_anew(clock: Clock) -> None:
    known = issuers()
    verifier = Verifier(lambda: known, clock)
    token = OURS.signed(ours(clock))
    verifier.verify(token)
    known[OUR_NAME] = replace(known[OUR_NAME], keys=(a_forge("next").public,))
    with pytest.raises(UnknownKey):
        verifier.verify(token)
    del known[OUR_NAME]
    assert reason(verifier, token) == "invalid_token"


def test_what_looks_like_a_jwt() -> None:
    assert looks_like_jwt("eyJhbGciOiJFZERTQSJ9.e30.AA")
    assert not any(map(looks_like_jwt, ["ec_id_secret", "", "ey", "a.b.c", "eyA.b"]))
