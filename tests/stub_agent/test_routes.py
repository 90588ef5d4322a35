"""What the agent answers, and to whom."""

import hashlib
import io
import json
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from tests.stub_agent.support import TOKEN, agent_client, cloud_config, local_config


async def test_health_says_that_it_is_ready_without_a_token() -> None:
    async with agent_client(cloud_config(), token=None) as client, client.get("/api/health") as answer:
        health = await answer.json()
    assert answer.status == 200
    assert (health["ready"], health["runtime"], health["agentState"]) == (True, "ok", "running")
    assert health["startup"]["phase"] == "running"


async def test_health_of_an_older_agent_wants_the_token() -> None:
    async with (
        agent_client(cloud_config(health_requires_token=True), token=None) as client,
        client.get("/api/health") as answer,
    ):
        assert answer.status == 401


async def test_everything_else_wants_the_token() -> None:
    async with agent_client(cloud_config(), token=None) as client:
        for path in ("/api/status", "/api/connectors", "/api/echo/x", "/api/nothing", "/v1/models"):
            async with client.get(path) as answer:
                assert (answer.status, await answer.json()) == (401, {"error": "Unauthorized"}), path
        async with client.get("/") as page:
            assert page.status == 200


@pytest.mark.parametrize("header", ["X-Api-Key", "X-Eliza-Token", "X-Milady-Token"])
async def test_the_token_may_come_in_other_headers(header: str) -> None:
    async with agent_client(cloud_config(), token=None) as client:
        async with client.get("/api/status", headers={header: TOKEN}) as answer:
            assert (await answer.json())["state"] == "running"
        async with client.get("/api/status", headers={header: TOKEN + "x"}) as answer:
            assert answer.status == 401


async def test_a_cloud_agent_has_no_onboarding_and_asks_for_no_login() -> None:
    async with agent_client(cloud_config(), token=None) as client:
        async with client.get("/api/onboarding/status") as answer:
            assert await answer.json() == {"complete": True}
        async with client.get("/api/auth/status") as answer:
            assert (await answer.json())["required"] is False
    async with agent_client(local_config()) as client:
        async with client.get("/api/onboarding/status") as answer:
            assert await answer.json() == {"complete": False}
        async with client.get("/api/auth/status") as answer:
            assert (await answer.json())["required"] is True


async def test_a_local_request_passes_without_a_token_only_where_no_cloud_provisioned_it() -> None:
    async with agent_client(local_config(), token=None) as client:
        async with client.get("/api/status") as answer:
            assert answer.status == 200
        async with client.get("/api/status", headers={"X-Forwarded-For": "100.64.0.1"}) as answer:
            assert answer.status == 401
    async with (
        agent_client(local_config(cloud_provisioned=True), token=None) as client,
        client.get("/api/status") as answer,
    ):
        assert answer.status == 401


async def test_an_unknown_host_is_refused_by_an_agent_that_is_bound_to_loopback() -> None:
    async with (
        agent_client(local_config()) as client,
        client.get("/api/status", headers={"Host": "100.64.0.9:2138"}) as answer,
    ):
        assert answer.status == 403
        assert "invalid Host header" in (await answer.json())["error"]
    async with (
        agent_client(local_config(allowed_hosts=("100.64.0.9",))) as client,
        client.get("/api/status", headers={"Host": "100.64.0.9:2138"}) as answer,
    ):
        assert answer.status == 200


async def test_a_foreign_origin_is_refused_unless_a_cloud_provisioned_it() -> None:
    origin = {"Origin": "https://evil.example"}
    async with agent_client(local_config()) as client, client.get("/api/status", headers=origin) as answer:
        assert (answer.status, await answer.json()) == (403, {"error": "Origin not allowed"})
    async with agent_client(cloud_config()) as client:
        async with client.get("/api/status", headers=origin) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://evil.example"
        async with client.options("/api/status", headers=origin) as answer:
            assert answer.status == 204


