"""The process host as a process: what outlives what, what is left behind (nothing), what it keeps and does not keep."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.errors import RuntimeRefused, RuntimeUnavailable
from elizacloud.model import AgentSpec
from elizacloud.runtime.process import ProcessRuntime
from elizacloud.runtime.protocol import Instance, InstanceSpec, Phase
from tests.contract.runtimes import RUNS, ProcessRig, labels, process_rig, secrets, spec
from tests.disk import files

KEY = "hskey-auth-onlyinmemory"


@pytest.fixture
async def rig() -> AsyncIterator[ProcessRig]:
    async with process_rig() as made:
        await made.start()
        yield made


def running(code: str, agent: AgentSpec | None = None, *, run: int = 1) -> InstanceSpec:
    """An agent that runs this Python code, then waits."""
    command = (sys.executable, "-c", f"{code}\nimport signal; print('done', flush=True); signal.pause()")
    return replace(spec(labels(run=run)), agent=replace(agent or AgentSpec(), command=command))


async def started(rig: ProcessRig, of: InstanceSpec, *, key: str | None = KEY) -> str:
    """Create and start it; its code has run when this returns."""
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=key))
    await line_of(rig, ref, "done")
    return ref


async def line_of(rig: ProcessRig, ref: str, text: str) -> str:
    async with asyncio.timeout(20):
        async for line in rig.runtime.logs(ref, tail=1000, follow=True):
            if text in line:
                return line
    raise AssertionError(f"the log ended without {text}")


async def until(rig: ProcessRig, ref: str, phase: Phase) -> Instance:
    async with asyncio.timeout(20):
        async for instance in rig.runtime.watch():
            if instance.ref == ref and instance.phase is phase:
                return instance
    raise AssertionError("watch() ended")


def processes_of(directory: Path) -> dict[int, str]:
    """Everything that runs with this directory in its arguments or environment: pid -> command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                while not (argv := (entry / "cmdline").read_bytes()):
                    # A process that is just becoming a program has none yet; one of the kernel, or ended, has no program.
                    (entry / "exe").readlink()
                if str(directory).encode() in argv + (entry / "environ").read_bytes():
                    found[int(entry.name)] = argv.replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def tailscaled_of(rig: ProcessRig) -> int:
    (pid,) = [pid for pid, argv in processes_of(rig.directory).items() if "--tun=userspace-networking" in argv]
    return pid


async def until_key_given(rig: ProcessRig) -> None:
    """Return when tailscaled was told the pre-auth key."""
    async with asyncio.timeout(20):
        while b"login-interactive" not in (rig.volume(labels()) / "tailscaled.log").read_bytes():
            await asyncio.sleep(0)


def exited(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until_reaped(pid: int) -> None:
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0)


async def until_exited(*pids: int) -> None:
    async with asyncio.timeout(20):
        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(pidfd, gone.set)
            try:
                await gone.wait()
            finally:
                asyncio.get_running_loop().remove_reader(pidfd)
                os.close(pidfd)


# What an agent gets


async def test_an_agent_sees_its_own_environment_and_none_of_ours() -> None:
    async with process_rig() as rig:
        await rig.start(environment={"ELIZACLOUD_OPERATOR_TOKEN": "ours", "AWS_SECRET_ACCESS_KEY": "the operator's"})
        code = "import json, os, pathlib; pathlib.Path('env.json').write_text(json.dumps(dict(os.environ)))"
        agent = AgentSpec(environment={"NAME": "Ada", "TS_SOCKET": "/evil"}, secrets={"SK": SecretStr("sk-1")})

        ref = await started(rig, running(code, agent))

        seen = json.loads((rig.volume(labels()) / "state" / "env.json").read_text())
        assert (seen["NAME"], seen["SK"], seen["CONTAINER_ID"]) == ("Ada", "sk-1", labels().agent_id)
        assert seen["MILADY_API_BIND"] == "127.0.0.1"
        assert seen["PORT"] == seen["MILADY_PORT"] == seen["ELIZA_PORT"]
        assert Path(seen["ELIZACLOUD_JOIN_TOKEN"].removeprefix("file:")).read_text() == "join-token"
        assert not {"ELIZACLOUD_OPERATOR_TOKEN", "AWS_SECRET_ACCESS_KEY", "TS_SOCKET"} & set(seen)
        assert KEY not in json.dumps(seen)
        assert "TS_SOCKET is reserved" in await line_of(rig, ref, "TS_SOCKET")


