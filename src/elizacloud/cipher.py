"""Secrets at rest: AES-256-GCM, bound to the place they belong to, with room for the next key.

A sealed value is `format (1 byte) | key id (4) | nonce (12) | ciphertext and tag`. The key id is the beginning of the
key's SHA-256, so that values written under an older key are still opened while new ones are written under the newest.
The associated data names the place (of a store: table, row and column): a value that is copied to another does not open
there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from elizacloud.errors import Misconfigured

_KEY_BYTES = 32
_FORMAT = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD_BYTES = len(_FORMAT) + _KEY_ID_BYTES + _NONCE_BYTES


def new_secret_key() -> SecretStr:
    """A fresh key, as the setting `secret_key` wants it: base64 of 32 random bytes."""
    return SecretStr(base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode())


def _key_bytes(key: SecretStr) -> bytes:
    try:
        raw = base64.b64decode(key.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise Misconfigured(
            "cannot use the secret key: it is not the base64 of 32 bytes; restore the one made at setup"
        )
    return raw


class Cipher:
    """Seals with `key`; opens what was sealed with it or with one of `older`."""

    def __init__(self, key: SecretStr, *older: SecretStr) -> None:
        raw_keys = [_key_bytes(each) for each in (key, *older)]
        self._newest = _key_id(raw_keys[0])
        self._keys = {_key_id(raw): AESGCM(raw) for raw in raw_keys}

    def seal(self, plain: bytes, *, bound_to: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[self._newest].encrypt(nonce, plain, bound_to.encode())
        return _FORMAT + self._newest + nonce + sealed

    def open(self, sealed: bytes, *, bound_to: str) -> bytes:
        """Raises Misconfigured when no key that we have opens it, or when it was sealed for another place."""
        key = self._keys.get(sealed[1 : 1 + _KEY_ID_BYTES])
        if sealed[:1] != _FORMAT or key is None:
            raise Misconfigured(f"cannot decrypt {bound_to}: it was written with another secret key; restore that key")
        try:
            return key.decrypt(
                sealed[_HEAD_BYTES - _NONCE_BYTES : _HEAD_BYTES], sealed[_HEAD_BYTES:], bound_to.encode()
            )
        except InvalidTag as error:
            raise Misconfigured(
                f"cannot decrypt {bound_to}: it was damaged or moved; restore it from a backup"
            ) from error


def _key_id(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_KEY_ID_BYTES]
