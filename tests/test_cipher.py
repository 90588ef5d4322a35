import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from elizacloud.cipher import Cipher, new_secret_key
from elizacloud.errors import Misconfigured

OLD, NEW = new_secret_key(), new_secret_key()


@given(st.binary(max_size=2000), st.text(max_size=50))
def test_what_is_sealed_opens_in_its_place(plain: bytes, place: str) -> None:
    cipher = Cipher(NEW)
    sealed = cipher.seal(plain, bound_to=place)
    assert cipher.open(sealed, bound_to=place) == plain
    assert len(plain) < 8 or plain not in sealed


def test_the_same_value_is_sealed_differently_each_time() -> None:
    cipher = Cipher(NEW)
    assert cipher.seal(b"x", bound_to="a") != cipher.seal(b"x", bound_to="a")


def test_a_value_moved_to_another_row_does_not_open() -> None:
    cipher = Cipher(NEW)
    with pytest.raises(Misconfigured, match="cannot decrypt b: it was damaged or moved"):
        cipher.open(cipher.seal(b"x", bound_to="a"), bound_to="b")


@given(st.integers(min_value=0, max_value=40), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_noticed(position: int, mask: int) -> None:
    cipher = Cipher(NEW)
    sealed = bytearray(cipher.seal(b"some value", bound_to="a"))
    sealed[position % len(sealed)] ^= mask
    with pytest.raises(Misconfigured):
        cipher.open(bytes(sealed), bound_to="a")


@given(st.binary(max_size=60))
def test_what_was_never_sealed_does_not_open(garbage: bytes) -> None:
    with pytest.raises(Misconfigured):
        Cipher(NEW).open(garbage, bound_to="a")


def test_a_rotated_cipher_opens_the_old_and_seals_with_the_new() -> None:
    sealed_before = Cipher(OLD).seal(b"x", bound_to="a")
    rotated = Cipher(NEW, OLD)
    assert rotated.open(sealed_before, bound_to="a") == b"x"
    assert Cipher(NEW).open(rotated.seal(b"y", bound_to="a"), bound_to="a") == b"y"
    with pytest.raises(Misconfigured, match="written with another secret key"):
        Cipher(NEW).open(sealed_before, bound_to="a")


@pytest.mark.parametrize(
    "key", ["", "short", "not base64 !", base64.b64encode(b"x" * 31).decode(), base64.b64encode(b"x" * 33).decode()]
)
def test_a_key_of_another_shape_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(Misconfigured, match="base64 of 32 bytes") as caught:
        Cipher(SecretStr(key))
    assert not key or key not in str(caught.value)


def test_a_cipher_does_not_show_its_key() -> None:
    assert NEW.get_secret_value() not in repr(Cipher(NEW)) + repr(vars(Cipher(NEW)))
