"""What every Headscale of ours must do: the fake, devcontrol and each real version, with real tailscaleds joining."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from functools import partial

import pytest
import pytest_asyncio
from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, Invalid, Refused, TailnetUnavailable
from elizacloud.headscale.answers import KEY_REFUSED
from elizacloud.headscale.bootstrap import PolicyOutcome, ensure_policy
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.policy import default_policy, is_equivalent
from elizacloud.headscale.protocol import MintedKey
from elizacloud.model import AGENT_PORT, TAG_AGENT, TAG_RELAY, utc_now
from elizacloud.tailnet import dial
from tests.contract.headscale_servers import RealMachine, RealRig, Rig, parameters, rig_of, until
from tests.fakes.headscale import JoinRefused

# One server serves all cases of a kind, so that each starts it once; cases keep out of each other's way by their tags.
pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count()


SERVERS = parameters()
on_real_servers = pytest.mark.parametrize("server", SERVERS[1:], indirect=True)
"""For what the fake has not: packets and HTTP."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with rig_of(request.param) as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def rig(server: Rig, record_property: Callable[[str, object], None]) -> AsyncIterator[Rig]:
    record_property("control_server", server.name)
    yield server
    await server.stop_machines()


@pytest.fixture
def real(rig: Rig) -> RealRig:
    assert isinstance(rig, RealRig)
    return rig


async def test_a_server_is_known_by_its_public_key(rig: Rig) -> None:
    first = await rig.headscale.public_key()
    assert first
    assert await rig.headscale.public_key() == first


def agent_tags() -> tuple[str, ...]:
    return (TAG_AGENT, f"tag:a-c{next(_numbers)}", "tag:i-contract")


async def mint(rig: Rig, *tags: str, lifetime_seconds: float = 60) -> MintedKey:
    return await rig.headscale.create_preauth_key(tags=tags or agent_tags(), lifetime_seconds=lifetime_seconds)


async def key_ids(rig: Rig) -> set[str]:
    return {key.id for key in await rig.headscale.list_preauth_keys()}


async def test_it_is_healthy_and_of_a_supported_version(rig: Rig) -> None:
    await rig.headscale.health()
    assert (0, 27) <= (await rig.headscale.version()).api <= (0, 30)


async def test_without_a_policy_there_is_none_and_ours_is_installed_once(rig: Rig) -> None:
    assert await rig.headscale.get_policy() is None
    assert await ensure_policy(rig.headscale) is PolicyOutcome.INSTALLED
    assert await ensure_policy(rig.headscale) is PolicyOutcome.KEPT
    stored = await rig.headscale.get_policy()
    assert is_equivalent(stored, default_policy((await rig.headscale.version()).api))


async def test_the_operator_may_be_let_in_and_out_again(rig: Rig) -> None:
    assert await ensure_policy(rig.headscale, operator=True, adopt=True) is PolicyOutcome.REPLACED
    assert await ensure_policy(rig.headscale, operator=True) is PolicyOutcome.KEPT
    assert await ensure_policy(rig.headscale, adopt=True) is PolicyOutcome.REPLACED


async def test_a_policy_that_cannot_be_is_refused_and_the_old_one_stays(rig: Rig) -> None:
    before = await rig.headscale.get_policy()
    with pytest.raises(HeadscaleRefused):
        await rig.headscale.set_policy(
            {"tagOwners": {}, "acls": [{"action": "accept", "src": ["tag:nobody"], "dst": ["*:*"]}]}
        )
    with pytest.raises(HeadscaleRefused):
        await rig.headscale.set_policy({"noSuchSection": 1})
    assert await rig.headscale.get_policy() == before


async def test_a_user_is_created_once(rig: Rig) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(rig.headscale.ensure_user("contract"), name="user") for _ in range(3)]
    ids = {task.result() for task in tasks}
    assert ids == {await rig.headscale.ensure_user("contract")}
    assert all(user_id.isdecimal() for user_id in ids)
    assert await rig.headscale.ensure_user("contract-two") not in ids


async def test_a_key_has_an_id_and_a_value_that_does_not_show(rig: Rig) -> None:
    key = await mint(rig, "tag:agent", "tag:a-shown", lifetime_seconds=600)
    assert key.id.isdecimal()
    assert key.value.get_secret_value() not in repr(key)
    assert abs(key.expires_at - utc_now() - timedelta(seconds=600)) < timedelta(seconds=30)
    (listed,) = [listed for listed in await rig.headscale.list_preauth_keys() if listed.id == key.id]
    assert set(listed.tags) == {"tag:agent", "tag:a-shown"}
    assert not listed.reusable
    assert not listed.used
    assert listed.expires_at is not None
    assert abs(listed.expires_at - key.expires_at) < timedelta(seconds=1)
    assert key.value.get_secret_value() not in repr(listed)


async def test_keys_minted_at_the_same_time_are_different(rig: Rig) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(mint(rig), name="mint") for _ in range(6)]
    keys = [task.result() for task in tasks]
    assert len({key.id for key in keys}) == len({key.value.get_secret_value() for key in keys}) == 6
    assert {key.id for key in keys} <= await key_ids(rig)


