"""The setting `trusted_issuers`: JSON in a variable, a list of tables in TOML, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elizacloud.errors import Misconfigured
from elizacloud.settings import TrustedIssuer, load_settings

VARIABLE = "ELIZACLOUD_TRUSTED_ISSUERS"
GOOD = {"issuer": "https://a.example", "jwks_url": "https://a.example/jwks", "audience": "cloud"}


def test_json_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps([GOOD, GOOD | {"issuer": "b", "owner_claim": "uid", "owner_prefix": "b|"}]))
    loaded = load_settings()
    first, second = loaded.settings.trusted_issuers
    assert first == TrustedIssuer(**GOOD)
    assert (first.owner_claim, first.owner_prefix) == ("sub", "")
    assert (second.owner_claim, second.owner_prefix) == ("uid", "b|")
    assert loaded.shown()["trusted_issuers"] == ("https://a.example, b", "environment")


def test_tables_in_toml(tmp_path: Path) -> None:
    lines = "\n".join(f'{name} = "{value}"' for name, value in GOOD.items())
    (tmp_path / "elizacloud.toml").write_text(f"[[trusted_issuers]]\n{lines}\n")
    assert load_settings(file=tmp_path / "elizacloud.toml").settings.trusted_issuers == (TrustedIssuer(**GOOD),)


def test_a_loopback_platform_may_speak_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:8000/jwks", "http://[::1]/jwks", "http://localhost/jwks"):
        monkeypatch.setenv(VARIABLE, json.dumps([GOOD | {"jwks_url": url}]))
        assert load_settings().settings.trusted_issuers[0].jwks_url == url


@pytest.mark.parametrize(
    "value",
    [
        "https://a.example", "{", [1], GOOD, [GOOD, GOOD], [{"issuer": "x"}], [GOOD | {"more": 1}], [GOOD | {"issuer": ""}],
        [GOOD | {"audience": ""}], [GOOD | {"jwks_url": "http://a.example/jwks"}], [GOOD | {"jwks_url": "file:///etc/passwd"}],
        [GOOD | {"jwks_url": "https://u:p@a.example/"}], [GOOD | {"jwks_url": "https://"}], [GOOD | {"jwks_url": "https://[x/"}],
        [GOOD | {"owner_prefix": " "}], [GOOD | {"owner_prefix": "../"}], [GOOD | {"owner_claim": ""}],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setenv(VARIABLE, value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(Misconfigured, match=VARIABLE) as refused:
        load_settings()
    assert "\n" not in str(refused.value)


def test_it_says_which_field_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps([GOOD, {"issuer": "x", "jwks_url": GOOD["jwks_url"]}]))
    with pytest.raises(Misconfigured, match=r"1\.audience: field required"):
        load_settings()
