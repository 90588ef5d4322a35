"""`elizacloud serve`: the control plane. API and reconciler over a store, a Headscale, a runtime and the relays' link.

One holds a data dir's lock for as long as it lives. It listens on unix sockets (the API, the link) and, for containers'
reports, on an address of its own that serves nothing else. On PostgreSQL there may be several, each with a data dir and
relays of its own; they share Headscale and the runtime.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial

import structlog

from elizacloud.agents.lifecycle import Lifecycle
from elizacloud.agents.place import Place
from elizacloud.agents.reconcile.past import OTHER_HEADSCALE
from elizacloud.agents.sharing.leases import SHARED_CALL_SECONDS, Leases
from elizacloud.agents.sharing.relays import SharedRelays
from elizacloud.api.app import close_streams, create_app, create_containers_app
from elizacloud.app.collector import spare_the_collector
from elizacloud.app.control_server import headscale_of
from elizacloud.app.data_dir import DataDir, open_data_dir
from elizacloud.app.http import served
from elizacloud.app.metrics import OneProcess, serve_metrics
from elizacloud.app.past import JsonPast
from elizacloud.app.running import Signals, run_until_signal
from elizacloud.app.runtimes import runtime_of
from elizacloud.auth.credentials import Credentials, issuer_name
from elizacloud.auth.following import TokenFollower
from elizacloud.auth.tokens import token_sha256
from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable, StoreUnavailable, Unavailable
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.headscale.client import CALL_SECONDS, USER, HeadscaleClient
from elizacloud.model import DEFAULT_CELL_ID, DEFAULT_HOST_ID, OPERATOR, ApiToken, Scope, utc_now
from elizacloud.processes import Backoff
from elizacloud.relay.link.hub import Hub
from elizacloud.runtime.hosts import Hosts
from elizacloud.settings import Settings
from elizacloud.states import State
from elizacloud.store import Cipher, Store, sqlite_url
from elizacloud.upstreams import PeerSeen, Redemption, Relays

LINK_SECONDS = 1.0
COUNT_SECONDS = 5.0
_RETRY = Backoff(first_seconds=0.2, cap_seconds=5.0)

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM. Raises an Error when it cannot start, or cannot go on."""
    data = open_data_dir(settings)
    data.lock("serve", "control plane")
    run_until_signal(partial(_run, settings, data))


async def _run(settings: Settings, data: DataDir, signals: Signals) -> None:
    async with AsyncExitStack() as stack:
        store, data = await _open_store(settings, data)
        await stack.enter_async_context(store)
        headscale_url, key = headscale_of(settings)
        deadline_seconds = SHARED_CALL_SECONDS if store.is_shared else CALL_SECONDS
        headscale = HeadscaleClient(headscale_url, key, deadline_seconds=deadline_seconds)
        stack.push_async_callback(headscale.close)
        runtime = runtime_of(settings, data)
        stack.push_async_callback(runtime.close)
        place = Place(
            installation_id=data.installation_id,
            cell_id=DEFAULT_CELL_ID,
            host_id=DEFAULT_HOST_ID,
            headscale=headscale,
            runtime=runtime,
            join_url=settings.headscale_join_url or headscale_url,
            report_url=settings.report_url,
            hosts=runtime if isinstance(runtime, Hosts) else None,
        )
        epoch = await store.installation.next_epoch()
        listener = _Listener()
        hub = Hub(f"{data.installation_id}-{epoch}", listener, check=store.ping)
        leases = Leases(store.leases, str(epoch)) if store.is_shared else None
        relays: Relays = hub
        if leases is not None:
            relays = SharedRelays(hub, store.hints, leases.seen_members, leases.me)
        listener.lifecycle = lifecycle = Lifecycle(
            store, place, relays, settings, leases=leases, past=JsonPast(data.path / "seen.json")
        )
        issuer = issuer_name(settings.public_url, data.installation_id)
        listener.credentials = credentials = Credentials(
            store,
            relays,
            settings,
            issuer=issuer,
            kept=data.path / "trusted-keys.json",
            leads=lambda: leases is None or leases.lead() is not None,
        )
        loop = asyncio.get_running_loop()
        lifecycle.metrics.states = lambda: _count_agents(store, loop)
        stack.enter_context(serve_metrics(settings.control_metrics_listen, OneProcess(lifecycle.metrics)))
        await lifecycle.prepare()
        await credentials.prepare()
        hub.load((), (), await credentials.live_tokens())
        await lifecycle.tell_relays()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        working = tasks.create_task(_work(headscale, lifecycle), name="lifecycle")
        stack.callback(working.cancel)
        renewing = tasks.create_task(credentials.run(), name="credentials")
        stack.callback(renewing.cancel)
        if leases is not None:
            following = tasks.create_task(TokenFollower(store, hub, leases.me).run(), name="follow tokens")
            stack.callback(following.cancel)
        await stack.enter_async_context(hub.serve(settings.link_socket or data.sockets / "link.sock"))
        api = create_app(lifecycle, credentials, store, settings, checks={"relay": lambda: _linked(hub)})
        await stack.enter_async_context(served(api, socket=settings.api_socket or data.sockets / "api.sock"))
        stack.callback(close_streams, api)
        if settings.report_listen is not None:
            reports = create_containers_app(lifecycle.containers)
            await stack.enter_async_context(served(reports, address=settings.report_listen))
        spare_the_collector()
        log.info("control plane started", epoch=epoch)
        await signals.stop.wait()
        log.info("control plane stops")