async def test_the_config_is_a_private_file(rig: ProcessRig) -> None:
    config = {"theme": "milady", "nested": {"n": [1, "ü"]}}
    await rig.runtime.create(replace(spec(), agent=AgentSpec(config=config)))

    file = rig.volume(labels()) / "agent-config.json"
    assert json.loads(file.read_text()) == config
    assert file.stat().st_mode & 0o777 == 0o600


async def test_the_stub_agent_answers_on_its_own_socket(rig: ProcessRig) -> None:
    ref = await rig.runtime.create(replace(spec(), agent=AgentSpec()))
    await rig.runtime.start(ref, secrets())
    socket = rig.directory / "run" / f"{labels().agent_id}-1" / "agent.sock"

    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as http, asyncio.timeout(20):
        while True:
            try:
                async with http.get(
                    "http://100.64.0.9:2138/api/health", headers={"Authorization": "Bearer agent-token"}
                ) as response:
                    assert response.status == 200
                    assert "ready" in await response.json()
                    return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0)


async def test_a_wanted_port_that_is_taken_is_refused(rig: ProcessRig) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ref = await rig.runtime.create(replace(spec(), agent=AgentSpec(command=RUNS, port=port)))

    with pytest.raises(RuntimeRefused) as refused:
        await rig.runtime.start(ref, secrets())
    assert refused.value.reason == "port_in_use"

    server.close()
    await server.wait_closed()
    await rig.runtime.start(ref, secrets())


async def test_the_key_is_in_no_file_and_no_command_line(rig: ProcessRig) -> None:
    await started(rig, running("pass"))
    await until_key_given(rig)

    for pid in processes_of(rig.directory):
        for name in ("cmdline", "environ"):
            assert KEY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert not [name for name, content in files(rig.directory).items() if KEY.encode() in content]


async def test_everything_on_disk_is_private(rig: ProcessRig) -> None:
    await started(rig, running("pass"))
    await until_key_given(rig)

    sockets = [path for path in (rig.directory / "run").rglob("*") if path.is_socket()]
    assert {path.name for path in sockets} >= {"host.sock", "tailscaled.sock"}
    assert (rig.directory / "run" / "host.sock").stat().st_mode & 0o777 == 0o600
    for directory in (rig.data_dir, rig.data_dir / "agents", rig.volume(labels()), rig.directory / "run"):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.parent.stat().st_mode & 0o777 for path in sockets} == {0o700}


async def test_a_control_plane_of_another_user_may_ask_when_its_group_may() -> None:
    async with process_rig() as rig:
        await rig.start("--group-may-ask")
        await started(rig, running("pass"))
        await until_key_given(rig)

        run = rig.directory / "run"
        assert (run.stat().st_mode & 0o777, (run / "host.sock").stat().st_mode & 0o777) == (0o750, 0o660)
        agents = [path for path in run.rglob("*") if path.is_socket() and path.name != "host.sock"]
        assert {path.parent.stat().st_mode & 0o777 for path in agents} == {0o700}
        assert rig.data_dir.stat().st_mode & 0o777 == 0o700


async def test_the_udp_port_stays_the_same(rig: ProcessRig) -> None:
    ports = []
    for run in (1, 2):
        ref = await started(rig, running("pass", run=run))
        argv = processes_of(rig.directory)[tailscaled_of(rig)].split()
        ports += [argument for argument in argv if argument.startswith("--port=")]
        await rig.runtime.stop(ref, grace_seconds=5)

    assert ports[0] == ports[1] != "--port=0"


# One unit


async def test_when_tailscaled_dies_the_agent_is_ended_too(rig: ProcessRig) -> None:
    ref = await started(rig, running("pass"))
    before = processes_of(rig.directory)

    os.kill(tailscaled_of(rig), signal.SIGKILL)

    ended = await until(rig, ref, Phase.EXITED)
    assert ended.exit_code == 69
    assert "tailscaled ended: killed by SIGKILL" in ended.reason
    assert set(processes_of(rig.directory)) == {rig.pid} < set(before)


