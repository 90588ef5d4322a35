"""Foreign answers and failures turned into our errors; where the token goes and where not."""

import json
import tempfile
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from elizacloud import errors
from elizacloud.client.transport import TIMED_OUT, UNREACHABLE, Transport, error_of
from tests.fakes.api import TOKEN, FakeApi, problem


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "expired_token", errors.Unauthenticated),
        (403, "scope", errors.Forbidden),
        (404, "agent_not_found", errors.NotFound),
        (409, "name_taken", errors.Conflict),
        (422, "invalid_name", errors.Invalid),
        (413, "body_too_large", errors.Invalid),
        (429, "too_many", errors.TooMany),
        (502, "agent_refused", errors.Refused),
        (503, "headscale_unavailable", errors.HeadscaleUnavailable),
        (503, "agent_unroutable", errors.Unavailable),
        (504, "agent_timeout", errors.Unavailable),
        (500, "internal", errors.Error),
        (418, "teapot", errors.Error),
    ],
)
def test_a_problem_becomes_an_error_by_its_code_or_its_status(
    status: int, code: str, expected: type[errors.Error]
) -> None:
    error = error_of(status, {"Retry-After": "7"}, json.dumps({"code": code, "detail": "cannot, because"}).encode())
    assert type(error) is expected
    assert (str(error), error.reason, error.retry_after_seconds) == ("cannot, because", code, 7)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code": 5, "detail": null}', b"\xff"])
def test_an_answer_that_is_no_problem_json_is_told_by_its_status(body: bytes) -> None:
    error = error_of(404, {}, body)
    assert isinstance(error, errors.NotFound)
    assert "404" in str(error)


async def test_the_token_and_the_owner_go_in_headers() -> None:
    async with FakeApi().running() as api:
        transport = Transport(api.url + "/", SecretStr(TOKEN), owner_id="alice")
        await transport.json("GET", "/api/v1/agents", query={"limit": "5"})
        await transport.close()
    [sent] = api.sent
    assert (sent.headers["Authorization"], sent.headers["Elizacloud-Owner"]) == (f"Bearer {TOKEN}", "alice")
    assert (sent.path, sent.query) == ("/api/v1/agents", {"limit": "5"})


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    async with FakeApi().running() as api, FakeApi().running() as elsewhere:
        api.fail_next = [web.Response(status=307, headers={"Location": f"{elsewhere.url}/api/v1/agents"})]
        transport = Transport(api.url, SecretStr(TOKEN))
        with pytest.raises(errors.Unavailable, match="redirects"):
            await transport.json("GET", "/api/v1/agents")
        await transport.close()
    assert elsewhere.sent == []


async def test_nothing_there_is_a_sentence_that_says_what_to_do() -> None:
    transport = Transport("http://127.0.0.1:1", None)
    with pytest.raises(
        errors.Unavailable, match=r"cannot reach http://127\.0\.0\.1:1: Connection refused; .*elizacloud up"
    ) as failed:
        await transport.json("GET", "/readyz")
    await transport.close()
    assert failed.value.reason == UNREACHABLE


async def test_a_page_that_is_not_json_is_not_an_elizacloud() -> None:
    async with FakeApi().running() as api:
        api.fail_next = [web.Response(text="<h1>hello</h1>")]
        transport = Transport(api.url, None)
        with pytest.raises(errors.Unavailable, match="is it the URL of an elizacloud"):
            await transport.json("GET", "/readyz")
        await transport.close()


async def test_an_answer_that_does_not_come_times_out() -> None:
    async with FakeApi().running() as api:
        agent_id = api.add()
        api.to_come = []
        path = f"/api/v1/agents/{agent_id}/events"
        transport = Transport(api.url, SecretStr(TOKEN))
        with pytest.raises(errors.Unavailable) as failed:
            await transport.json("GET", path, headers={"Accept": "text/event-stream"}, within_seconds=0.05)
        await transport.close()
    assert failed.value.reason == TIMED_OUT


async def test_a_unix_socket_is_spoken_to_with_the_urls_host() -> None:
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Host"])
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/readyz", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        path = Path(directory) / "api.sock"
        await web.UnixSite(runner, str(path)).start()
        transport = Transport("http://api", None, socket=path)
        assert await transport.json("GET", "/readyz") == {}
        await transport.close()
        await runner.cleanup()
    assert seen == ["api"]


async def test_bytes_are_sent_as_they_are() -> None:
    async with FakeApi().running() as api:
        api.fail_next = [problem(422, "invalid", "cannot")]
        transport = Transport(api.url, SecretStr(TOKEN))
        with pytest.raises(errors.Invalid):
            await transport.json("POST", "/api/v1/tokens", body=b'{"raw": true}')
        await transport.close()
    assert api.sent[0].body == {"raw": True}
    assert aiohttp.hdrs.AUTHORIZATION in api.sent[0].headers
