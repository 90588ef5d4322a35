"""The control server and the processes as they are, asked without any code of the control plane."""

from __future__ import annotations

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
    keys = (await raw_headscale(cloud, "GET", "/api/v1/preauthkey")).get("preAuthKeys") or []
    return [key for key in keys if f"tag:a-{agent_id}" in key.get("aclTags", [])]