async def test_connectors_survive_a_restart() -> None:
    config = cloud_config()
    async with agent_client(config) as client:
        body = {"name": "discord", "config": {"botToken": "secret", "guilds": [1, 2]}}
        async with client.post("/api/connectors", json=body) as answer:
            assert answer.status == 200
        async with client.post("/api/connectors", json={"name": "slack", "config": {"a": 1}}) as answer:
            assert answer.status == 200
        async with client.delete("/api/connectors/slack") as answer:
            assert answer.status == 200
    async with agent_client(config) as client:
        async with client.get("/api/connectors") as answer:
            assert await answer.json() == {"connectors": {"discord": body["config"]}}
        async with client.get("/api/health") as answer:
            assert (await answer.json())["connectors"] == {"discord": "configured"}


async def test_the_seeds_discord_call_is_kept() -> None:
    async with agent_client(cloud_config()) as client:
        async with client.post("/api/discord/configure", json={"botToken": "t"}) as answer:
            assert (await answer.json())["success"] is True
        async with client.get("/api/connectors") as answer:
            assert (await answer.json())["connectors"]["discord"]["botToken"] == "t"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b'{"name":""}', b'{"name":"x"}', b'{"name":"__proto__","config":{"a":1}}', b"\xff"],
)
async def test_a_bad_connector_is_400_and_changes_nothing(body: bytes) -> None:
    async with agent_client(cloud_config()) as client:
        async with client.post("/api/connectors", data=body) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]
        async with client.get("/api/connectors") as answer:
            assert await answer.json() == {"connectors": {}}


async def test_a_json_body_over_one_mebibyte_is_413_and_the_connection_lives_on() -> None:
    async with agent_client(cloud_config()) as client:
        body = json.dumps({"name": "x", "config": {"a": "b" * (1 << 20)}}).encode()
        async with client.post("/api/connectors", data=io.BytesIO(body)) as answer:
            assert answer.status == 413

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65536):
                yield body[start : start + 65536]

        async with client.post("/api/connectors", data=pieces()) as answer:
            assert answer.status == 413
        async with client.get("/api/connectors") as answer:
            assert await answer.json() == {"connectors": {}}


async def test_echo_reports_what_arrived_exactly() -> None:
    async with agent_client(cloud_config()) as client:
        url = URL("http://100.64.0.9:2138/api/echo/a%2Fb//c?q=%20&q&r=1", encoded=True)
        headers = [("X-One", "1"), ("x-two", "2"), ("X-One", "3")]
        async with client.request("PATCH", url, headers=headers, data=b"body") as answer:
            seen = await answer.json()
    assert (seen["method"], seen["target"]) == ("PATCH", "/api/echo/a%2Fb//c?q=%20&q&r=1")
    assert [header for header in seen["headers"] if header[0].lower().startswith("x-")] == [
        ["X-One", "1"],
        ["x-two", "2"],
        ["X-One", "3"],
    ]
    assert (seen["bodyBytes"], seen["bodySha256"]) == (4, hashlib.sha256(b"body").hexdigest())
    assert seen["agent"] == {"agentId": "a", "generation": "2", "run": "3"}


async def test_echo_answers_as_it_is_told() -> None:
    async with agent_client(cloud_config()) as client:
        async with client.get("/api/echo/x?status=418&header=Set-Cookie:a%3D1&header=Set-Cookie:b%3D2") as answer:
            assert answer.status == 418
            assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        async with client.get("/api/echo/x?header=A:b%0d%0aC:d") as answer:
            assert answer.status == 400


async def test_events_and_log_lines_can_be_made_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        agent_client(cloud_config()) as client,
        client.post("/api/stub/log", json={"line": "hello from the agent"}) as answer,
    ):
        assert answer.status == 200
    assert capsys.readouterr().out == "hello from the agent\n"


async def test_crash_answers_and_then_exits_with_the_code() -> None:
    codes: list[int] = []
    async with (
        agent_client(cloud_config(), exit_process=codes.append) as client,
        client.post("/api/stub/crash", json={"exitCode": 78}) as answer,
    ):
        assert answer.status == 200
    assert codes == [78]
