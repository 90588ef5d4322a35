"""Several hosts as one runtime: what tests/contract/test_runtime.py cannot ask of every runtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

from elizacloud.errors import Misconfigured, RuntimeRefused, RuntimeUnavailable
from elizacloud.runtime.hosts import Hosts
from elizacloud.runtime.protocol import Instance, InstanceSpec, Phase
from tests.contract.runtimes import labels, secrets, spec
from tests.fakes.runtime import FailsToStart, FakeRuntime

LOCAL, BIG = "a" * 16, "b" * 16
"""An agent of each host."""
SECONDS = 20


@pytest.fixture
def local() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def big() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def hosts(local: FakeRuntime, big: FakeRuntime) -> Hosts:
    return Hosts({"local": local, "big": big})


def of(agent_id: str, *, run: int = 1) -> InstanceSpec:
    return spec(labels(agent_id=agent_id, run=run))


async def next_of(changes: AsyncGenerator[Instance, None]) -> Instance:
    async with asyncio.timeout(SECONDS):
        return await anext(changes)


async def test_an_instance_is_on_its_host_and_nowhere_else(hosts: Hosts, local: FakeRuntime, big: FakeRuntime) -> None:
    ref = await hosts.create(of(BIG))
    await hosts.start(ref, secrets())
    await hosts.pause(ref)
    await hosts.resume(ref)
    await hosts.stop(ref, grace_seconds=1)
    again = await hosts.create(of(BIG, run=2))
    await hosts.start(again, secrets())
    await hosts.usage(again)
    assert [line async for line in hosts.logs(again, tail=1, follow=False)] == ["started"]
    assert [instance.ref for instance in await hosts.list("one")] == [again]
    [volume] = await hosts.list_volumes("one", agent_id=BIG)
    await hosts.remove(again, volume=False)
    await hosts.remove(volume.ref, volume=True)

    assert ref == f"big/{BIG}.1.1"
    assert big.volumes == set()
    assert {call for call, _ in local.calls} == {"list", "list_volumes"}, "the other host was told to do something"


async def test_what_ran_before_there_was_a_second_host_goes_on(local: FakeRuntime, hosts: Hosts) -> None:
    before = await local.create(of(LOCAL))
    await local.start(before, secrets())

    await hosts.pause(before)

    seen = await hosts.inspect(before)
    assert seen is not None
    assert (seen.ref, seen.phase) == (before, Phase.PAUSED)
    assert await hosts.list("one") == [seen]
    assert await hosts.create(of(LOCAL)) == before


async def test_a_host_that_is_down_hides_nothing(hosts: Hosts, big: FakeRuntime) -> None:
    await hosts.create(of(LOCAL))
    ref = await hosts.create(of(BIG))
    big.answers = False

    with pytest.raises(RuntimeUnavailable):
        await hosts.list("one")
    with pytest.raises(RuntimeUnavailable):
        await hosts.list_volumes("one", agent_id=LOCAL)
    with pytest.raises(RuntimeUnavailable):
        await hosts.inspect(ref)
    with pytest.raises(RuntimeUnavailable):
        await hosts.on("big").list("one")


async def test_a_host_that_is_down_holds_up_no_other(hosts: Hosts, big: FakeRuntime) -> None:
    await hosts.create(of(BIG))
    big.answers = False

    ref = await hosts.create(of(LOCAL))
    await hosts.start(ref, secrets())
    assert [volume.agent_id for volume in await hosts.on("local").list_volumes("one")] == [LOCAL]
    assert [instance.ref for instance in await hosts.on("local").list("one")] == [ref]
    await hosts.stop(ref, grace_seconds=1)
    await hosts.remove(ref, volume=True)

    assert await hosts.on("local").list("one") == []


UNKNOWN = f"gone/{BIG}.1.1"
CALLS: dict[str, Callable[[Hosts], Awaitable[object]]] = {
    "start": lambda hosts: hosts.start(UNKNOWN, secrets()),
    "pause": lambda hosts: hosts.pause(UNKNOWN),
    "resume": lambda hosts: hosts.resume(UNKNOWN),
    "stop": lambda hosts: hosts.stop(UNKNOWN, grace_seconds=1),
    "remove": lambda hosts: hosts.remove(UNKNOWN, volume=True),
    "inspect": lambda hosts: hosts.inspect(UNKNOWN),
    "logs": lambda hosts: anext(hosts.logs(UNKNOWN, tail=1, follow=False)),
    "usage": lambda hosts: hosts.usage(UNKNOWN),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_nothing_is_known_of_a_host_that_is_not_named(
    hosts: Hosts, call: Callable[[Hosts], Awaitable[object]]
) -> None:
    with pytest.raises(RuntimeUnavailable, match="gone") as unavailable:
        await call(hosts)

    assert unavailable.value.reason == "unknown_host"


async def test_a_new_agent_lives_where_the_fewest_do(hosts: Hosts) -> None:
    assert hosts.choose({}) == "local"
    assert hosts.choose({"local": 1}) == "big"
    assert hosts.choose({"local": 2, "big": 3}) == "local"
    assert hosts.choose({"local": 2, "big": 1, "another": 0}) == "big"


async def test_a_new_agent_is_not_sent_to_a_host_that_did_not_answer(
    hosts: Hosts, local: FakeRuntime, big: FakeRuntime
) -> None:
    big.answers = False
    with pytest.raises(RuntimeUnavailable):
        await hosts.list("one")
    assert hosts.choose({"local": 9}) == "local"

    local.answers = False
    with pytest.raises(RuntimeUnavailable):
        await hosts.list("one")
    assert hosts.choose({"local": 9}) == "big", "nothing is known to be better"

    local.answers = big.answers = True
    await hosts.list("one")
    assert hosts.choose({"local": 9}) == "big"


async def test_a_new_agent_is_not_sent_to_a_host_that_cannot_be_used(local: FakeRuntime) -> None:
    class NoCertificate(FakeRuntime):
        async def list(self, installation_id: str) -> list[Instance]:
            raise Misconfigured("cannot use this Docker: its certificate is missing")

    hosts = Hosts({"local": local, "big": NoCertificate()})
    with pytest.raises(Misconfigured):
        await hosts.list("one")

    assert hosts.choose({"local": 9}) == "local"


async def test_a_host_that_says_no_answered(local: FakeRuntime) -> None:
    hosts = Hosts({"local": local, "big": FailsToStart()})
    ref = await hosts.create(of(BIG))

    with pytest.raises(RuntimeRefused):
        await hosts.start(ref, secrets())

    assert hosts.choose({"local": 1}) == "big"


async def test_changes_of_all_hosts_are_told(hosts: Hosts, local: FakeRuntime, big: FakeRuntime) -> None:
    refs = {await hosts.create(of(LOCAL)), await hosts.create(of(BIG))}
    async with aclosing(hosts.watch()) as changes:
        assert {(await next_of(changes)).ref for _ in refs} == refs

        for ref in refs:
            await hosts.start(ref, secrets())
            told = await next_of(changes)
            assert (told.ref, told.phase) == (ref, Phase.RUNNING)

    assert local._watchers == big._watchers == []


async def test_a_host_that_cannot_be_watched_is_tried_again_while_the_others_are_watched(
    hosts: Hosts, big: FakeRuntime
) -> None:
    there = await hosts.create(of(BIG))
    big.answers = False
    async with aclosing(hosts.watch()) as changes:
        here = await hosts.create(of(LOCAL))
        assert (await next_of(changes)).ref == here

        big.answers = True
        assert (await next_of(changes)).ref == there


async def test_a_bug_in_a_watch_is_not_swallowed(local: FakeRuntime) -> None:
    class Broken(FakeRuntime):
        async def watch(self) -> AsyncGenerator[Instance, None]:
            async for instance in super().watch():
                if instance.labels.agent_id == BIG:
                    raise ZeroDivisionError
                yield instance

    hosts = Hosts({"local": local, "big": Broken()})
    await hosts.create(of(BIG))
    async with aclosing(hosts.watch()) as changes:
        with pytest.raises(ZeroDivisionError):
            await next_of(changes)


async def test_one_host_that_answers_is_enough_to_be_ready(local: FakeRuntime, big: FakeRuntime) -> None:
    class Hangs(FakeRuntime):
        async def list(self, installation_id: str) -> list[Instance]:
            await asyncio.Event().wait()
            raise AssertionError

    async with asyncio.timeout(SECONDS):
        await Hosts({"local": Hangs(), "big": big}).check("one")
    hosts = Hosts({"local": local, "big": big})
    local.answers = False
    await hosts.check("one")

    big.answers = False
    with pytest.raises(RuntimeUnavailable):
        await hosts.check("one")


async def test_owners_are_kept_apart_only_where_all_hosts_do_so(local: FakeRuntime, big: FakeRuntime) -> None:
    assert Hosts({"local": local, "big": big}).isolates
    big.isolates = False
    assert not Hosts({"local": local, "big": big}).isolates


async def test_all_are_closed(hosts: Hosts, local: FakeRuntime, big: FakeRuntime) -> None:
    await hosts.close()

    assert not local.answers
    assert not big.answers