async def test_when_the_agent_dies_tailscaled_and_grandchildren_are_ended_too(rig: ProcessRig) -> None:
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], start_new_session=True)\n"
        "print('done', flush=True); os._exit(9)"
    )
    ref = await started(rig, running(code))

    ended = await until(rig, ref, Phase.EXITED)

    assert (ended.exit_code, ended.reason) == (9, "agent: exit status 9")
    assert set(processes_of(rig.directory)) == {rig.pid}


async def test_an_agent_that_ended_first_is_the_reason_whatever_ends_after_it(rig: ProcessRig) -> None:
    ref = await started(rig, running("pass"))
    tailscaled = tailscaled_of(rig)
    (agent,) = [pid for pid, argv in processes_of(rig.directory).items() if "print('done'" in argv]

    os.kill(agent, signal.SIGKILL)
    await until_reaped(agent)
    os.kill(tailscaled, signal.SIGKILL)

    ended = await until(rig, ref, Phase.EXITED)
    assert (ended.exit_code, ended.reason) == (128 + signal.SIGKILL, "agent: killed by SIGKILL")


async def test_without_a_key_and_a_node_it_ends_with_the_code_for_a_dead_key(rig: ProcessRig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.runtime.start(ref, secrets(preauth_key=None))

    ended = await until(rig, ref, Phase.EXITED)

    assert ended.key_is_dead
    assert "pre-auth key" in ended.reason


async def test_a_frozen_unit_stands_still(rig: ProcessRig) -> None:
    ref = await started(rig, running("pass"))

    async with asyncio.timeout(10):
        await rig.runtime.pause(ref)
        while states_of(rig) != {"T"}:  # a signal takes a moment to stop every thread
            await asyncio.sleep(0)
        await rig.runtime.resume(ref)
        while "T" in states_of(rig):
            await asyncio.sleep(0)


def states_of(rig: ProcessRig) -> set[str]:
    return {Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] for pid in unit_of(rig)}


def unit_of(rig: ProcessRig) -> set[int]:
    return set(processes_of(rig.directory)) - {rig.pid}


async def test_an_agent_that_ignores_being_asked_is_killed_after_its_grace(rig: ProcessRig) -> None:
    ref = await started(rig, running("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"))

    await rig.runtime.stop(ref, grace_seconds=0.2)

    instance = await rig.runtime.inspect(ref)
    assert instance is not None
    assert (instance.exit_code, instance.reason) == (137, "stopped")


# Who outlives whom


async def test_instances_outlive_their_clients(rig: ProcessRig) -> None:
    ref = await started(rig, running("pass"))
    before = unit_of(rig)
    await rig.runtime.close()

    another = ProcessRuntime(rig.directory / "run" / "host.sock")
    (instance,) = await another.list("one")
    await another.close()

    assert (instance.ref, instance.phase) == (ref, Phase.RUNNING)
    assert unit_of(rig) == before


# No handler: one that prints while "done" is being printed would be refused as a reentrant call, and end the agent.
SAYS_WHEN_ASKED = """
import os, signal, threading

def say():
    signal.sigwait({signal.SIGTERM})
    os.write(1, b"asked\\n")

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Thread(target=say, daemon=True).start()
"""


async def test_a_change_goes_on_when_its_client_is_gone(rig: ProcessRig) -> None:
    ref = await started(rig, running(SAYS_WHEN_ASKED))
    stopping = asyncio.create_task(rig.runtime.stop(ref, grace_seconds=1))
    await line_of(rig, ref, "asked")

    stopping.cancel()

    ended = await until(rig, ref, Phase.EXITED)
    assert ended.reason == "stopped"


async def test_the_end_of_the_host_ends_everything_and_is_seen_afterwards(rig: ProcessRig) -> None:
    ref = await started(rig, running("pass"))
    frozen = await rig.runtime.create(replace(running("pass"), labels=labels(agent_id="z" * 16)))
    await rig.runtime.start(frozen, secrets())
    await rig.runtime.pause(frozen)

    await rig.stop()
    assert processes_of(rig.directory) == {}
    await rig.start()

    seen = {instance.ref: instance for instance in await rig.runtime.list("one")}
    assert {seen[ref].phase, seen[frozen].phase} == {Phase.EXITED}
    assert seen[ref].reason == "stopped"
    assert seen[ref].labels == labels()


