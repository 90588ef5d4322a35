"""Many relay workers on one address: replaced under load, killed, frozen, and each asked by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from tests.e2e.cloud import Cloud
from tests.e2e.load import Load
from tests.e2e.looking import WITHIN_SECONDS, a_moment, until
from tests.ports import free_port
from tests.relay.test_tls import write_pair

REVOKED_SECONDS = 1
REPLACED_SECONDS = 100
"""Two new workers start and two old ones drain, one after the other, on a machine that is busy."""
WORKERS = 2
SUPERVISOR = "elizacloud relay"
WORKER = "elizacloud.app.relay_worker"


def workers(cloud: Cloud) -> set[int]:
    return {pid for pid, command in cloud.processes().items() if WORKER in command}


def addresses(cloud: Cloud) -> list[Path]:
    """Where each worker can be asked by itself."""
    return sorted((cloud.data_dir / "data" / "run" / "relay").glob("worker-*.sock"))


async def asked(address: Path, agent_id: str, token: str) -> int:
    """The status of one request to this one worker; 0 when nobody is there."""
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.UnixConnector(str(address))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as session,
            session.get(f"http://relay.test/api/relay/{agent_id}/api/health") as answer,
        ):
            return answer.status
    except aiohttp.ClientError:
        return 0


async def until_answered(cloud: Cloud, agent_id: str, status: int, *, token: str = "", count: int = WORKERS) -> None:
    """Return when so many workers are there, and each gives this answer."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            found = [await asked(address, agent_id, token or cloud.token) for address in addresses(cloud)]
            if found.count(status) == count and set(found) <= {status, 0}:
                return
            await a_moment()


async def ready_agent(cloud: Cloud) -> str:
    """Made at the API's own socket, as the front door may have a certificate that no client of ours trusts."""
    api = aiohttp.UnixConnector(str(cloud.run_file["sockets"]["api"]))
    async with aiohttp.ClientSession(connector=api, headers=cloud.headers) as session:
        async with session.post("http://api/api/v1/agents", json={"agentName": "served"}) as answer:
            agent_id = str((await answer.json())["agentId"])
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                async with session.get(f"http://api/api/v1/agents/{agent_id}") as answer:
                    if (await answer.json())["status"] == "ready":
                        return agent_id
                await a_moment()


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """Of the cloud; with `https` as the test's parameter, the relay speaks TLS."""
    if getattr(request, "param", "http") == "http":
        return {}
    certificate, key = write_pair(tmp_path)
    return {"ELIZACLOUD_TLS_CERTIFICATE_FILE": str(certificate), "ELIZACLOUD_TLS_KEY_FILE": str(key)}


@pytest.fixture
def many(own_cloud: Cloud, settings: Mapping[str, str]) -> Cloud:
    """A cloud with two workers, which runs."""
    own_cloud.environment = {
        "ELIZACLOUD_WORKERS": str(WORKERS),
        "ELIZACLOUD_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        **settings,
    }
    return own_cloud.start()


@pytest.mark.parametrize("settings", ["http", "https"], indirect=True)
async def test_a_rolling_restart_under_load_loses_no_request(many: Cloud) -> None:
    agent_id = await ready_agent(many)
    await until_answered(many, agent_id, 200)
    before = workers(many)
    assert len(before) == WORKERS
    async with Load(many, agent_id).running() as load, asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(_chat(load), name="chat stream")
        await until(lambda: load.outcomes["200"] > 100)
        assert many.process is not None
        many.process.send_signal(signal.SIGHUP)
        await until(lambda: len(workers(many)) == WORKERS and not workers(many) & before, REPLACED_SECONDS)
        after = load.outcomes["200"]
        await until(lambda: load.outcomes["200"] > after + 100)
    assert set(load.outcomes) == {"200"}, load.outcomes
    assert load.told_to_go, "nobody noticed: the clients held no connection"
    assert stream.result() == "done"


async def _chat(load: Load) -> str:
    """One answer that streams across the whole restart; its last event's type."""
    body = {"text": "hello"}
    url = f"{load.cloud.url}/api/relay/{load.agent_id}/api/conversations/c/messages/stream?tokens=60&intervalMs=100"
    last = ""
    async with (
        aiohttp.ClientSession(headers=load.cloud.headers) as session,
        session.post(url, json=body, ssl=False) as answer,
    ):
        assert answer.status == 200
        async for line in answer.content:
            if line.startswith(b"data: "):
                last = str(json.loads(line[6:])["type"])
    return last