async def _work(headscale: HeadscaleClient, lifecycle: Lifecycle) -> None:
    """Drive agents, once the policy that keeps them apart is in place: without one Headscale allows everything."""
    failures = 0
    while True:
        try:
            await headscale.version()  # raises for one that is not supported, before anything is written to it
            await lifecycle.memory.check_headscale()
            await headscale.ensure_user(USER)
            await ensure_policy(headscale)
            break
        except (HeadscaleUnavailable, HeadscaleRefused, StoreUnavailable) as error:
            if isinstance(error, HeadscaleRefused) and error.reason != OTHER_HEADSCALE:
                raise
            failures += 1
            delay = _RETRY.delay_seconds(failures, random.random())
            log.warning("waiting for Headscale", reason=str(error), retry_seconds=round(delay, 1))
            await asyncio.sleep(delay)
    await lifecycle.run()


async def _open_store(settings: Settings, data: DataDir) -> tuple[Store, DataDir]:
    """The store, migrated, ours, and with this installation's operator token as its only one; and the data dir, which by
    now is of the store's installation."""
    url = settings.database_url.get_secret_value() if settings.database_url else sqlite_url(data.database)
    store = await Store.open(url, Cipher(data.secret_key(settings)))
    try:
        present = await store.installation.present()
        data.check_store(is_new=present is None)
        if present is not None and store.is_shared:
            data = data.join(present, settings)
        await store.installation.ensure(data.installation_id)
        data.remember_store()
        sha256 = token_sha256(data.operator_token(settings))
        scopes = frozenset({Scope.SERVICE})
        await store.tokens.keep_only(
            ApiToken(f"operator-{sha256[:12]}", OPERATOR, OPERATOR, scopes, None, sha256, utc_now())
        )
    except BaseException:
        await store.close()
        raise
    return store, data


def _count_agents(store: Store, loop: asyncio.AbstractEventLoop) -> dict[State, int]:
    """Called from a thread of the metrics' listener."""
    return asyncio.run_coroutine_threadsafe(store.agents.count_by_state(), loop).result(COUNT_SECONDS)


async def _linked(hub: Hub) -> None:
    await hub.wait_for_worker(within_seconds=LINK_SECONDS)


class _Listener:
    """Passes what relays see and ask on to the parts that know, which are made after the hub."""

    def __init__(self) -> None:
        self.lifecycle: Lifecycle | None = None
        self.credentials: Credentials | None = None

    def peer_seen(self, peer: PeerSeen) -> None:
        if self.lifecycle is not None:
            self.lifecycle.peer_seen(peer)

    def wake(self, agent_id: str, poll_gap_seconds: float | None) -> None:
        if self.lifecycle is not None:
            self.lifecycle.wake(agent_id, poll_gap_seconds)

    def used(self, agent_ids: tuple[str, ...]) -> None:
        if self.lifecycle is not None:
            for agent_id in agent_ids:
                self.lifecycle.used(agent_id)

    async def redeem(self, ticket_sha256: str, agent_id: str, *, session: bool) -> Redemption:
        if self.credentials is None:
            raise Unavailable("cannot take this ticket: the control plane is starting; try again")
        return await self.credentials.tickets.redeem(ticket_sha256, agent_id, session=session)

    async def end_session(self, session_sha256: str) -> None:
        if self.credentials is not None:
            await self.credentials.tokens.end_session(session_sha256)

    async def seek_keys(self, issuer: str) -> None:
        if self.credentials is not None:
            await self.credentials.trusted.seek(issuer)