async def test_a_host_that_is_killed_leaves_nothing(rig: ProcessRig) -> None:
    code = (
        "import subprocess, sys\n"
        "hidden = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], start_new_session=True)\n"
        "print('hidden', hidden.pid, flush=True)"
    )
    ref = await started(rig, running(code))
    hidden = int((await line_of(rig, ref, "hidden")).split()[-1])
    direct = unit_of(rig) - {hidden}

    await rig.kill()
    await until_exited(*direct)
    await rig.start()

    assert exited(hidden), "what the agent forked outlived the next start"
    instance = await rig.runtime.inspect(ref)
    assert instance is not None
    assert (instance.phase, instance.exit_code, instance.reason) == (Phase.EXITED, None, "the process host ended")
    await rig.runtime.start(ref, secrets())
    await line_of(rig, ref, "done")


async def test_what_was_never_started_is_still_only_created_after_a_restart(rig: ProcessRig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.stop()
    await rig.start()

    instance = await rig.runtime.inspect(ref)
    assert instance is not None
    assert instance.phase is Phase.CREATED


async def test_owners_secrets_are_asked_for_again_after_a_restart(rig: ProcessRig) -> None:
    of = running("pass", AgentSpec(secrets={"SK": SecretStr("sk-1")}))
    ref = await started(rig, of)
    await rig.stop()
    await rig.start()

    with pytest.raises(RuntimeRefused) as refused:
        await rig.runtime.start(ref, secrets())
    assert refused.value.reason == "secrets_lost"

    assert await rig.runtime.create(of) == ref
    await rig.runtime.start(ref, secrets())


async def test_a_later_run_is_created_from_an_earlier_hosts_record(rig: ProcessRig) -> None:
    await started(rig, running("pass"))
    await rig.kill()
    await rig.start()

    ref = await rig.runtime.create(running("pass", run=2))

    assert [(i.ref, i.labels.run, i.phase) for i in await rig.runtime.list("one")] == [(ref, 2, Phase.CREATED)]


async def test_logs_of_an_earlier_host_are_kept(rig: ProcessRig) -> None:
    ref = await started(rig, running("print('from the first life')"))
    await rig.stop()
    await rig.start()

    lines = [line async for line in rig.runtime.logs(ref, tail=100, follow=False)]
    assert "from the first life" in lines


# Trouble


async def test_a_second_host_on_one_data_dir_is_refused_with_a_sentence(rig: ProcessRig) -> None:
    (rig.directory / "second").mkdir()
    second = ProcessRig(rig.directory / "second", rig.tailscaled)
    second.data_dir = rig.data_dir
    try:
        exit_ = await (await second.launch()).wait()
        assert exit_.code == 1
        assert "another process host has it" in second.log.recent()
    finally:
        await second.close()
    assert await rig.runtime.list("one") == []


async def test_a_damaged_record_stops_the_host_with_a_sentence(rig: ProcessRig) -> None:
    await rig.runtime.create(spec())
    await rig.stop()
    (rig.volume(labels()) / "instance.json").write_text("{")

    exit_ = await (await rig.launch()).wait()

    assert exit_.code == 1
    assert "instance.json" in rig.log.recent()
    assert "Traceback" not in rig.log.recent()


async def test_a_data_dir_that_cannot_be_used_is_a_sentence() -> None:
    async with process_rig() as rig:
        rig.data_dir.touch()

        exit_ = await (await rig.launch()).wait()

        assert exit_.code == 1
        assert "cannot use" in rig.log.recent()
        assert "Traceback" not in rig.log.recent()


async def test_a_volume_that_cannot_be_made_is_refused(rig: ProcessRig) -> None:
    (rig.data_dir / "agents" / labels().agent_id).touch()

    with pytest.raises(RuntimeRefused) as refused:
        await rig.runtime.create(spec())

    assert refused.value.reason == "volume_unusable"
    assert await rig.runtime.list("one") == []


async def test_what_cannot_be_recorded_is_not_started(rig: ProcessRig) -> None:
    of = running("")
    ref = await rig.runtime.create(of)
    in_the_way = rig.volume(labels()) / ".instance.json.new"
    in_the_way.mkdir()
    with pytest.raises(RuntimeRefused, match="cannot use the volume"):
        await rig.runtime.start(ref, secrets(preauth_key=KEY))
    created = await rig.runtime.inspect(ref)
    assert created is not None
    assert created.phase is Phase.CREATED

    in_the_way.rmdir()
    assert await started(rig, of) == ref


async def test_a_tailscaled_that_is_not_there_is_refused_and_leaves_no_agent() -> None:
    async with process_rig() as rig:
        rig.tailscaled = Path("/no/such/tailscaled")
        await rig.start()
        ref = await rig.runtime.create(spec())

        with pytest.raises(RuntimeRefused) as refused:
            await rig.runtime.start(ref, secrets())

        assert refused.value.reason == "spawn_failed"
        assert unit_of(rig) == set()


async def test_two_starts_at_once_start_one(rig: ProcessRig) -> None:
    ref = await rig.runtime.create(spec())

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(rig.runtime.start(ref, secrets()), name=f"start {number}")

    await line_of(rig, ref, "started")
    assert tailscaled_of(rig)
    assert len([line async for line in rig.runtime.logs(ref, tail=9, follow=False) if line == "started"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/instances", b"no json", 422),
        ("POST", "/instances", b"{}", 422),
        ("POST", "/instances/x/start", b"[]", 422),
        ("POST", "/instances/x/stop?grace=nan", b"", 422),
        ("POST", "/instances/x/stop?grace=soon", b"", 422),
        ("GET", "/instances/..%2F..%2Fetc/logs?tail=1", b"", 404),
        ("DELETE", "/instances/..%2F..%2Fetc?volume=1", b"", 204),
        ("GET", "/instances/x", b"", 404),
        ("GET", "/nothing", b"", 404),
        ("POST", "/instances", b"x" * (33 * 1024 * 1024), 413),
    ],
)
async def test_bad_requests_are_answered_and_hurt_nobody(
    rig: ProcessRig, method: str, path: str, body: bytes, status: int
) -> None:
    connector = aiohttp.UnixConnector(str(rig.directory / "run" / "host.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.request(method, f"http://host{path}", data=io.BytesIO(body) if body else None) as response,
    ):
        assert response.status == status

    assert await rig.runtime.list("one") == []


async def test_a_config_of_ten_megabytes_is_taken(rig: ProcessRig) -> None:
    config = {"text": "x" * (10 * 1024 * 1024)}

    await rig.runtime.create(replace(spec(), agent=AgentSpec(config=config)))

    assert (rig.volume(labels()) / "agent-config.json").stat().st_size > 10 * 1024 * 1024


async def test_following_ends_when_the_instance_is_removed(rig: ProcessRig) -> None:
    ref = await started(rig, running("pass"))
    lines = rig.runtime.logs(ref, tail=0, follow=True)
    following = asyncio.ensure_future(anext(lines))  # noqa: TID251 - a coroutine of an async generator
    await rig.runtime.remove(ref, volume=True)

    with pytest.raises(StopAsyncIteration):
        async with asyncio.timeout(10):
            while True:
                await following
                following = asyncio.ensure_future(anext(lines))  # noqa: TID251


async def test_watching_goes_on_when_the_host_restarts(rig: ProcessRig) -> None:
    ref = await started(rig, running("pass"))
    seen = rig.runtime.watch()
    async with asyncio.timeout(20):
        assert (await anext(seen)).phase is Phase.RUNNING
        await rig.kill()
        await rig.start()
        while (instance := await anext(seen)).phase is not Phase.EXITED:
            pass
    await seen.aclose()

    assert instance.ref == ref


async def test_a_host_that_is_not_there() -> None:
    async with process_rig() as rig:
        with pytest.raises(RuntimeUnavailable, match="does not listen"):
            await rig.runtime.until_ready(within_seconds=0.1)
