"""What we need of a Headscale, whatever its version. Ids are strings; every call is bounded in time.

Every call costs the server a bcrypt (hscontrol/db/api_key.go, v0.29.2): prefer `get_node` to `list_nodes`, and never
poll fast. An error is never turned into an empty list: "Headscale is down" and "no nodes" are different facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydantic import SecretStr

Policy = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """`text` as the server says it ("dev" when built from a checkout); `api` is the level found by probing."""

    text: str
    api: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A pre-auth key, the only time that its value is known."""

    id: str
    value: SecretStr
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PreAuthKey:
    id: str
    tags: tuple[str, ...]
    reusable: bool
    used: bool
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine on the tailnet as Headscale lists it. `preauth_key_id` is how we know who joined."""

    id: str
    name: str
    """The hostname that the node gave itself: a label, never an identity."""
    given_name: str
    node_key: str
    machine_key: str
    ipv4: str | None
    ipv6: str | None
    tags: tuple[str, ...]
    preauth_key_id: str | None
    online: bool
    last_seen: datetime | None
    created_at: datetime | None
    user: str | None = None
    """The name of the user whose it is; None where a tagged node is nobody's, which is so from 0.28 on."""
    expires_at: datetime | None = None
    """When its machine has to log in again; None for never, as it is with tags until somebody expires the node by hand or the
    machine logs out."""


class Headscale(Protocol):
    """Raises HeadscaleUnavailable (no answer, 5xx without a reason) or HeadscaleRefused (wrong key, bad input)."""

    async def health(self) -> None:
        """Return when the server and its database answer."""

    async def version(self) -> Version:
        """The version, found by probing once; HeadscaleRefused when it is not one that we support."""

    async def public_key(self) -> str | None:
        """What this server is known by (its Noise key): another one at the same address has another. None when it is not
        told here, as behind a proxy that lets only the API through."""

    async def ensure_user(self, name: str) -> str:
        """The id of the user of that name, created when absent."""

    async def create_preauth_key(self, *, tags: tuple[str, ...], lifetime_seconds: float) -> MintedKey:
        """A single-use, not ephemeral key; nodes that join with it carry the tags."""

    async def list_preauth_keys(self) -> list[PreAuthKey]:
        """All keys of ours. 0.27, which cannot delete keys, leaves out those that expired, as if they were deleted."""

    async def expire_preauth_key(self, key_id: str) -> None:
        """Nobody can join with it any more; its node lives on. A no-op when expired or absent."""

    async def delete_preauth_key(self, key_id: str) -> None:
        """Only after its node is deleted: its node would lose its way back after a restart. A no-op when absent."""

    async def list_nodes(self) -> list[Node]: ...

    async def get_node(self, node_id: str) -> Node | None:
        """None only when Headscale says that there is no such node."""

    async def delete_node(self, node_id: str) -> None:
        """A no-op when absent. Stop the machine first, or its open stream hangs the shutdown of Headscale."""

    async def get_policy(self) -> Policy | None:
        """The stored policy; None when there is none, which means that everything is allowed."""

    async def set_policy(self, policy: Policy) -> None: ...

    async def close(self) -> None: ...
