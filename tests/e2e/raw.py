"""The control server and the processes as they are, asked without any code of the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from tests.e2e.cloud import Cloud


async def raw_headscale(cloud: Cloud, method: str, path: str, body: Any = None) -> Any:
    key = (cloud.data_dir / "data" / "control-server" / "api.key").read_text().strip()
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.request(method, cloud.facts["headscale"]["url"] + path, json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json(content_type=None)


async def nodes(cloud: Cloud) -> list[dict[str, Any]]:
    return list((await raw_headscale(cloud, "GET", "/api/v1/node")).get("nodes") or [])


async def nodes_of(cloud: Cloud, agent_id: str) -> list[dict[str, Any]]:
    tag = f"tag:a-{agent_id}"
    return [node for node in await nodes(cloud) if tag in [*node.get("tags", []), *node.get("forcedTags", [])]]


async def keys_of(cloud: Cloud, agent_id: str) -> list[dict[str, Any]]:
    """Those that are listed, dead or alive."""
    owner = f"?user={await user_id(cloud)}" if is_027(cloud) else ""
    keys = (await raw_headscale(cloud, "GET", f"/api/v1/preauthkey{owner}")).get("preAuthKeys") or []
    return [key for key in keys if f"tag:a-{agent_id}" in key.get("aclTags", [])]


async def keys_left(cloud: Cloud, agent_id: str) -> list[dict[str, Any]]:
    """0.27 can delete no key: there one that is dead, and that no node came by, is as good as deleted."""
    keys = await keys_of(cloud, agent_id)
    if not is_027(cloud):
        return keys
    needed = {(node.get("preAuthKey") or {}).get("id") for node in await nodes_of(cloud, agent_id)}
    return [key for key in keys if is_alive(key) or key["id"] in needed]


def is_alive(key: Mapping[str, Any]) -> bool:
    """A node could join with it."""
    return not key.get("used") and datetime.fromisoformat(key["expiration"]) > datetime.now(UTC)


def is_027(cloud: Cloud) -> bool:
    return "v0.27" in cloud.headscale


async def user_id(cloud: Cloud) -> str:
    """Whose our keys are on 0.27."""
    (user,) = (await raw_headscale(cloud, "GET", "/api/v1/user?name=elizacloud"))["users"]
    return str(user["id"])
