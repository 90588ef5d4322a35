"""The control server and the processes as they are, asked without any code of the control plane."""

from __future__ import annotations

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
    """0.27 lists a user's keys, and can delete none: there an expired one is as good as gone."""
    is_027 = "v0.27" in cloud.headscale
    owner = f"?user={await _user_id(cloud)}" if is_027 else ""
    keys = (await raw_headscale(cloud, "GET", f"/api/v1/preauthkey{owner}")).get("preAuthKeys") or []
    theirs = [key for key in keys if f"tag:a-{agent_id}" in key.get("aclTags", [])]
    return (
        [key for key in theirs if datetime.fromisoformat(key["expiration"]) > datetime.now(UTC)] if is_027 else theirs
    )


async def _user_id(cloud: Cloud) -> str:
    (user,) = (await raw_headscale(cloud, "GET", "/api/v1/user?name=elizacloud"))["users"]
    return str(user["id"])
