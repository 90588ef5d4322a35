"""Headscale's JSON as our records. 64-bit ids come as strings, times as RFC 3339 with up to nine decimals. Pure.

A body of an unknown shape is a HeadscaleRefused, never a record with holes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused
from elizacloud.headscale.protocol import MintedKey, Node, Policy, PreAuthKey

Json = Mapping[str, Any]

_TAGGED = "tagged-devices"
"""The user that lists show for tagged nodes (hscontrol/types/users.go, v0.28.0)."""


def items(value: Json, name: str) -> list[Json]:
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
        raise _unreadable(f"no list {name!r}")
    return found


def item(value: Json, name: str) -> Json:
    found = value.get(name)
    if not isinstance(found, Mapping):
        raise _unreadable(f"no object {name!r}")
    return found


def users(value: Json) -> dict[str, str]:
    """Ids by name."""
    return {_text(user, "name"): _id(user) for user in items(value, "users")}


def minted_key(value: Json, expires_at: datetime) -> MintedKey:
    key = item(value, "preAuthKey")
    return MintedKey(_id(key), SecretStr(_text(key, "key")), expires_at)


def preauth_key(value: Json) -> PreAuthKey:
    return PreAuthKey(
        id=_id(value),
        tags=_strings(value, "aclTags"),
        reusable=value.get("reusable") is True,
        used=value.get("used") is True,
        expires_at=_time(value, "expiration"),
    )


def node(value: Json, tag_fields: Sequence[str]) -> Node:
    """`tag_fields` name the lists of tags that hold at this API level."""
    addresses = _strings(value, "ipAddresses")
    key = value.get("preAuthKey")
    return Node(
        id=_id(value),
        name=_text(value, "name"),
        given_name=_text(value, "givenName"),
        node_key=_text(value, "nodeKey"),
        machine_key=_text(value, "machineKey"),
        ipv4=next((address for address in addresses if "." in address), None),
        ipv6=next((address for address in addresses if ":" in address), None),
        tags=tuple(dict.fromkeys(tag for field in tag_fields for tag in _strings(value, field))),
        preauth_key_id=_id(key) if isinstance(key, Mapping) else None,
        online=value.get("online") is True,
        last_seen=_time(value, "lastSeen"),
        created_at=_time(value, "createdAt"),
        user=_owner(value),
        expires_at=_expiry(value),
    )


def policy_text(policy: Policy) -> str:
    return json.dumps(policy, indent=2, sort_keys=True)


def _id(value: Json) -> str:
    found = value.get("id")
    if not isinstance(found, str | int) or not str(found).isdecimal():
        raise _unreadable("an id that is not a number")
    return str(found)


def _owner(value: Json) -> str | None:
    user = value.get("user")
    name = _text(user, "name") if isinstance(user, Mapping) else _TAGGED
    return name if name != _TAGGED else None


def _expiry(value: Json) -> datetime | None:
    found = _time(value, "expiry")
    # Go's zero time means never (IsExpired in hscontrol/types/node.go, v0.27.1 to v0.29.2).
    return found if found is not None and found.year > 1 else None


def _text(value: Json, name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise _unreadable(f"no text {name!r}")
    return found


def _strings(value: Json, name: str) -> tuple[str, ...]:
    found = value.get(name) or []
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise _unreadable(f"no list of texts {name!r}")
    return tuple(found)


def _time(value: Json, name: str) -> datetime | None:
    found = value.get(name)
    if found is None:
        return None
    try:
        parsed = datetime.fromisoformat(str(found))
    except ValueError as error:
        raise _unreadable(f"no time {name!r}") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _unreadable(what: str) -> HeadscaleRefused:
    return HeadscaleRefused(
        f"cannot read Headscale's answer: it has {what}; check that ELIZACLOUD_HEADSCALE_API_URL is Headscale's"
    )
