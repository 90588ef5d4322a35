"""Tokens: their shape, the header they come in, and that their value does not show."""

import pytest

from elizacloud.auth.tokens import SESSION_PREFIX, TICKET_PREFIX, mint, parse_bearer, token_sha256
from elizacloud.errors import Unauthenticated


def test_a_minted_token_names_its_id_and_is_found_by_its_hash() -> None:
    minted = mint()
    value = minted.value.get_secret_value()
    assert value.startswith(f"ec_{minted.id}_")
    assert token_sha256(value) == minted.sha256
    assert len(value.rpartition("_")[2]) == 43
    assert value not in repr(minted)


def test_no_two_tokens_are_the_same() -> None:
    assert len({mint().sha256 for _ in range(100)}) == 100


def test_the_value_of_a_header_comes_back() -> None:
    value = mint().value.get_secret_value()
    for header in (f"Bearer {value}", f"bearer {value}", f"BEARER   {value} "):
        assert parse_bearer(header).get_secret_value() == value


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "no_credential"),
        ("", "no_credential"),
        ("  ", "no_credential"),
        ("Basic dTpw", "malformed_credential"),
        ("Bearer", "malformed_credential"),
        ("Bearer ", "malformed_credential"),
        ("Bearer two parts", "malformed_credential"),
        ("Bearer ümlaut", "malformed_credential"),
        ("Bearer " + "a" * 8193, "malformed_credential"),
        (f"Bearer {mint(SESSION_PREFIX).value.get_secret_value()}", "misplaced_credential"),
        (f"Bearer {mint(TICKET_PREFIX).value.get_secret_value()}", "misplaced_credential"),
        ("Bearer a\r\nX: y", "malformed_credential"),
    ],
)
def test_a_header_without_a_bearer_token_is_refused(header: str | None, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        parse_bearer(header)
    assert caught.value.reason == reason
    assert "a" * 20 not in str(caught.value)
