"""What every runtime does. A new one is right when it passes this file; the fake that other tests use passes it too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace

import pytest

from elizacloud.errors import NotFound, RuntimeRefused, RuntimeUnavailable
from elizacloud.model import AgentSpec
from elizacloud.runtime.docker.usage import USAGE_UNKNOWN
from elizacloud.runtime.protocol import Instance, Phase, Runtime
from tests.conftest import DOCKER
from tests.contract.docker_runtime import docker_rig, embedded_rig, rootless_rig, ssh_rig
from tests.contract.runtimes import DIES, RUNS, FakeRig, HostsRig, Rig, labels, process_rig, secrets, spec
from tests.docker_engine import DockerEngine


@pytest.fixture(params=["fake", "hosts", "process", "docker", "embedded", "ssh", "rootless"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str, request: pytest.FixtureRequest) -> DockerEngine | None:
    if kind not in ("docker", "embedded", "ssh", "rootless"):
        return None
    request.node.user_properties.append((DOCKER, True))
    engine: DockerEngine = request.getfixturevalue("rootless_engine" if kind == "rootless" else "docker_engine")
    return engine


@pytest.fixture
async def rig(kind: str, engine: DockerEngine | None, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if kind == "fake":
        yield FakeRig()
    elif kind == "hosts":
        yield HostsRig()
    elif engine is not None and kind == "embedded":
        async with embedded_rig(engine) as embedded:
            yield embedded
    elif engine is not None and kind == "ssh":
        async with ssh_rig(engine, request.getfixturevalue("docker_sshd")) as ssh:
            yield ssh
    elif engine is not None and kind == "rootless":
        async with rootless_rig(engine) as rootless:
            yield rootless
    elif engine is not None:
        async with docker_rig(engine) as docker:
            yield docker
    else:
        async with process_rig() as process:
            await process.start()
            yield process


@pytest.fixture
def runtime(rig: Rig) -> Runtime:
    return rig.runtime


async def phase_of(runtime: Runtime, ref: str) -> Phase:
    instance = await runtime.inspect(ref)
    assert instance is not None
    return instance.phase


async def until(runtime: Runtime, ref: str, phase: Phase) -> Instance:
    """The first state of the instance that is in this phase, as seen by watch()."""
    async with asyncio.timeout(20):
        async for instance in runtime.watch():
            if instance.ref == ref and instance.phase is phase:
                return instance
    raise AssertionError("watch() ended")


async def test_an_instance_is_created_but_not_started(runtime: Runtime) -> None:
    ref = await runtime.create(spec())

    assert await runtime.inspect(ref) == Instance(ref, spec().labels, Phase.CREATED)


async def test_creating_twice_gives_the_same_instance(runtime: Runtime) -> None:
    async with asyncio.TaskGroup() as tasks:
        created = [tasks.create_task(runtime.create(spec()), name=f"create {n}") for n in range(3)]

    assert len({task.result() for task in created}) == 1
    assert len(await runtime.list("one")) == 1


async def test_the_list_has_only_this_installations_instances(runtime: Runtime) -> None:
    await runtime.create(spec(labels(agent_id="a" * 16)))
    await runtime.create(spec(labels(agent_id="b" * 16)))
    await runtime.create(spec(labels(agent_id="c" * 16, installation_id="two")))

    assert {instance.labels.agent_id for instance in await runtime.list("one")} == {"a" * 16, "b" * 16}
    assert {instance.labels.agent_id for instance in await runtime.list("two")} == {"c" * 16}
    assert await runtime.list("three") == []


async def test_it_runs_is_frozen_thawed_and_stopped(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    await runtime.start(ref, secrets())
    running = await runtime.inspect(ref)
    assert running is not None
    assert running.phase is Phase.RUNNING
    assert running.started_at is not None

    await runtime.pause(ref)
    assert await phase_of(runtime, ref) is Phase.PAUSED
    await runtime.resume(ref)
    assert await phase_of(runtime, ref) is Phase.RUNNING
    await runtime.stop(ref, grace_seconds=5)

    stopped = await runtime.inspect(ref)
    assert stopped is not None
    assert stopped.phase is Phase.EXITED
    assert stopped.exit_code is not None
    assert stopped.reason == "stopped"


async def test_each_call_may_be_repeated(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    for _ in range(2):
        await runtime.start(ref, secrets())
    first = await runtime.inspect(ref)
    await runtime.start(ref, secrets())
    assert await runtime.inspect(ref) == first
    for _ in range(2):
        await runtime.pause(ref)
    for _ in range(2):
        await runtime.resume(ref)
    for _ in range(2):
        await runtime.stop(ref, grace_seconds=5)
    for _ in range(2):
        await runtime.remove(ref, volume=True)

    assert await runtime.inspect(ref) is None


async def test_a_frozen_instance_can_be_stopped_within_its_grace(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    await runtime.start(ref, secrets())
    await runtime.pause(ref)

    await runtime.stop(ref, grace_seconds=5)

    assert await phase_of(runtime, ref) is Phase.EXITED


async def test_a_running_instance_can_be_removed(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    await runtime.start(ref, secrets())

    await runtime.remove(ref, volume=True)

    assert await runtime.inspect(ref) is None
    assert await runtime.list("one") == []


async def test_the_volume_outlives_the_instance_until_it_is_removed_too(rig: Rig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.runtime.remove(ref, volume=False)
    assert rig.has_volume(labels())

    await rig.runtime.remove(ref, volume=True)

    assert not rig.has_volume(labels())


async def test_volumes_are_listed_with_and_without_an_instance(runtime: Runtime) -> None:
    await runtime.create(spec(labels(agent_id="a" * 16, generation=2)))
    await runtime.remove(await runtime.create(spec(labels(agent_id="b" * 16, run=3))), volume=False)
    await runtime.remove(await runtime.create(spec(labels(agent_id="d" * 16))), volume=True)
    await runtime.create(spec(labels(agent_id="c" * 16, installation_id="two")))

    listed = await runtime.list_volumes("one")

    assert {(volume.agent_id, volume.generation) for volume in listed} == {("a" * 16, 2), ("b" * 16, 1)}
    assert all(volume.whole for volume in listed)
    [of_one] = await runtime.list_volumes("one", agent_id="b" * 16)
    assert of_one in listed
    assert await runtime.list_volumes("one", agent_id="c" * 16) == []
    assert await runtime.list_volumes("three") == []


async def test_a_volume_is_removed_by_its_own_ref_unless_an_instance_has_it(rig: Rig) -> None:
    ref = await rig.runtime.create(spec())
    [volume] = await rig.runtime.list_volumes("one")

    await rig.runtime.remove(volume.ref, volume=True)
    assert rig.has_volume(labels()), "the volume of an instance was removed under it"

    await rig.runtime.remove(ref, volume=False)
    await rig.runtime.remove(volume.ref, volume=True)
    assert not rig.has_volume(labels())
    assert await rig.runtime.list_volumes("one") == []


async def test_an_instance_that_is_not_there(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    await runtime.remove(ref, volume=True)

    assert await runtime.inspect(ref) is None
    await runtime.stop(ref, grace_seconds=1)
    with pytest.raises(NotFound):
        await runtime.start(ref, secrets())
    with pytest.raises(NotFound):
        await runtime.pause(ref)
    with pytest.raises(NotFound):
        await runtime.resume(ref)
    with pytest.raises(NotFound):
        _ = [line async for line in runtime.logs(ref, tail=10, follow=False)]


async def test_what_is_not_running_cannot_be_frozen(runtime: Runtime) -> None:
    ref = await runtime.create(spec())

    with pytest.raises(RuntimeRefused):
        await runtime.pause(ref)
    with pytest.raises(RuntimeRefused):
        await runtime.resume(ref)
    await runtime.stop(ref, grace_seconds=1)

    assert await phase_of(runtime, ref) is Phase.CREATED


async def test_a_frozen_instance_is_not_started(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    await runtime.start(ref, secrets())
    await runtime.pause(ref)

    with pytest.raises(RuntimeRefused) as refused:
        await runtime.start(ref, secrets())

    assert refused.value.reason == "paused"


async def test_a_later_run_takes_the_volume_over_from_one_that_ended(rig: Rig) -> None:
    first = await rig.runtime.create(spec(labels(run=1)))
    await rig.runtime.start(first, secrets())
    with pytest.raises(RuntimeRefused) as refused:
        await rig.runtime.create(spec(labels(run=2)))
    assert refused.value.reason == "earlier_run_runs"
    await rig.runtime.stop(first, grace_seconds=5)

    second = await rig.runtime.create(spec(labels(run=2)))

    assert second != first
    assert await rig.runtime.inspect(first) is None
    assert [instance.labels.run for instance in await rig.runtime.list("one")] == [2]
    await rig.runtime.remove(first, volume=True)
    assert rig.has_volume(labels()), "a late removal of an ended run took the volume of the present one"


async def test_an_earlier_run_is_not_created_after_a_later_one(runtime: Runtime) -> None:
    await runtime.create(spec(labels(run=2)))

    with pytest.raises(RuntimeRefused) as refused:
        await runtime.create(spec(labels(run=1)))

    assert refused.value.reason == "later_run_exists"


async def test_a_volume_is_never_another_installations(runtime: Runtime) -> None:
    await runtime.create(spec(labels(installation_id="one")))

    with pytest.raises(RuntimeRefused) as refused:
        await runtime.create(spec(labels(installation_id="two", run=2)))

    assert refused.value.reason == "not_ours"


async def test_generations_of_one_agent_have_their_own_volumes(rig: Rig) -> None:
    first = await rig.runtime.create(spec(labels(generation=1)))
    second = await rig.runtime.create(spec(labels(generation=2)))
    assert first != second

    await rig.runtime.remove(first, volume=True)

    assert not rig.has_volume(labels(generation=1))
    assert rig.has_volume(labels(generation=2))


async def test_an_agent_that_dies_is_seen_with_its_exit_code_and_a_reason(rig: Rig) -> None:
    runtime = rig.dying(exit_code=3)
    ref = await runtime.create(spec(command=DIES))
    await runtime.start(ref, secrets())

    ended = await until(runtime, ref, Phase.EXITED)

    assert ended.exit_code == 3
    assert "exit status 3" in ended.reason


async def test_what_exited_can_be_started_again(rig: Rig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.runtime.start(ref, secrets())
    await rig.runtime.stop(ref, grace_seconds=5)

    await rig.runtime.start(ref, secrets())

    instance = await rig.runtime.inspect(ref)
    assert instance is not None
    assert (instance.phase, instance.exit_code, instance.reason) == (Phase.RUNNING, None, "")


async def test_a_start_that_cannot_succeed_is_refused(rig: Rig) -> None:
    runtime = rig.failing_to_start()
    ref = await runtime.create(spec(command=("/no/such/command",)))

    with pytest.raises(RuntimeRefused) as refused:
        await runtime.start(ref, secrets())

    assert refused.value.reason == "spawn_failed"
    assert await phase_of(runtime, ref) is not Phase.RUNNING


async def test_logs_are_the_last_lines_then_new_ones(rig: Rig) -> None:
    ref = await rig.runtime.create(spec(command=RUNS))
    await rig.runtime.start(ref, secrets())

    async with asyncio.timeout(10):
        lines = rig.runtime.logs(ref, tail=100, follow=True)
        while "started" not in await anext(lines):
            pass
    await rig.runtime.stop(ref, grace_seconds=5)

    kept = [line async for line in rig.runtime.logs(ref, tail=1000, follow=False)]
    assert any("started" in line for line in kept)
    assert len([line async for line in rig.runtime.logs(ref, tail=1, follow=False)]) == 1
    assert [line async for line in rig.runtime.logs(ref, tail=0, follow=False)] == []


async def test_what_it_uses_is_told_while_it_runs(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    with pytest.raises(RuntimeRefused) as refused:
        await runtime.usage(ref)
    assert refused.value.reason == "not_running"
    await runtime.start(ref, secrets())

    try:
        used = await runtime.usage(ref)
    except RuntimeUnavailable as error:
        if error.reason != USAGE_UNKNOWN:
            raise
        pytest.skip(f"this Docker counts nothing: {error}")

    assert used.memory_bytes > 0
    assert 0 <= used.cpu_seconds <= (await runtime.usage(ref)).cpu_seconds
    await runtime.pause(ref)
    assert (await runtime.usage(ref)).memory_bytes > 0
    await runtime.remove(ref, volume=True)
    with pytest.raises(NotFound):
        await runtime.usage(ref)


async def test_watching_begins_with_what_is_there(runtime: Runtime) -> None:
    ref = await runtime.create(spec())

    async with asyncio.timeout(10):
        assert (await anext(aiter(runtime.watch()))).ref == ref


async def test_secrets_are_in_no_answer(runtime: Runtime) -> None:
    ref = await runtime.create(spec())
    given = secrets()
    await runtime.start(ref, given)

    shown = repr(await runtime.inspect(ref)) + repr(await runtime.list("one"))

    for secret in (given.agent_token, given.join_token, given.busy_token):
        assert secret.get_secret_value() not in shown


async def test_a_runtime_that_is_down_is_unavailable_and_not_empty(rig: Rig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.takes_down()

    with pytest.raises(RuntimeUnavailable):
        await rig.runtime.list("one")
    with pytest.raises(RuntimeUnavailable):
        await rig.runtime.list_volumes("one")
    with pytest.raises(RuntimeUnavailable):
        await rig.runtime.inspect(ref)
    with pytest.raises(RuntimeUnavailable):
        await rig.runtime.start(ref, secrets())
    with pytest.raises(RuntimeUnavailable):
        _ = [line async for line in rig.runtime.logs(ref, tail=1, follow=False)]


async def test_start_stop_and_remove_at_once_leave_a_whole_instance_or_none(runtime: Runtime) -> None:
    for _ in range(3):
        ref = await runtime.create(spec())
        async with asyncio.TaskGroup() as tasks:
            start = tasks.create_task(_ignoring(NotFound, runtime.start(ref, secrets())), name="start")
            tasks.create_task(runtime.stop(ref, grace_seconds=5), name="stop")
            tasks.create_task(runtime.remove(ref, volume=True), name="remove")
        assert start.done()
        assert await runtime.inspect(ref) is None


async def _ignoring(kind: type[Exception], call: Awaitable[None]) -> None:
    with contextlib.suppress(kind):
        await call


async def test_the_spec_of_an_agent_may_be_empty(runtime: Runtime) -> None:
    ref = await runtime.create(replace(spec(), agent=AgentSpec()))

    assert await phase_of(runtime, ref) is Phase.CREATED