async def test_every_worker_learns_of_agents_and_revocations_and_tells_its_metrics(many: Cloud) -> None:
    agent_id = await ready_agent(many)
    await until_answered(many, agent_id, 200)
    assert len(addresses(many)) == WORKERS
    for address in addresses(many):
        assert address.stat().st_mode & 0o777 == 0o600
        assert address.parent.stat().st_mode & 0o777 == 0o700

    async with Client(many.url, SecretStr(many.token)) as client:
        created = await client.create_token("short-lived")
        token = created.token.get_secret_value()
        await until_answered(many, agent_id, 200, token=token)
        await client.revoke_token(created.token_id)
        async with asyncio.timeout(REVOKED_SECONDS):
            await until_answered(many, agent_id, 401, token=token)
    await until_answered(many, agent_id, 200)

    listen = many.environment["ELIZACLOUD_METRICS_LISTEN"]
    async with aiohttp.ClientSession() as session, session.get(f"http://{listen}/metrics") as answer:
        text = await answer.text()
    assert 'elizacloud_relay_workers_ready{worker="supervisor"} 2.0' in text
    assert 'elizacloud_relay_tailnet_followed{worker="supervisor"} 1.0' in text
    paths = {
        line.partition('path="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("elizacloud_relay_peer_paths{")
    }
    assert paths.keys() == {"direct", "peer_relay", "derp", "idle"}
    assert sum(paths.values()) >= 1, "tailscaled tells of no peer"
    for number in ("1", "2"):
        requests = [
            line
            for line in text.splitlines()
            if line.startswith("elizacloud_relay_requests_total{")
            and 'upstream="agent"' in line
            and f'worker="{number}"' in line
        ]
        assert requests, text
    assert text.count("# TYPE process_resident_memory_bytes") == 1


async def test_a_killed_worker_comes_back_and_the_other_one_goes_on(many: Cloud) -> None:
    agent_id = await ready_agent(many)
    await until_answered(many, agent_id, 200)
    victim, survivor = sorted(workers(many))
    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in many.processes())
    async with aiohttp.ClientSession(headers=many.headers) as session:
        for _ in range(20):
            async with session.get(f"{many.url}/api/relay/{agent_id}/api/health") as answer:
                assert answer.status == 200
    await until_answered(many, agent_id, 200)
    assert survivor in workers(many)
    assert len(workers(many)) == WORKERS


async def test_a_killed_supervisor_is_replaced_with_its_workers(many: Cloud) -> None:
    agent_id = await ready_agent(many)
    await until_answered(many, agent_id, 200)
    before = workers(many) | {many.pid_of(SUPERVISOR)}
    os.kill(many.pid_of(SUPERVISOR), signal.SIGKILL)
    await until(lambda: not before & set(many.processes()))
    await until_answered(many, agent_id, 200)
    async with (
        aiohttp.ClientSession(headers=many.headers) as session,
        session.get(f"{many.url}/api/relay/{agent_id}/api/health") as answer,
    ):
        assert answer.status == 200
    assert many.stop() == 0
    assert not many.processes()


async def test_workers_of_a_frozen_supervisor_refuse_and_recover(many: Cloud) -> None:
    agent_id = await ready_agent(many)
    await until_answered(many, agent_id, 200)
    supervisor = many.pid_of(SUPERVISOR)
    before = workers(many)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        await until_answered(many, agent_id, 503)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    await until_answered(many, agent_id, 200)
    assert workers(many) == before, "nobody was killed for another one's silence"


async def test_a_new_worker_that_does_not_start_leaves_the_old_ones_in_place(many: Cloud) -> None:
    agent_id = await ready_agent(many)
    await until_answered(many, agent_id, 200)
    before = workers(many)
    key = many.data_dir / "data" / "secret.key"
    content = key.read_bytes()
    key.write_text("rubbish\n")
    log = many.data_dir / "data" / "logs" / "relay.log"
    os.kill(many.pid_of(SUPERVISOR), signal.SIGHUP)
    await until(lambda: "workers are not replaced" in log.read_text())
    key.write_bytes(content)
    assert workers(many) == before
    await until_answered(many, agent_id, 200)
