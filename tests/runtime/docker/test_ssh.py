"""Docker over a real sshd, beyond the contract suite: as Debian has it, one that takes less, one that runs a `docker` of ours."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp.client_proto import ResponseHandler

from elizacloud.errors import Misconfigured, RuntimeUnavailable
from elizacloud.runtime.docker import DockerRuntime
from elizacloud.runtime.docker.host import look_at
from elizacloud.runtime.docker.ssh import SshHost
from tests.contract.docker_runtime import DockerRig, options_of, ssh_rig
from tests.contract.runtimes import secrets, spec
from tests.docker_engine import SIDECAR_IMAGE, DockerEngine
from tests.sshd import NoSshd, Sshd, an_sshd

MAX_SESSIONS = 10
"""Of one connection, by sshd_config(5)."""


@pytest.fixture
async def rig(docker_engine: DockerEngine, docker_sshd: Sshd) -> AsyncIterator[DockerRig]:
    async with ssh_rig(docker_engine, docker_sshd) as made:
        yield made


@contextmanager
def reached(monkeypatch: pytest.MonkeyPatch, *variables: str, options: str = "") -> Iterator[str]:
    """The URL of an sshd of its own, which this process can log in at."""
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as home:
        try:
            with an_sshd(*variables, options=options) as sshd:
                monkeypatch.setenv("HOME", str(sshd.home(Path(home), port=sshd.port)))
                yield sshd.url(port=sshd.port)
        except NoSshd as reason:
            pytest.skip(str(reason))


async def test_more_calls_at_once_than_an_sshd_takes_on_one_connection(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())

    async with asyncio.TaskGroup() as tasks:
        looks = [tasks.create_task(rig.runtime.inspect(ref), name=f"look {n}") for n in range(3 * MAX_SESSIONS)]

    assert all(look.result() is not None for look in looks)


async def test_many_logs_are_followed_at_once(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.runtime.start(ref, secrets())

    async with AsyncExitStack() as stack:
        logs = [rig.runtime.logs(ref, tail=1, follow=True) for _ in range(2 * MAX_SESSIONS)]
        for log in logs:
            await stack.enter_async_context(aclosing(log))
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            lines = [tasks.create_task(anext(log), name=f"log {n}") for n, log in enumerate(logs)]

    assert {line.result() for line in lines} == {"started"}


async def test_an_sshd_that_takes_one_session_is_logged_in_at_more_often(
    docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reached(monkeypatch, f"DOCKER_HOST={docker_engine.url}", options="MaxSessions 1\n") as url:
        runtime = DockerRuntime(url, options_of())
        try:
            async with asyncio.TaskGroup() as tasks:
                lists = [tasks.create_task(runtime.list("nobody"), name=f"list {n}") for n in range(4)]
        finally:
            await runtime.close()

    assert [each.result() for each in lists] == [[]] * 4


async def test_calls_that_are_given_up_are_no_harm_to_others(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())
    for _ in range(2):
        async with asyncio.TaskGroup() as tasks:
            looks = [tasks.create_task(rig.runtime.inspect(ref), name=f"look {n}") for n in range(2 * MAX_SESSIONS)]
            await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
            for look in looks:
                look.cancel()

    assert await rig.runtime.inspect(ref) is not None


async def test_it_comes_back_with_its_host(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.takes_down()
    with pytest.raises(RuntimeUnavailable):
        await rig.runtime.inspect(ref)

    await rig.start()

    assert await rig.runtime.inspect(ref) is not None


async def test_it_says_what_the_host_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        reached(monkeypatch, "DOCKER_HOST=unix:///nowhere/docker.sock") as url,
        pytest.raises(RuntimeUnavailable, match="nowhere"),
    ):
        await look_at(url, SIDECAR_IMAGE)


async def test_a_host_whose_key_is_not_known_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with reached(monkeypatch, "DOCKER_HOST=unix:///nowhere/docker.sock") as url:
        Path(os.environ["HOME"], ".ssh", "known_hosts").write_text("")

        with pytest.raises(RuntimeUnavailable, match="not trusted"):
            await look_at(url, SIDECAR_IMAGE)


async def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(Misconfigured, match="password") as refused:
        await look_at("ssh://me:canary@127.0.0.1:1", SIDECAR_IMAGE)

    assert "canary" not in str(refused.value)


async def test_without_its_package_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "elizacloud.runtime.docker.ssh", raising=False)
    monkeypatch.setitem(sys.modules, "asyncssh", None)

    with pytest.raises(Misconfigured, match=r"elizacloud\[ssh\]"):
        await look_at("ssh://nobody@127.0.0.1:1", SIDECAR_IMAGE)


@asynccontextmanager
async def dialled(url: str) -> AsyncIterator[asyncio.Transport]:
    """A connection to what is `docker` there."""
    host = SshHost(url)
    try:
        protocol = await host.dial(lambda: ResponseHandler(asyncio.get_running_loop()))
        assert protocol.transport is not None
        yield protocol.transport
    finally:
        await host.close()


@pytest.fixture
def a_docker(tmp_path: Path) -> Path:
    """A directory with a `docker` that writes its environment and then what it is given into a pipe."""
    os.mkfifo(tmp_path / "pipe")
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n{{ env; echo ==; exec cat; }} >{tmp_path}/pipe\n")
    program.chmod(0o755)
    return tmp_path


@asynccontextmanager
async def said_by(a_docker: Path) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(os.open(a_docker / "pipe", os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async with asyncio.timeout(20):
            yield reader
    finally:
        transport.close()


async def test_what_was_handed_over_arrives_though_all_is_closed(
    a_docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = b"x" * 50_000  # which the pipe holds
    with reached(monkeypatch, f"PATH={a_docker}:/usr/bin:/bin") as url:
        async with said_by(a_docker) as said:
            async with dialled(url) as transport:
                transport.write(given)
                transport.close()

            await said.readuntil(b"==\n")
            assert await said.readexactly(len(given)) == given


async def test_the_host_is_told_none_of_our_variables(a_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELIZACLOUD_CANARY", "canary")
    with reached(monkeypatch, f"PATH={a_docker}:/usr/bin:/bin", options="AcceptEnv *\n") as url:
        async with said_by(a_docker) as said, dialled(url):
            told = await said.readuntil(b"==\n")

    assert b"SSH_CONNECTION" in told
    assert b"canary" not in told
