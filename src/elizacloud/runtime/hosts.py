"""Several hosts as one runtime. An agent lives on one of them for ever, since its state volume lies there.

The store keeps which one (`Agent.host_id`) and `create` is told; from then on the ref tells: `big/` and what the host `big`
calls the instance. On the host `local` refs are as they were before there was another one.

A call about one instance goes to its host alone, whatever the others do. Whoever asks about all of them gets all or an error:
what is on a host that cannot be asked is not gone. docs/decisions/0016-an-agent-stays-on-its-host.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import structlog

from elizacloud.beside import beside, end, settled
from elizacloud.errors import Error, Misconfigured, RuntimeUnavailable
from elizacloud.model import DEFAULT_HOST_ID
from elizacloud.processes import Backoff
from elizacloud.runtime.protocol import Instance, InstanceSecrets, InstanceSpec, Inventory, Runtime, Usage, Volume

BACKOFF = Backoff(first_seconds=0.1, cap_seconds=5.0, jitter=0.0)

T = TypeVar("T")

log = structlog.get_logger()


class HostRuntime(Runtime, Protocol):
    """What each host has; its iterators can be closed."""

    def logs(self, ref: str, *, tail: int, follow: bool) -> AsyncGenerator[str, None]: ...

    def watch(self) -> AsyncGenerator[Instance, None]: ...

    async def close(self) -> None: ...


class Hosts:
    """Implements runtime/protocol.py. `close` when done.

    Beside what that says, every call raises RuntimeUnavailable `unknown_host` for a host that is not among these.
    """

    def __init__(self, runtimes: Mapping[str, HostRuntime]) -> None:
        """By host id, at least one, all of one kind."""
        self._hosts = {host_id: _Host(host_id, runtime) for host_id, runtime in runtimes.items()}
        self.kind = next(iter(runtimes.values())).kind
        self.isolates = all(runtime.isolates for runtime in runtimes.values())

    async def close(self) -> None:
        for host in self._hosts.values():
            await host.runtime.close()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._hosts)

    def answers(self, host_id: str) -> bool:
        """Whether it did when it was last asked."""
        return self._host(host_id).answers

    def choose(self, agents: Mapping[str, int]) -> str:
        """Where a new agent is to live: of the hosts that answered when they were last asked, that with the fewest agents."""
        hosts = [host for host in self._hosts.values() if host.answers] or list(self._hosts.values())
        return min(hosts, key=lambda host: agents.get(host.id, 0)).id

    def on(self, host_id: str) -> Inventory:
        """What is on this host, which can be asked while another one is down."""
        return self._host(host_id)

    async def check(self, installation_id: str) -> None:
        """Raise an error when no host answers; return as soon as one does."""
        looks = [
            asyncio.create_task(settled(host.list(installation_id)), name=f"look at host {host.id}")
            for host in self._hosts.values()
        ]
        errors: list[Error] = []
        try:
            for look in asyncio.as_completed(looks):
                found = await look
                if not isinstance(found, Error):
                    return
                errors.append(found)
        finally:
            await end(looks)
        raise errors[0]

    async def create(self, spec: InstanceSpec) -> str:
        host = self._host(spec.host_id)
        with host.asked():
            return host.outer(await host.runtime.create(spec))

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        with self._asked(ref) as (runtime, inner):
            await runtime.start(inner, secrets)

    async def pause(self, ref: str) -> None:
        with self._asked(ref) as (runtime, inner):
            await runtime.pause(inner)

    async def resume(self, ref: str) -> None:
        with self._asked(ref) as (runtime, inner):
            await runtime.resume(inner)

    async def stop(self, ref: str, *, grace_seconds: float) -> None:
        with self._asked(ref) as (runtime, inner):
            await runtime.stop(inner, grace_seconds=grace_seconds)

    async def remove(self, ref: str, *, volume: bool) -> None:
        with self._asked(ref) as (runtime, inner):
            await runtime.remove(inner, volume=volume)

    async def inspect(self, ref: str) -> Instance | None:
        with self._asked(ref) as (runtime, inner):
            instance = await runtime.inspect(inner)
        return replace(instance, ref=ref) if instance is not None else None

    async def list_volumes(self, installation_id: str, *, agent_id: str | None = None) -> list[Volume]:
        return await _of_all(self._hosts.values(), lambda host: host.list_volumes(installation_id, agent_id=agent_id))

    async def list(self, installation_id: str) -> list[Instance]:
        return await _of_all(self._hosts.values(), lambda host: host.list(installation_id))

    async def logs(self, ref: str, *, tail: int, follow: bool) -> AsyncGenerator[str, None]:
        with self._asked(ref) as (runtime, inner):
            async with aclosing(runtime.logs(inner, tail=tail, follow=follow)) as lines:
                async for line in lines:
                    yield line

    async def usage(self, ref: str) -> Usage:
        with self._asked(ref) as (runtime, inner):
            return await runtime.usage(inner)

    async def watch(self) -> AsyncGenerator[Instance, None]:
        """A host that cannot be watched is tried again by itself: the others are watched on."""
        news: asyncio.Queue[Instance | Exception] = asyncio.Queue()
        watching = [asyncio.create_task(host.tell(news), name=f"watch host {host.id}") for host in self._hosts.values()]
        try:
            while True:
                told = await news.get()
                if isinstance(told, Exception):
                    raise told
                yield told
        finally:
            await end(watching)

    def _host(self, host_id: str) -> _Host:
        host = self._hosts.get(host_id)
        if host is None:
            raise RuntimeUnavailable(
                f"cannot ask the host {host_id[:63]!r}: no setting says where it is; name it in docker_hosts again, as long as "
                "agents live on it",
                code="unknown_host",
            )
        return host

    @contextmanager
    def _asked(self, ref: str) -> Iterator[tuple[HostRuntime, str]]:
        """The runtime of the host that the ref is of, and what it calls the instance."""
        host_id, _, inner = ref.rpartition("/")
        host = self._host(host_id or DEFAULT_HOST_ID)
        with host.asked():
            yield host.runtime, inner


class _Host:
    """One of the hosts: `outer` is how its refs are called outside of it."""

    def __init__(self, host_id: str, runtime: HostRuntime) -> None:
        self.id = host_id
        self.runtime = runtime
        self.answers = True

    def outer(self, ref: str) -> str:
        return ref if self.id == DEFAULT_HOST_ID else f"{self.id}/{ref}"

    @contextmanager
    def asked(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeUnavailable, Misconfigured) as error:
            if self.answers:
                log.warning("a host does not answer", host=self.id, reason=str(error))
            self.answers = False
            raise
        if not self.answers:
            log.info("a host answers again", host=self.id)
        self.answers = True

    async def list_volumes(self, installation_id: str, *, agent_id: str | None = None) -> list[Volume]:
        with self.asked():
            volumes = await self.runtime.list_volumes(installation_id, agent_id=agent_id)
        return [replace(volume, ref=self.outer(volume.ref)) for volume in volumes]

    async def list(self, installation_id: str) -> list[Instance]:
        with self.asked():
            instances = await self.runtime.list(installation_id)
        return [self._outside(instance) for instance in instances]

    async def tell(self, news: asyncio.Queue[Instance | Exception]) -> None:
        """For ever, or until an error that is none of ours, which is told, too."""
        failures = 0
        while True:
            try:
                async with aclosing(self.runtime.watch()) as changes:
                    async for instance in changes:
                        failures = 0
                        news.put_nowait(self._outside(instance))
            except Error as error:
                if failures == 0:
                    log.warning("cannot watch a host", host=self.id, reason=str(error))
            except Exception as error:
                news.put_nowait(error)
                return
            failures += 1
            await asyncio.sleep(BACKOFF.delay_seconds(failures, 0))

    def _outside(self, instance: Instance) -> Instance:
        return replace(instance, ref=self.outer(instance.ref))


async def _of_all(hosts: Iterable[_Host], ask: Callable[[_Host], Coroutine[Any, Any, list[T]]]) -> list[T]:
    return [found for part in await beside(*(ask(host) for host in hosts)) for found in part]
