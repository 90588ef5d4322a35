"""Logging in from a command line: nobody gets a token before a person approved, and only one ever does."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from tests.api.conftest import ANN, BOB, Served

SESSION = "/api/auth/cli-session"


async def open_session(served: Served) -> dict[str, str]:
    answer = await served.call("POST", SESSION, token=None, json={})
    assert answer.status == 201
    assert answer.headers["Cache-Control"] == "no-store"
    body: dict[str, str] = answer.body
    return body


async def approve_on_the_page(served: Served, code: str, token: str) -> tuple[int, str]:
    form = {"code": code, "token": served.tokens.get(token, token)}
    answer = await served.call("POST", "/login", token=None, data=form)
    return answer.status, answer.body


async def test_the_token_comes_exactly_once_after_the_approval(served: Served) -> None:
    session = await open_session(served)
    code = parse_qs(urlsplit(session["browserUrl"]).query)["code"][0]
    assert code == session["userCode"]
    assert session["sessionId"] not in session["browserUrl"]
    pending = await served.call("GET", f"{SESSION}/{session['sessionId']}", token=None)
    assert (pending.body["status"], "token" in pending.body) == ("pending", False)
    status, page = await approve_on_the_page(served, code.lower().replace("-", " "), ANN)
    assert (status, "signed in" in page) == (200, True)
    async with asyncio.TaskGroup() as tasks:
        path = f"{SESSION}/{session['sessionId']}"
        polls = [tasks.create_task(served.call("GET", path, token=None)) for _ in range(5)]
    got = [poll.result().body["token"] for poll in polls if "token" in poll.result().body]
    assert len(got) == 1
    assert sorted(poll.result().body["status"] for poll in polls) == ["approved"] + ["taken"] * 4
    assert (await served.call("GET", "/api/v1/tokens", token=got[0])).body["items"][0]["ownerId"] == ANN


async def test_approval_needs_a_token_that_manages(served: Served) -> None:
    session = await open_session(served)
    agent_id = (await served.create())["agentId"]
    bound = await served.call("POST", f"/api/v1/agents/{agent_id}/tokens", json={"name": "x"})
    for token, status in (("", 401), ("ec_wrong", 401), (bound.body["token"], 403)):
        answered, page = await approve_on_the_page(served, session["userCode"], token)
        assert (answered, "<form" in page) == (status, True)
        assert not token or token not in page
    pending = await served.call("GET", f"{SESSION}/{session['sessionId']}", token=None)
    assert pending.body["status"] == "pending"


async def test_an_approval_counts_once(served: Served) -> None:
    session = await open_session(served)
    body = {"userCode": session["userCode"]}
    assert (await served.call("POST", "/api/auth/cli-approval", token=None, json=body)).status == 401
    assert (await served.call("POST", "/api/auth/cli-approval", json=body)).status == 204
    again = await served.call("POST", "/api/auth/cli-approval", token=BOB, json=body)
    assert (again.status, again.body["code"]) == (409, "approved_before")
    assert (await served.call("POST", "/api/auth/cli-approval", json={"userCode": "XXXX-XXXX"})).status == 404


async def test_a_session_id_that_is_not_ours_is_404(served: Served) -> None:
    answer = await served.call("GET", f"{SESSION}/nonsense", token=None)
    assert (answer.status, answer.body["code"]) == (404, "session_not_found")


async def test_the_page_runs_nothing_and_repeats_nothing_unescaped(served: Served) -> None:
    answer = await served.call("GET", '/login?code="><script>alert(1)</script>', token=None)
    assert answer.status == 200
    assert "<script" not in answer.body
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


async def test_our_own_client_logs_in(served: Served) -> None:
    async with served.client() as client:
        session = await client.open_cli_session()
        await approve_on_the_page(served, parse_qs(urlsplit(str(session.browser_url)).query)["code"][0], ANN)
        polled = await client.poll_cli_session(session.session_id)
    assert isinstance(polled.token, SecretStr)