@pytest.mark.parametrize("tags", [(), ("agent",), ("tag:Agent",), ("tag:a b",), ("tag:",), ("tag:1",)])
async def test_a_key_needs_tags_that_headscale_takes(rig: Rig, tags: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        await rig.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)


async def test_expiring_and_deleting_a_key_may_be_done_twice_and_to_none(rig: Rig) -> None:
    key = await mint(rig)
    await rig.headscale.expire_preauth_key(key.id)
    await rig.headscale.expire_preauth_key(key.id)
    await rig.headscale.delete_preauth_key(key.id)
    assert key.id not in await key_ids(rig)
    await rig.headscale.delete_preauth_key(key.id)
    await rig.headscale.expire_preauth_key(key.id)
    await rig.headscale.expire_preauth_key("987654")
    await rig.headscale.delete_preauth_key("987654")


async def test_a_node_that_is_not_there(rig: Rig) -> None:
    assert await rig.headscale.get_node("987654") is None
    await rig.headscale.delete_node("987654")


async def test_a_join_shows_as_a_node_with_the_id_of_its_key(rig: Rig) -> None:
    tags = agent_tags()
    key = await mint(rig, *tags)
    machine = await rig.join(key, "milaidy-bcdf")
    (node,) = [node for node in await rig.headscale.list_nodes() if node.preauth_key_id == key.id]
    assert node.id == machine.node_id
    assert node.id.isdecimal()
    assert set(node.tags) == set(tags)
    assert node.name == "milaidy-bcdf"
    assert node.given_name.startswith("milaidy-bcdf")
    assert node.ipv4 == machine.ipv4
    assert ipaddress.ip_address(machine.ipv4) in ipaddress.ip_network("100.64.0.0/10")
    assert node.node_key.startswith("nodekey:")
    assert node.machine_key.startswith("mkey:")
    assert node.online
    assert node.created_at is not None
    seen = await rig.headscale.get_node(node.id)
    assert seen is not None
    assert (seen.id, seen.preauth_key_id, set(seen.tags), seen.ipv4) == (node.id, key.id, set(tags), node.ipv4)


async def test_a_key_lets_one_machine_in(rig: Rig) -> None:
    key = await mint(rig)
    await rig.join(key)
    with pytest.raises(JoinRefused):
        await rig.join(key)
    nodes = [node for node in await rig.headscale.list_nodes() if node.preauth_key_id == key.id]
    assert len(nodes) == 1


async def test_an_expired_or_deleted_key_lets_nobody_in(rig: Rig) -> None:
    too_late = await mint(rig, lifetime_seconds=-60)
    with pytest.raises(JoinRefused):
        await rig.join(too_late)
    withdrawn = await mint(rig)
    await rig.headscale.expire_preauth_key(withdrawn.id)
    with pytest.raises(JoinRefused):
        await rig.join(withdrawn)
    gone = await mint(rig)
    await rig.headscale.delete_preauth_key(gone.id)
    with pytest.raises(JoinRefused):
        await rig.join(gone)


async def test_a_node_outlives_its_expired_key_and_restarts_without_one(rig: Rig) -> None:
    key = await mint(rig)
    machine = await rig.join(key)
    before = (machine.node_id, machine.ipv4)
    await rig.headscale.expire_preauth_key(key.id)
    await machine.stop()
    await machine.start()
    assert (machine.node_id, machine.ipv4) == before
    node = await rig.headscale.get_node(machine.node_id)
    assert node is not None
    assert (node.preauth_key_id, node.ipv4) == (key.id, machine.ipv4)


async def test_a_stopped_machine_shows_as_offline_and_comes_back(rig: Rig) -> None:
    machine = await rig.join(await mint(rig))

    async def is_online() -> bool:
        node = await rig.headscale.get_node(machine.node_id)
        assert node is not None
        return node.online

    await until(is_online)
    await machine.stop()

    async def is_offline() -> bool:
        return not await is_online()

    # Headscale waits 10 s for the machine to come back before it says so.
    await until(is_offline, within_seconds=30)
    await machine.start()
    await until(is_online)


async def test_a_node_expires_only_by_hand_and_its_machine_cannot_come_back_as_it_was(rig: Rig) -> None:
    machine, other = await rig.join(await mint(rig)), await rig.join(await mint(rig))

    async def expiry_of(node_id: str) -> datetime | None:
        node = await rig.headscale.get_node(node_id)
        (listed,) = [one for one in await rig.headscale.list_nodes() if one.id == node_id]
        assert node is not None
        assert listed.expires_at == node.expires_at
        return node.expires_at

    assert await expiry_of(machine.node_id) is None
    later = utc_now() + timedelta(days=1)
    await rig.expire_node(machine.node_id, later)
    then = await expiry_of(machine.node_id)
    assert then is not None
    assert abs(then - later) < timedelta(seconds=1)

    await rig.expire_node(machine.node_id)
    now = await expiry_of(machine.node_id)
    assert now is not None
    assert abs(now - utc_now()) < timedelta(seconds=30)
    await machine.stop()
    with pytest.raises(JoinRefused):
        await machine.start()
    assert await expiry_of(other.node_id) is None


