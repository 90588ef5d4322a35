"""What is done to agents behind our back on a real tailnet, and how they come back from it; and what is planted there."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from elizacloud.client import Agent, Client
from elizacloud.client.answers import StoredGeneration
from elizacloud.errors import Error
from elizacloud.model import AgentSpec
from elizacloud.runtime.process.runtime import ProcessRuntime
from elizacloud.runtime.protocol import InstanceSecrets, InstanceSpec, Labels
from elizacloud.states import State
from tests.e2e.cloud import Cloud
from tests.e2e.looking import WITHIN_SECONDS, a_moment
from tests.e2e.machine import machine
from tests.e2e.raw import is_027, keys_left, keys_of, nodes, nodes_of, raw_headscale, user_id

NOBODY = "bcdfghjkmnpqrst2"


@pytest.fixture
async def operator(cloud: Cloud) -> AsyncIterator[Client]:
    token = (cloud.data_dir / "data" / "operator.token").read_text().strip()
    async with Client(cloud.url, SecretStr(token)) as client:
        yield client


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not await met():
            await a_moment(0.1)


async def answers(client: Client, agent_id: str) -> bool:
    try:
        async with client.relay("GET", agent_id, "/api/health") as answer:
            return answer.status == 200
    except Error:
        return False


async def generation_of(operator: Client, agent_id: str) -> StoredGeneration:
    """The present one, as the store has it."""
    return (await operator.explain(agent_id)).store.generations[-1]


def tags_of(node: dict[str, Any]) -> list[str]:
    return [*node.get("tags", []), *node.get("forcedTags", [])]


async def key_with(cloud: Cloud, *tags: str) -> str:
    owner = {"user": await user_id(cloud)} if is_027(cloud) else {}
    made = await raw_headscale(
        cloud, "POST", "/api/v1/preauthkey", {"aclTags": list(tags), "expiration": "2100-01-01T00:00:00Z", **owner}
    )
    return str(made["preAuthKey"]["key"])


async def installation_of(cloud: Cloud, agent_id: str) -> str:
    (node,) = await nodes_of(cloud, agent_id)
    return next(tag for tag in tags_of(node) if tag.startswith("tag:i-"))


async def is_whole(cloud: Cloud, agent_id: str) -> bool:
    """One node, one key, one tailscaled."""
    daemons = [line for line in cloud.processes().values() if f"/{agent_id}/" in line and "--statedir=" in line]
    return (len(await nodes_of(cloud, agent_id)), len(await keys_left(cloud, agent_id)), len(daemons)) == (1, 1, 1)


async def test_a_node_that_is_deleted_while_it_is_connected_comes_back_as_another(
    cloud: Cloud, client: Client, operator: Client, agent: Agent
) -> None:
    (before,) = await nodes_of(cloud, agent.agent_id)
    await raw_headscale(cloud, "DELETE", f"/api/v1/node/{before['id']}")
    await operator.sweep()
    await comes_back_as_another(cloud, client, operator, agent.agent_id, before["id"])


async def test_a_node_that_is_expired_by_hand_is_told_and_comes_back_as_another(
    cloud: Cloud, client: Client, operator: Client, agent: Agent
) -> None:
    (before,) = await nodes_of(cloud, agent.agent_id)
    await raw_headscale(cloud, "POST", f"/api/v1/node/{before['id']}/expire")
    (found,) = [one for one in (await operator.sweep()).findings if one.agent_id == agent.agent_id]
    assert (found.kind, found.outcome, found.about) == ("node expired", "repair", before["id"])
    await comes_back_as_another(cloud, client, operator, agent.agent_id, before["id"])
    told = [event.reason async for event in client.events(agent.agent_id, following=False)]
    assert "its node expired in Headscale; a new key is minted" in told
    assert not [reason for reason in told if "exit 78" in reason], "it was started as the node that had expired"


async def comes_back_as_another(cloud: Cloud, client: Client, operator: Client, agent_id: str, node_id: str) -> None:
    """Of the same generation, and nothing is left of the node that it was."""

    async def back() -> bool:
        now = await nodes_of(cloud, agent_id)
        return [node["id"] for node in now] not in ([], [node_id]) and await answers(client, agent_id)

    await until(back)
    generation = await generation_of(operator, agent_id)
    assert (generation.number, generation.node_id) == (1, (await nodes_of(cloud, agent_id))[0]["id"])

    async def swept() -> bool:
        await operator.sweep()
        return await is_whole(cloud, agent_id)

    await until(swept)


async def test_a_node_whose_tags_somebody_took_is_cut_off_and_said_until_it_is_restarted(
    cloud: Cloud, client: Client, operator: Client, agent: Agent
) -> None:
    (node,) = await nodes_of(cloud, agent.agent_id)
    await raw_headscale(cloud, "POST", f"/api/v1/node/{node['id']}/tags", {"tags": ["tag:agent"]})
    await operator.sweep()

    async def said() -> bool:
        return "no longer carries the agent's tag" in (await client.get_agent(agent.agent_id)).message

    await until(said)
    assert not await answers(client, agent.agent_id)
    assert "node changed" in {finding.kind for finding in (await operator.sweep(dry_run=True)).findings}

    await client.restart_agent(agent.agent_id)
    await until(lambda: answers(client, agent.agent_id))
    (now,) = await nodes_of(cloud, agent.agent_id)
    assert (await generation_of(operator, agent.agent_id)).node_id == now["id"]
    mine = [one for one in await nodes(cloud) if one["machineKey"] == now["machineKey"]]
    assert [one["id"] for one in mine] == [now["id"]], "its node of before is still there"


async def test_an_agent_whose_volume_was_lost_while_it_was_stopped_begins_anew_and_leaves_nothing(
    cloud: Cloud, client: Client, operator: Client, agent: Agent
) -> None:
    (before,) = await nodes_of(cloud, agent.agent_id)
    await client.stop_agent(agent.agent_id)
    await client.wait_until(agent.agent_id, {State.STOPPED}, within_seconds=WITHIN_SECONDS)
    shutil.rmtree(cloud.data_dir / "data" / "agents" / agent.agent_id / "1")
    await client.start_agent(agent.agent_id)
    await until(lambda: answers(client, agent.agent_id))
    generation = await generation_of(operator, agent.agent_id)
    assert generation.number == 2
    assert generation.node_id != before["id"]

    async def old_one_gone() -> bool:
        await operator.sweep()
        return await is_whole(cloud, agent.agent_id)

    await until(old_one_gone)


async def test_what_nobody_asked_for_goes_and_what_others_have_stays(
    cloud: Cloud, client: Client, operator: Client, agent: Agent
) -> None:
    """A running instance, its node and its key that no store knows; beside a machine of another installation."""
    ours = await installation_of(cloud, agent.agent_id)
    (node,) = await nodes_of(cloud, agent.agent_id)
    strangers = {
        "HEADSCALE_URL": str(cloud.facts["headscale"]["url"]),
        "HEADSCALE_AUTH_KEY": await key_with(cloud, "tag:agent", f"tag:a-{NOBODY}", "tag:i-another"),
        "CONTAINER_ID": agent.agent_id,  # whose hostname it takes
    }
    runtime = ProcessRuntime(Path(cloud.run_file["sockets"]["process_host"]))
    async with machine(strangers):
        orphan = NOBODY.replace("2", "3")
        labels = Labels(ours.removeprefix("tag:i-"), orphan, 1, 1)
        spec = InstanceSpec(labels, "milaidy-orphan", strangers["HEADSCALE_URL"], None, AgentSpec())
        key, nothing = await key_with(cloud, "tag:agent", f"tag:a-{orphan}", ours), SecretStr("x")
        ref = await runtime.create(spec)
        await runtime.start(ref, InstanceSecrets(SecretStr(key), nothing, nothing, nothing))

        async def joined() -> bool:
            return bool(await nodes_of(cloud, orphan))

        await until(joined)
        found = {
            finding.kind: finding.outcome for finding in (await operator.sweep()).findings if finding.agent_id == orphan
        }
        assert found == {"instance of no agent": "wait", "node of no agent": "wait"}

        async def gone() -> bool:
            await operator.sweep()
            return not (await nodes_of(cloud, orphan) or await keys_left(cloud, orphan) or await runtime.inspect(ref))

        await until(gone)
        assert not [line for line in cloud.processes().values() if orphan in line]
        assert (cloud.data_dir / "data" / "agents" / orphan).exists(), "what it made waits for the operator"

        async def accepted() -> bool:
            await operator.sweep(accept=True)
            return not (cloud.data_dir / "data" / "agents" / orphan).exists()

        await until(accepted)

        (theirs,) = await nodes_of(cloud, NOBODY)
        assert len(await keys_of(cloud, NOBODY)) == 1
        assert await answers(client, agent.agent_id)
        assert [one["id"] for one in await nodes_of(cloud, agent.agent_id)] == [node["id"]]
    await runtime.close()
    await raw_headscale(cloud, "DELETE", f"/api/v1/node/{theirs['id']}")


async def test_a_relay_that_nobody_knows_is_told(cloud: Cloud, operator: Client, agent: Agent) -> None:
    await operator.sweep()
    intruder = {
        "HEADSCALE_URL": str(cloud.facts["headscale"]["url"]),
        "HEADSCALE_AUTH_KEY": await key_with(cloud, "tag:relay", await installation_of(cloud, agent.agent_id)),
        "CONTAINER_ID": "intruder",
    }
    async with machine(intruder):

        async def told() -> bool:
            findings = (await operator.sweep()).findings
            return ("relay that was not there before", "tell") in {(one.kind, one.outcome) for one in findings}

        await until(told)
        (theirs,) = [node for node in await nodes(cloud) if node["name"] == "milaidy-intruder"]
    await raw_headscale(cloud, "DELETE", f"/api/v1/node/{theirs['id']}")


async def _is_told(operator: Client, agent_id: str, detail: str) -> bool:
    """That alone, and nothing is done about it."""
    findings = [found for found in (await operator.sweep()).findings if found.agent_id == agent_id]
    return [(found.kind, found.outcome, found.detail) for found in findings] == [
        ("node renamed or moved", "tell", detail)
    ]


async def test_a_node_that_was_renamed_by_hand_is_as_good_as_before(
    cloud: Cloud, client: Client, operator: Client, agent: Agent
) -> None:
    if cloud.headscale == "devcontrol":
        pytest.skip("devcontrol renames nothing: needs a Headscale in ELIZACLOUD_HEADSCALE_BIN")
    (node,) = await nodes_of(cloud, agent.agent_id)
    await raw_headscale(cloud, "POST", f"/api/v1/node/{node['id']}/rename/somebody-else")
    await until(lambda: _is_told(operator, agent.agent_id, "it was renamed to 'somebody-else'"))
    assert await answers(client, agent.agent_id)
    assert (await client.get_agent(agent.agent_id)).status == "ready"


async def test_a_node_that_was_moved_to_another_user_is_as_good_as_before(
    cloud: Cloud, client: Client, operator: Client, agent: Agent
) -> None:
    if "v0.27" not in cloud.headscale:
        pytest.skip("only 0.27 moves nodes: needs a headscale-v0.27 in ELIZACLOUD_HEADSCALE_BIN")
    (node,) = await nodes_of(cloud, agent.agent_id)
    somebody = (await raw_headscale(cloud, "POST", "/api/v1/user", {"name": "somebody"}))["user"]["id"]
    await raw_headscale(cloud, "POST", f"/api/v1/node/{node['id']}/user", {"user": somebody})
    await until(lambda: _is_told(operator, agent.agent_id, "it was moved to the user 'somebody'"))
    assert await answers(client, agent.agent_id)

    await client.restart_agent(agent.agent_id)
    await until(lambda: answers(client, agent.agent_id))
    (now,) = await nodes_of(cloud, agent.agent_id)
    assert (now["id"], now["user"]["id"]) == (node["id"], somebody)
