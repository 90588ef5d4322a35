"""An in-memory Headscale for tests of what stands on it: same contract, held to it by the same suite as the real ones.

`join` plays tailscaled. Freed addresses are handed out again at once (Headscale does so after a restart), so that code
which routes by address alone is caught. `fail` and `down` play a Headscale that answers with an error or not at all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable
from elizacloud.headscale.policy import GRANTS_SINCE, check_tags
from elizacloud.headscale.protocol import MintedKey, Node, Policy, PreAuthKey, Version
from elizacloud.model import utc_now

_T = TypeVar("_T")

_POLICY_SECTIONS = {"tagOwners", "grants", "acls", "groups", "hosts", "tests"}
_IPV4_FIRST = ipaddress.IPv4Address("100.64.0.1")
_IPV6_FIRST = ipaddress.IPv6Address("fd7a:115c:a1e0::1")


class JoinRefused(Exception):
    """What tailscaled would hear: the key is unknown, used or expired."""


@dataclass(slots=True)
class _StoredKey:
    key: PreAuthKey
    value: str


@dataclass(slots=True)
class _Fault:
    error: Exception
    after_acting: bool


class FakeHeadscale:
    """Implements the Headscale protocol on dictionaries. `calls` lists every method called, in order."""

    def __init__(self, *, clock: Callable[[], datetime] = utc_now, version: Version | None = None) -> None:
        self.down = False
        """While true, every call raises HeadscaleUnavailable; joins are refused too."""
        self.calls: list[str] = []
        self.key = "mkey:fake"
        """What it is known by; another one at the same address has another."""
        self._clock = clock
        self._version = version or Version("fake", (0, 29))
        self._policy: dict[str, Any] | None = None
        self._users: dict[str, str] = {}
        self._keys: dict[str, _StoredKey] = {}
        self._nodes: dict[str, Node] = {}
        self._last_key_id = 0
        self._last_node_id = 0
        self._faults: dict[str, list[_Fault]] = {}
        self._changed = asyncio.Condition()

    # What a test does to it.

    def fail(self, method: str, error: Exception | None = None, *, times: int = 1, after_acting: bool = False) -> None:
        """The next calls of the method raise; with `after_acting` they act first and only their answer is lost."""
        fault = _Fault(error or HeadscaleUnavailable(f"cannot {method}: the fake was told to fail"), after_acting)
        self._faults.setdefault(method, []).extend([fault] * times)

    async def join(
        self,
        key: SecretStr | str,
        *,
        hostname: str = "node",
        machine_key: str | None = None,
        node_key: str | None = None,
    ) -> Node:
        """Register as tailscaled does; a known machine and node key re-registers its node, even with a spent key.

        Tags stay those of the first join, `preauth_key_id` becomes the new key's (hscontrol/state/state.go, v0.29.2).
        """
        if self.down:
            raise JoinRefused("the server does not answer")
        value = key.get_secret_value() if isinstance(key, SecretStr) else key
        stored = next((stored for stored in self._keys.values() if stored.value == value), None)
        if stored is None:
            raise JoinRefused("invalid pre auth key")
        known = next((node for node in self._nodes.values() if node.machine_key == machine_key), None)
        if known is not None and self._is_expired(known):
            raise JoinRefused("authkey already used")
        if known is None or known.node_key != node_key:
            if stored.key.expires_at is not None and stored.key.expires_at <= self._clock():
                raise JoinRefused("authkey expired")
            if stored.key.used:
                raise JoinRefused("authkey already used")
        stored.key = replace(stored.key, used=True)
        if known is not None:
            node = replace(
                known,
                node_key=node_key or known.node_key,
                name=hostname,
                preauth_key_id=stored.key.id,
                online=True,
            )
        else:
            node = self._new_node(stored.key, hostname, machine_key, node_key)
        await self._put(node)
        return node

    async def start(self, node_id: str) -> None:
        """Play a tailscaled that comes back with the state it has and no key."""
        if self._is_expired(self._nodes[node_id]):
            raise JoinRefused("it has to log in again, and there is no key")
        await self.set_online(node_id, True)

    async def set_online(self, node_id: str, online: bool) -> None:
        """Play a tailscaled that stops or comes back; Headscale itself notices a stop 10 s late."""
        node = self._nodes[node_id]
        await self._put(replace(node, online=online, last_seen=node.last_seen if online else self._clock()))

    async def expire_node(self, node_id: str, at: datetime | None = None) -> None:
        """Play `headscale nodes expire`, now or then. A machine that is connected stays online and speaks with nobody; neither
        its state nor a new key brings it back as the node, which for the key is so in 0.29 (launching.py tells of others)."""
        await self._put(replace(self._nodes[node_id], expires_at=at or self._clock()))

    async def wait_for_node(self, accept: Callable[[Node], bool]) -> Node:
        """Return the first node that is accepted, as soon as there is one; the caller sets the deadline."""
        async with self._changed:
            while True:
                for node in self._nodes.values():
                    if accept(node):
                        return node
                await self._changed.wait()

    # The protocol.

    async def health(self) -> None:
        self._answer("health", lambda: None)

    async def version(self) -> Version:
        return self._answer("version", lambda: self._version)

    async def public_key(self) -> str | None:
        return self._answer("public_key", lambda: self.key)

    async def ensure_user(self, name: str) -> str:
        def act() -> str:
            return self._users.setdefault(name, str(len(self._users) + 1))

        return self._answer("ensure_user", act)

    async def create_preauth_key(self, *, tags: tuple[str, ...], lifetime_seconds: float) -> MintedKey:
        def act() -> MintedKey:
            check_tags(tags)
            self._last_key_id += 1
            key_id = str(self._last_key_id)
            value = f"hskey-auth-{secrets.token_hex(6)}-{secrets.token_hex(32)}"
            expires_at = self._clock() + timedelta(seconds=lifetime_seconds)
            self._keys[key_id] = _StoredKey(PreAuthKey(key_id, tuple(sorted(tags)), False, False, expires_at), value)
            return MintedKey(key_id, SecretStr(value), expires_at)

        return self._answer("create_preauth_key", act)

    async def list_preauth_keys(self) -> list[PreAuthKey]:
        return self._answer("list_preauth_keys", lambda: [stored.key for stored in self._keys.values()])

    async def expire_preauth_key(self, key_id: str) -> None:
        def act() -> None:
            if (stored := self._keys.get(key_id)) is not None:
                stored.key = replace(stored.key, expires_at=min(self._clock(), stored.key.expires_at or self._clock()))

        self._answer("expire_preauth_key", act)

    async def delete_preauth_key(self, key_id: str) -> None:
        self._answer("delete_preauth_key", lambda: self._keys.pop(key_id, None))

    async def list_nodes(self) -> list[Node]:
        return self._answer("list_nodes", lambda: list(self._nodes.values()))

    async def get_node(self, node_id: str) -> Node | None:
        return self._answer("get_node", lambda: self._nodes.get(node_id))

    async def delete_node(self, node_id: str) -> None:
        self._answer("delete_node", lambda: self._nodes.pop(node_id, None))

    async def get_policy(self) -> Policy | None:
        return self._answer("get_policy", lambda: deepcopy(self._policy))

    async def set_policy(self, policy: Policy) -> None:
        def act() -> None:
            if unknown := set(policy) - _POLICY_SECTIONS:
                raise HeadscaleRefused(f"cannot set the policy: unknown field {min(unknown)}")
            if "grants" in policy and self._version.api < GRANTS_SINCE:
                raise HeadscaleRefused("cannot set the policy: unknown field grants")
            if undefined := _tags_of_rules(policy) - set(policy.get("tagOwners", {})):
                raise HeadscaleRefused(f"cannot set the policy: tag not found: {min(undefined)}")
            self._policy = deepcopy(dict(policy))

        self._answer("set_policy", act)

    async def close(self) -> None:
        self.calls.append("close")

    # Inside.

    def _answer(self, method: str, act: Callable[[], _T]) -> _T:
        self.calls.append(method)
        if self.down:
            raise HeadscaleUnavailable(f"cannot {method}: the fake Headscale is down")
        faults = self._faults.get(method)
        fault = faults.pop(0) if faults else None
        if fault is not None and not fault.after_acting:
            raise fault.error
        answer = act()
        if fault is not None:
            raise fault.error
        return answer

    def _is_expired(self, node: Node) -> bool:
        return node.expires_at is not None and node.expires_at <= self._clock()

    def _new_node(self, key: PreAuthKey, hostname: str, machine_key: str | None, node_key: str | None) -> Node:
        taken = {node.ipv4 for node in self._nodes.values()}
        offset = next(number for number in range(2**22) if str(_IPV4_FIRST + number) not in taken)
        self._last_node_id += 1
        return Node(
            id=str(self._last_node_id),
            name=hostname,
            given_name=self._free_given_name(hostname.lower()[:63]),
            node_key=node_key or f"nodekey:{secrets.token_hex(32)}",
            machine_key=machine_key or f"mkey:{secrets.token_hex(32)}",
            ipv4=str(_IPV4_FIRST + offset),
            ipv6=str(_IPV6_FIRST + offset),
            tags=key.tags,
            preauth_key_id=key.id,
            online=True,
            last_seen=self._clock(),
            created_at=self._clock(),
        )

    def _free_given_name(self, base: str) -> str:
        taken = {node.given_name for node in self._nodes.values()}
        names = (base if number == 0 else f"{base}-{number}" for number in range(len(taken) + 1))
        return next(name for name in names if name not in taken)

    async def _put(self, node: Node) -> None:
        async with self._changed:
            self._nodes[node.id] = node
            self._changed.notify_all()


def _tags_of_rules(policy: Policy) -> set[str]:
    rules = [*policy.get("grants", []), *policy.get("acls", [])]
    aliases = [alias for rule in rules for alias in (*rule["src"], *rule["dst"])]
    return {":".join(alias.split(":")[:2]) for alias in aliases if alias.startswith("tag:")}
