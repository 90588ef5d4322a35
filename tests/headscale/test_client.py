"""The client against recorded shapes: 0.27's old key calls and 0.30's strict ones, probing, and what it must not do.

What the versions really do is tests/contract/test_headscale.py's; here is what no server can be made to do on demand.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable, Invalid
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.policy import default_policy
from elizacloud.headscale.protocol import Version
from tests.headscale.scripted import Scripted

API_KEY = "hskey-api-0123456789ab-secret"
KEY_TEXT = "d056857417bd2fa05de4f8cd9d76fb7611c9d4129f2f9d4e"
USER = {"id": "1", "name": "elizacloud", "createdAt": "2026-11-22T15:37:22.272663019Z"}
LISTED_027 = {
    "user": USER,
    "id": "3",
    "key": KEY_TEXT,
    "reusable": False,
    "ephemeral": False,
    "used": False,
    "expiration": "2099-01-01T00:00:00Z",
    "createdAt": "2026-11-22T15:37:22.661762240Z",
    "aclTags": ["tag:agent"],
}
PROBLEM_404 = {
    "title": "Not Found",
    "status": 404,
    "detail": "expiring pre-auth key",
    "errors": [{"message": "auth-key not found: record not found"}],
}
NODE: dict[str, Any] = {
    "id": "18446744073709551615",
    "machineKey": "mkey:aa",
    "nodeKey": "nodekey:bb",
    "discoKey": "discokey:cc",
    "ipAddresses": ["fd7a:115c:a1e0::7", "100.64.0.7"],
    "name": "milaidy-x",
    "user": None,
    "lastSeen": "2026-11-22T15:37:22.661762240Z",
    "expiry": None,
    "preAuthKey": {"id": "3", "key": "hskey-auth-012345678901-***"},
    "createdAt": "2026-11-22T15:37:22Z",
    "givenName": "milaidy-x-1",
    "online": True,
    "tags": ["tag:agent"],
}


@pytest.fixture
async def client(scripted: Scripted) -> Any:
    client = HeadscaleClient(scripted.url, SecretStr(API_KEY), deadline_seconds=5)
    yield client
    await client.close()


def is_version(scripted: Scripted, text: str) -> None:
    scripted.on("GET", "/version", {"version": text, "commit": "unknown", "dirty": False})


async def test_on_027_a_key_is_minted_for_our_user(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.27.1")
    scripted.on("GET", "/api/v1/user", {"users": []})
    scripted.on("POST", "/api/v1/user", {"user": USER})
    scripted.on("POST", "/api/v1/preauthkey", {"preAuthKey": LISTED_027})
    key = await client.create_preauth_key(tags=("tag:agent",), lifetime_seconds=60)
    assert (key.id, key.value.get_secret_value()) == ("3", KEY_TEXT)
    (asked,) = scripted.requests("POST", "/api/v1/preauthkey")
    assert asked.body["user"] == "1"
    assert asked.body["aclTags"] == ["tag:agent"]
    assert (asked.body["reusable"], asked.body["ephemeral"]) == (False, False)
    assert asked.body["expiration"].endswith("Z")
    sent = datetime.fromisoformat(asked.body["expiration"])
    assert sent == key.expires_at


async def test_on_027_a_key_expires_by_its_text_that_nobody_sees(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.27.1")
    scripted.on("GET", "/api/v1/user", {"users": [USER]})
    scripted.on("GET", "/api/v1/preauthkey", {"preAuthKeys": [LISTED_027]})
    scripted.on("POST", "/api/v1/preauthkey/expire", {})
    assert KEY_TEXT not in repr(await client.list_preauth_keys())
    await client.expire_preauth_key("3")
    (asked,) = scripted.requests("POST", "/api/v1/preauthkey/expire")
    assert asked.body == {"user": "1", "key": KEY_TEXT}
    await client.expire_preauth_key("4")
    await client.delete_preauth_key("3")
    assert len(scripted.requests("POST", "/api/v1/preauthkey/expire")) == 2
    assert not scripted.requests("DELETE", "/api/v1/preauthkey")
    assert scripted.requests("GET", "/api/v1/preauthkey")[0].query == {"user": "1"}


async def test_on_027_an_expired_key_counts_as_deleted(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.27.1")
    scripted.on("GET", "/api/v1/user", {"users": [USER]})
    spent = {**LISTED_027, "id": "2", "expiration": "0001-01-01T00:00:00Z"}
    scripted.on("GET", "/api/v1/preauthkey", {"preAuthKeys": [spent, LISTED_027]})
    assert [key.id for key in await client.list_preauth_keys()] == ["3"]


async def test_on_030_a_body_has_no_field_too_many(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.30.0")
    scripted.on("POST", "/api/v1/preauthkey", {"preAuthKey": {**LISTED_027, "user": None}})
    await client.create_preauth_key(tags=("tag:agent",), lifetime_seconds=60)
    (asked,) = scripted.requests("POST", "/api/v1/preauthkey")
    assert set(asked.body) == {"aclTags", "expiration", "reusable", "ephemeral"}
    assert asked.headers["Content-Type"] == "application/json"


async def test_on_030_an_unknown_key_is_404_and_no_error(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.30.0")
    problem = "application/problem+json"
    scripted.on("POST", "/api/v1/preauthkey/expire", PROBLEM_404, status=404, content_type=problem)
    scripted.on("DELETE", "/api/v1/preauthkey", PROBLEM_404, status=404, content_type=problem)
    scripted.on("GET", "/api/v1/node/7", {"status": 404, "detail": "node not found"}, status=404, content_type=problem)
    await client.expire_preauth_key("7")
    await client.delete_preauth_key("7")
    assert await client.get_node("7") is None
    assert scripted.requests("POST", "/api/v1/preauthkey/expire")[0].body == {"id": "7"}


async def test_somebody_elses_404_is_not_an_absent_node(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.29.2")
    with pytest.raises(HeadscaleRefused, match="ELIZACLOUD_HEADSCALE_API_URL"):
        await client.get_node("7")


async def test_a_node_is_read_whole(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.29.2")
    scripted.on("GET", "/api/v1/node", {"nodes": [NODE, {**NODE, "preAuthKey": None, "lastSeen": None}]})
    first, second = await client.list_nodes()
    assert (first.id, first.ipv4, first.ipv6) == (NODE["id"], "100.64.0.7", "fd7a:115c:a1e0::7")
    assert (first.preauth_key_id, second.preauth_key_id, second.last_seen) == ("3", None, None)
    assert (first.name, first.given_name, first.tags) == ("milaidy-x", "milaidy-x-1", ("tag:agent",))
    assert first.last_seen == datetime(2026, 11, 22, 15, 37, 22, 661762, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expiry", "at"),
    [
        (None, None),
        ("0001-01-01T00:00:00Z", None),
        ("2026-11-22T15:37:22.661762240Z", datetime(2026, 11, 22, 15, 37, 22, 661762, tzinfo=UTC)),
    ],
)
async def test_a_node_without_an_expiry_or_with_the_zero_time_never_expires(
    scripted: Scripted, client: HeadscaleClient, expiry: str | None, at: datetime | None
) -> None:
    is_version(scripted, "v0.29.2")
    without = {name: value for name, value in NODE.items() if name != "expiry"}
    scripted.on("GET", "/api/v1/node", {"nodes": [{**NODE, "expiry": expiry}, without]})
    assert [node.expires_at for node in await client.list_nodes()] == [at, None]


@pytest.mark.parametrize(
    ("user", "name"), [({"name": "somebody"}, "somebody"), ({"name": "tagged-devices"}, None), (None, None)]
)
async def test_a_tagged_node_is_nobodys(
    scripted: Scripted, client: HeadscaleClient, user: dict[str, str] | None, name: str | None
) -> None:
    is_version(scripted, "v0.29.2")
    scripted.on("GET", "/api/v1/node", {"nodes": [{**NODE, "user": user}]})
    (node,) = await client.list_nodes()
    assert node.user == name


async def test_on_027_tags_are_in_other_fields(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "v0.27.1")
    node = {**NODE, "tags": None, "forcedTags": ["tag:agent"], "validTags": ["tag:agent"], "invalidTags": ["tag:x"]}
    scripted.on("GET", "/api/v1/node/1", {"node": node})
    found = await client.get_node("1")
    assert found is not None
    assert found.tags == ("tag:agent",)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"nodes": None},
        {"nodes": {}},
        {"nodes": [1]},
        {"nodes": [{}]},
        {"nodes": [{**NODE, "id": None}]},
        {"nodes": [{**NODE, "tags": "tag:agent"}]},
        {"nodes": [{**NODE, "lastSeen": "yesterday"}]},
        {"nodes": [{**NODE, "expiry": "tomorrow"}]},
    ],
)
async def test_an_answer_of_another_shape_is_never_an_empty_list(
    scripted: Scripted, client: HeadscaleClient, body: object
) -> None:
    is_version(scripted, "v0.29.2")
    scripted.on("GET", "/api/v1/node", body)
    with pytest.raises(HeadscaleRefused, match="cannot read Headscale's answer"):
        await client.list_nodes()


@pytest.mark.parametrize("node_id", ["", "..", "../user", "1/2", "1?x", "-1", "1 ", "٣", "x" * 1000, "1\r\n"])
async def test_an_id_that_is_no_number_never_gets_into_a_path(
    scripted: Scripted, client: HeadscaleClient, node_id: str
) -> None:
    is_version(scripted, "v0.29.2")
    for call in (client.get_node, client.delete_node, client.delete_preauth_key, client.expire_preauth_key):
        with pytest.raises(Invalid):
            await call(node_id)
    assert [asked.path for asked in scripted.asked] == ["/version"]


async def test_a_dev_build_is_told_by_what_it_serves(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "dev")
    paths: dict[str, Any] = {"/api/v1/preauthkey": {"get": {}, "delete": {}}, "/api/v1/health": {}}
    scripted.on("GET", "/swagger/v1/openapiv2.json", {"paths": paths})
    assert await client.version() == Version("dev", (0, 28))


async def test_030_has_another_document(scripted: Scripted, client: HeadscaleClient) -> None:
    is_version(scripted, "dev")
    scripted.on("GET", "/api/v1/openapi.json", {"openapi": "3.1.0"})
    assert await client.version() == Version("dev", (0, 30))


async def test_one_without_a_version_call_is_told_too(scripted: Scripted, client: HeadscaleClient) -> None:
    scripted.on("GET", "/swagger/v1/openapiv2.json", {"paths": {"/api/v1/preauthkey": {"get": {}}}})
    with pytest.raises(HeadscaleRefused, match=r"about 0\.26, supported are 0\.27 to 0\.30"):
        await client.version()


@pytest.mark.parametrize("text", ["v0.26.1", "v0.31.0", "v1.0.0"])
async def test_an_unsupported_version_is_refused(scripted: Scripted, client: HeadscaleClient, text: str) -> None:
    is_version(scripted, text)
    with pytest.raises(HeadscaleRefused, match="supported are") as refused:
        await client.list_nodes()
    assert refused.value.reason == "headscale_version"
    assert text in str(refused.value)


async def test_what_is_not_headscale_is_refused(scripted: Scripted, client: HeadscaleClient) -> None:
    with pytest.raises(HeadscaleRefused, match="not Headscale"):
        await client.version()
    with pytest.raises(HeadscaleRefused, match="may not be Headscale"):
        await client.health()


async def test_the_version_is_probed_once_and_again_after_a_refusal(
    scripted: Scripted, client: HeadscaleClient
) -> None:
    scripted.on("GET", "/version", {"version": "v0.28.0"})
    scripted.on("GET", "/version", {"version": "v0.29.0"})
    scripted.on("GET", "/api/v1/node", {"nodes": []})
    scripted.on("GET", "/api/v1/node", {"code": 2, "message": "no"}, status=500)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(client.version(), name="version")
    await client.list_nodes()
    assert len(scripted.requests("GET", "/version")) == 1
    with pytest.raises(HeadscaleRefused):
        await client.list_nodes()
    assert (await client.version()).api == (0, 29)


async def test_a_user_that_somebody_creates_meanwhile_is_found(scripted: Scripted, client: HeadscaleClient) -> None:
    scripted.on("GET", "/api/v1/user", {"users": []})
    scripted.on("GET", "/api/v1/user", {"users": [USER]})
    scripted.on("POST", "/api/v1/user", {"code": 13, "message": "UNIQUE constraint failed"}, status=500)
    assert await client.ensure_user("elizacloud") == "1"


async def test_the_policy_is_sent_as_text_and_read_as_hujson(scripted: Scripted, client: HeadscaleClient) -> None:
    scripted.on("PUT", "/api/v1/policy", {"policy": "{}"})
    scripted.on("GET", "/api/v1/policy", {"policy": '{"acls": [], /* none */}', "updatedAt": "2026-11-22T15:37:22Z"})
    scripted.on("GET", "/api/v1/policy", {"policy": "{broken"})
    await client.set_policy(default_policy((0, 29)))
    assert isinstance(scripted.requests("PUT", "/api/v1/policy")[0].body["policy"], str)
    assert await client.get_policy() == {"acls": []}
    with pytest.raises(HeadscaleRefused, match="not HuJSON"):
        await client.get_policy()


async def test_the_key_goes_only_where_it_is_needed_and_is_in_no_repr(
    scripted: Scripted, client: HeadscaleClient
) -> None:
    is_version(scripted, "v0.29.2")
    scripted.on("GET", "/health", {"status": "pass"})
    scripted.on("GET", "/api/v1/node", {"nodes": []})
    await client.health()
    await client.list_nodes()
    with_key = [asked.path for asked in scripted.asked if "Authorization" in asked.headers]
    assert with_key == ["/api/v1/node"]
    assert scripted.asked[-1].headers["Authorization"] == f"Bearer {API_KEY}"
    assert API_KEY not in repr(client) + repr(vars(client)) + repr(vars(client._http))


async def test_a_failing_health_is_an_error(scripted: Scripted, client: HeadscaleClient) -> None:
    scripted.on("GET", "/health", {"status": "fail"}, status=500, content_type="application/health+json")
    with pytest.raises(HeadscaleUnavailable):
        await client.health()
