"""The API as a whole: health, problems for what no route answers, its document, and what its log says."""

from __future__ import annotations

import re

import structlog

from elizacloud.api.schemas import EXAMPLE_ID
from tests.api.conftest import ANN, Served


async def test_health_is_the_process_and_readiness_is_what_it_needs(served: Served) -> None:
    assert (await served.call("GET", "/healthz", token=None)).body == {"status": "ok", "checks": {}}
    ready = await served.call("GET", "/readyz", token=None)
    assert (ready.status, ready.body["checks"]) == (200, {"store": "ok", "headscale": "ok", "runtime": "ok"})


async def test_not_ready_says_what_does_not_answer(served: Served) -> None:
    served.world.headscale.down = True
    answer = await served.call("GET", "/readyz", token=None)
    assert (answer.status, answer.body["code"]) == (503, "not_ready")
    assert "headscale" in answer.body["detail"]
    assert answer.body["checks"]["store"] == "ok"
    assert (await served.call("GET", "/healthz", token=None)).status == 200


async def test_unknown_paths_and_methods_are_problems(served: Served) -> None:
    for path in ("/", "/nonsense", "/api/v1/agents/", "/api/v1/agents/x/y/z"):
        answer = await served.call("GET", path)
        assert (answer.status, answer.body["code"]) == (404, "no_such_path")
    answer = await served.call("PUT", f"/api/v1/agents/{EXAMPLE_ID}")
    assert (answer.status, answer.body["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE, GET, PATCH"


async def test_the_document_is_3_1_with_an_example_and_problems_for_every_call(served: Served) -> None:
    document = (await served.call("GET", "/openapi.json", token=None)).body
    assert document["openapi"].startswith("3.1")
    assert {"/api/v1/agents", "/containers/{agent_id}/networking", "/api/auth/cli-session"} <= set(document["paths"])
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert "application/problem+json" in operation["responses"]["500"]["content"], (path, method)
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                for each in schema.get("oneOf", [schema]):
                    reference = each["$ref"]
                    assert document["components"]["schemas"][reference.rpartition("/")[2]]["examples"], reference


async def test_the_access_log_has_no_secrets(served: Served) -> None:
    session = (await served.call("POST", "/api/auth/cli-session", token=None)).body
    with structlog.testing.capture_logs() as lines:
        await served.call("GET", f"/api/auth/cli-session/{session['sessionId']}?secret=canary", token=None)
        await served.call("GET", "/canary")
        await served.call("GET", f"/api/v1/agents/{EXAMPLE_ID}")
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["route"] for line in requests] == [
        "/api/auth/cli-session/{session_id}",
        "(no such path)",
        "/api/v1/agents/{agent_id}",
    ]
    assert requests[2]["agent"] == EXAMPLE_ID
    for secret in ("canary", session["sessionId"], served.tokens[ANN]):
        assert secret not in str(lines)


async def test_two_authorization_headers_are_refused(served: Served) -> None:
    headers = [("Authorization", "Bearer " + served.tokens[ANN])] * 2
    async with served.session.get("http://api/api/v1/agents", headers=headers) as answer:
        assert answer.status == 401


async def test_a_name_that_may_be_a_secret_is_not_repeated(served: Served) -> None:
    secret = "ec_4fTq9XbL2mNz_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3aB4cD"
    for path, body in (
        (f"/api/v1/agents?{secret}=1", {"agentName": "ada"}),
        (f"/api/v1/agents/{secret}/start", {}),
        ("/api/v1/agents", {"agentName": "ada", secret: 1}),
        ("/api/v1/agents", {"agentName": "ada", "secrets": {secret: [1]}}),
        ("/api/v1/agents", {"agentName": "ada", "secrets": {f"NAME={secret}": "x"}}),
    ):
        answer = await served.call("POST", path, json=body)
        assert answer.status in (404, 422)
        assert secret[15:35] not in str(answer.body)
    told = await served.call("POST", "/api/v1/agents", json={"agentName": "ada", "agentConfg": {}})
    assert told.body["errors"][0]["pointer"] == "body/agentConfg"


async def test_a_misspelt_query_parameter_is_told(served: Served) -> None:
    answer = await served.call("GET", "/api/v1/agents?limt=1")
    assert (answer.status, answer.body["code"]) == (422, "unknown_parameter")
    assert "limit" in answer.body["detail"]
    assert (await served.call("GET", "/login?code=x", token=None)).status == 200


async def test_the_page_of_the_document_needs_nothing_from_elsewhere(served: Served) -> None:
    page = await served.call("GET", "/docs", token=None)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "'self'" in page.headers["Content-Security-Policy"]
    assert "//" not in page.body, "it links to another server, or to a place that a prefix moves"
    links = re.findall(r'(?:href|src)="([^"]+)"', page.body)
    assert len(links) == 4
    for link in links:
        async with served.session.get(f"http://api/{link}") as asset:
            assert asset.status == 200, link
            assert asset.headers["X-Content-Type-Options"] == "nosniff"
            assert len(await asset.read()) > 50
    start = await served.call("GET", "/docs/start.js", token=None)
    assert '"openapi.json"' in start.body
    assert (await served.call("GET", "/docs/redoc.standalone.js", token=None)).status == 404
    assert (await served.call("GET", "/docs/..%2f__init__.py", token=None)).status == 404
