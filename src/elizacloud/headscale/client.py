"""The client of a real Headscale (or devcontrol): one interface for 0.27 to 0.30, differences in dialects.py."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, Invalid
from elizacloud.headscale import records
from elizacloud.headscale.answers import Answer, error_of
from elizacloud.headscale.dialects import DIALECTS, SUPPORTED, Dialect, level_of_paths, level_of_text
from elizacloud.headscale.http import HeadscaleHttp
from elizacloud.headscale.policy import check_tags, parse_policy
from elizacloud.headscale.protocol import MintedKey, Node, Policy, PreAuthKey, Version
from elizacloud.model import utc_now

CALL_SECONDS = 10.0
USER = "elizacloud"
"""The user that owns our keys where a key must have an owner (0.27)."""

_ID = re.compile(r"[0-9]{1,20}")
_log = structlog.get_logger()


class HeadscaleClient:
    """Implements the Headscale protocol over HTTP. Make it once; the version is probed at the first call that needs it.

    Raises what the protocol says, and Invalid for an argument that no Headscale would take.
    """

    def __init__(self, url: str, key: SecretStr, *, user: str = USER, deadline_seconds: float = CALL_SECONDS) -> None:
        self._http = HeadscaleHttp(url, key, deadline_seconds=deadline_seconds)
        self._user = user
        self._user_id: str | None = None
        self._version: Version | None = None
        self._outdated = False
        self._probing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<HeadscaleClient {self._http.url}, {self._version.text if self._version else 'not probed'}>"

    async def health(self) -> None:
        answer = await self._http.call("GET", "/health", doing="check the health of Headscale", with_key=False)
        if not answer.ok or answer.value is None or answer.value.get("status") != "pass":
            raise error_of(answer, "check the health of Headscale", self._http.url)

    async def version(self) -> Version:
        async with self._probing:
            if self._version is None or self._outdated:
                found = await self._probe()
                if found != self._version:
                    _log.info("headscale version", url=self._http.url, version=found.text, api=found.api)
                self._version, self._outdated = found, False
            return self._version

    async def public_key(self) -> str | None:
        doing = "find out which Headscale this is"
        # Any recent capability version will do; the answer for old ones has no key (hscontrol/handlers.go).
        answer = await self._http.call("GET", "/key", doing=doing, query={"v": "130"}, with_key=False)
        if answer.status == 404:
            return None
        if not answer.ok or answer.value is None or not isinstance(answer.value.get("publicKey"), str):
            raise self._error(answer, doing)
        return str(answer.value["publicKey"])

    async def ensure_user(self, name: str) -> str:
        if found := await self._find_user(name):
            return found
        try:
            value = await self._call("POST", "/api/v1/user", doing=f"create the user {name!r}", body={"name": name})
        except HeadscaleRefused:
            # Somebody else may have created it in between.
            if found := await self._find_user(name):
                return found
            raise
        return records.users({"users": [value.get("user")]})[name]

    async def create_preauth_key(self, *, tags: tuple[str, ...], lifetime_seconds: float) -> MintedKey:
        check_tags(tags)
        expires_at = utc_now() + timedelta(seconds=lifetime_seconds)
        # Without an expiration the key is stored as expired since the year 1.
        body: dict[str, Any] = {
            "reusable": False,
            "ephemeral": False,
            "expiration": expires_at.isoformat().replace("+00:00", "Z"),
            "aclTags": list(tags),
        }
        if (await self._dialect()).keys_have_owner:
            body["user"] = await self._owner()
        value = await self._call("POST", "/api/v1/preauthkey", doing="create a pre-auth key", body=body)
        return records.minted_key(value, expires_at)

    async def list_preauth_keys(self) -> list[PreAuthKey]:
        dialect = await self._dialect()
        keys = [records.preauth_key(value) for value in await self._stored_keys()]
        if dialect.keys_can_be_deleted:
            return keys
        # Where keys cannot be deleted an expired one is as gone as it gets.
        now = utc_now()
        return [key for key in keys if key.expires_at is None or key.expires_at > now]

    async def expire_preauth_key(self, key_id: str) -> None:
        body: Mapping[str, Any] = {"id": _checked_id(key_id)}
        if (await self._dialect()).keys_expire_by_text:
            stored = {str(value.get("id")): value for value in await self._stored_keys()}
            if key_id not in stored:
                return
            body = {"user": await self._owner(), "key": stored[key_id].get("key")}
        await self._call(
            "POST", "/api/v1/preauthkey/expire", doing=f"expire the key {key_id}", body=body, absent_ok=True
        )

    async def delete_preauth_key(self, key_id: str) -> None:
        if not (await self._dialect()).keys_can_be_deleted:
            await self.expire_preauth_key(key_id)
            return
        await self._call(
            "DELETE",
            "/api/v1/preauthkey",
            doing=f"delete the key {key_id}",
            query={"id": _checked_id(key_id)},
            absent_ok=True,
        )

    async def list_nodes(self) -> list[Node]:
        tag_fields = (await self._dialect()).tag_fields
        value = await self._get("/api/v1/node", doing="list the nodes")
        return [records.node(item, tag_fields) for item in records.items(value, "nodes")]

    async def get_node(self, node_id: str) -> Node | None:
        tag_fields = (await self._dialect()).tag_fields
        path = f"/api/v1/node/{_checked_id(node_id)}"
        value = await self._call("GET", path, doing=f"look at the node {node_id}", absent_ok=True)
        return records.node(records.item(value, "node"), tag_fields) if value else None

    async def delete_node(self, node_id: str) -> None:
        path = f"/api/v1/node/{_checked_id(node_id)}"
        await self._call("DELETE", path, doing=f"delete the node {node_id}", absent_ok=True)

    async def get_policy(self) -> Policy | None:
        doing = "read the policy"
        answer = await self._http.call("GET", "/api/v1/policy", doing=doing)
        if answer.policy_absent:
            return None
        if not answer.ok or answer.value is None:
            raise self._error(answer, doing)
        try:
            return parse_policy(str(answer.value.get("policy") or ""))
        except Invalid as error:
            raise HeadscaleRefused(str(error)) from error

    async def set_policy(self, policy: Policy) -> None:
        await self._call("PUT", "/api/v1/policy", doing="set the policy", body={"policy": records.policy_text(policy)})

    async def close(self) -> None:
        await self._http.close()

    async def _get(self, path: str, *, doing: str, query: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        return await self._call("GET", path, doing=doing, query=query)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        absent_ok: bool = False,
    ) -> Mapping[str, Any]:
        """The JSON object that was answered; an empty one when the thing is absent and that is fine."""
        answer = await self._http.call(method, path, doing=doing, query=query, body=body)
        if absent_ok and answer.absent:
            return {}
        if not answer.ok or answer.value is None:
            raise self._error(answer, doing)
        return answer.value

    def _error(self, answer: Answer, doing: str) -> Exception:
        # It may have been upgraded under us: ask again which one it is before the next call.
        self._outdated = True
        return error_of(answer, doing, self._http.url)

    async def _dialect(self) -> Dialect:
        return DIALECTS[(await self.version()).api]

    async def _find_user(self, name: str) -> str | None:
        value = await self._get("/api/v1/user", doing=f"find the user {name!r}", query={"name": name})
        return records.users(value).get(name)

    async def _owner(self) -> str:
        if self._user_id is None:
            self._user_id = await self.ensure_user(self._user)
        return self._user_id

    async def _stored_keys(self) -> list[Mapping[str, Any]]:
        owner = {"user": await self._owner()} if (await self._dialect()).keys_have_owner else None
        value = await self._get("/api/v1/preauthkey", doing="list the pre-auth keys", query=owner)
        return records.items(value, "preAuthKeys")

    async def _probe(self) -> Version:
        doing = "find out the version of Headscale"
        answer = await self._http.call("GET", "/version", doing=doing, with_key=False)
        text = str(answer.value.get("version") or "") if answer.ok and answer.value is not None else ""
        if not text and answer.status != 404:
            raise error_of(answer, doing, self._http.url)
        level = level_of_text(text) or await self._fingerprint(doing)
        if level in DIALECTS:
            return Version(text or f"{level[0]}.{level[1]}", level)
        found = text or (f"about {level[0]}.{level[1]}" if level else "")
        why = f"its version is {found}" if found else "it tells no version, so it is an old one or not Headscale"
        raise HeadscaleRefused(
            f"cannot use Headscale at {self._http.url}: {why}, supported are {SUPPORTED};"
            " install one of these or correct ELIZACLOUD_HEADSCALE_API_URL",
            code="headscale_version",
        )

    async def _fingerprint(self, doing: str) -> tuple[int, int] | None:
        swagger = await self._http.call("GET", "/swagger/v1/openapiv2.json", doing=doing, with_key=False)
        if swagger.ok and swagger.value is not None:
            paths = swagger.value.get("paths") or {}
            return level_of_paths(paths, key_methods=paths.get("/api/v1/preauthkey") or {})
        openapi = await self._http.call("GET", "/api/v1/openapi.json", doing=doing, with_key=False)
        return (0, 30) if openapi.ok else None


def _checked_id(text: str) -> str:
    """Ids go into paths: only digits pass."""
    if not _ID.fullmatch(text):
        raise Invalid(f"cannot use {text!r} as an id of Headscale: it is not a number")
    return text