async def test_a_deleted_node_is_gone_and_its_id_never_comes_back(rig: Rig) -> None:
    key = await mint(rig)
    machine = await rig.join(key)
    await machine.stop()
    await rig.headscale.delete_node(machine.node_id)
    assert await rig.headscale.get_node(machine.node_id) is None
    assert machine.node_id not in {node.id for node in await rig.headscale.list_nodes()}
    await rig.headscale.delete_node(machine.node_id)
    await rig.headscale.delete_preauth_key(key.id)
    assert key.id not in await key_ids(rig)
    later_key = await mint(rig)
    later = await rig.join(later_key)
    assert int(later.node_id) > int(machine.node_id)
    assert int(later_key.id) > int(key.id)


async def test_a_deleted_node_frees_its_machine_for_nothing(rig: Rig) -> None:
    """Its key is spent: without a new one the machine stays out."""
    key = await mint(rig)
    machine = await rig.join(key)
    await machine.stop()
    await rig.headscale.delete_node(machine.node_id)
    with pytest.raises(JoinRefused):
        await rig.join(key)


async def test_everything_is_there_after_a_restart_of_the_server(rig: Rig) -> None:
    key, unused = await mint(rig), await mint(rig)
    machine = await rig.join(key)
    policy = await rig.headscale.get_policy()
    await rig.restart()
    node = await rig.headscale.get_node(machine.node_id)
    assert node is not None
    assert (node.preauth_key_id, node.ipv4) == (key.id, machine.ipv4)
    assert unused.id in await key_ids(rig)
    assert await rig.headscale.get_policy() == policy

    async def is_online() -> bool:
        seen = await rig.headscale.get_node(machine.node_id)
        return seen is not None and seen.online

    await until(is_online, within_seconds=30)
    late = await rig.join(unused)
    assert late.node_id != machine.node_id


@on_real_servers
async def test_a_wrong_api_key_is_told_by_its_reason(real: RealRig) -> None:
    for wrong in ("", "nonsense", "prefix12.secret", "hskey-api-000000000000-" + "0" * 64):
        client = HeadscaleClient(real.server.url, SecretStr(wrong))
        with pytest.raises(HeadscaleRefused, match="ELIZACLOUD_HEADSCALE_API_KEY") as refused:
            await client.list_nodes()
        await client.close()
        assert refused.value.reason == KEY_REFUSED


@on_real_servers
async def test_a_zero_expiration_counts_as_expired(real: RealRig) -> None:
    """The quirk that makes us always send one."""
    dialect_needs_user = (await real.headscale.version()).api == (0, 27)
    body: dict[str, object] = {"aclTags": list(agent_tags())}
    if dialect_needs_user:
        body["user"] = await real.headscale.ensure_user("elizacloud")
    answer = await real.headscale._http.call("POST", "/api/v1/preauthkey", doing="mint", body=body)
    assert answer.value is not None
    minted = answer.value["preAuthKey"]
    key = MintedKey(minted["id"], SecretStr(minted["key"]), utc_now())
    assert isinstance(minted["id"], str)
    with pytest.raises(JoinRefused):
        await real.join(key)


@on_real_servers
async def test_the_relay_reaches_agents_on_their_port_and_nobody_reaches_anything_else(real: RealRig) -> None:
    assert await ensure_policy(real.headscale, adopt=True) in PolicyOutcome
    relay = await real.join(await mint(real, TAG_RELAY), "relay")
    agent = await real.join(await mint(real), "agent")
    other = await real.join(await mint(real), "other")
    sink = await asyncio.start_server(_greet, "127.0.0.1", 0)
    port: int = sink.sockets[0].getsockname()[1]
    async with sink:
        for machine in (relay, agent, other):
            await machine.api.set_serve(AGENT_PORT, f"127.0.0.1:{port}")
        for target in (agent, other):
            await until(partial(relay.knows_way_to, target.ipv4))
            assert await _greeting(relay, target.ipv4, AGENT_PORT) == b"hello"
        async with asyncio.TaskGroup() as group:
            for source, target, closed in (
                (relay, agent, port),  # what the agent's machine has on its loopback
                (agent, relay, AGENT_PORT),
                (agent, relay, port),
                (agent, other, AGENT_PORT),
                (other, agent, AGENT_PORT),
            ):
                group.create_task(_assert_closed(source, target.ipv4, closed), name="closed")


async def _assert_closed(source: RealMachine, ip: str, port: int) -> None:
    with pytest.raises((TailnetUnavailable, Refused)):
        await _greeting(source, ip, port, within_seconds=2)


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await writer.drain()
    writer.close()


async def _greeting(source: RealMachine, ip: str, port: int, *, within_seconds: float = 10) -> bytes:
    reader, writer = await dial(source.tailscaled.socket, ip, port, within_seconds=within_seconds)
    try:
        async with asyncio.timeout(within_seconds):
            return await reader.read()
    finally:
        writer.close()
