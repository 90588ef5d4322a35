"""Client: one method a call of the API, and waiting for an agent by its events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import SecretStr, ValidationError

from elizacloud.client.answers import (
    Agent,
    AgentEvent,
    AgentStats,
    Answer,
    CliSession,
    CreatedToken,
    Explanation,
    Page,
    Swept,
    Ticket,
    Token,
)
from elizacloud.client.sse import Open, ServerSentEvent, follow
from elizacloud.client.transport import CALL_SECONDS, CONNECT_SECONDS, TIMED_OUT, UNREACHABLE, Transport
from elizacloud.errors import Error, Unavailable
from elizacloud.states import State

T = TypeVar("T", bound=Answer)

PAGE = 100
LOOK_SECONDS = 5.0
"""How long `wait_until` trusts a silent event stream before it looks at the agent itself."""
CATCH_UP_SECONDS = 0.5
SWEEP_SECONDS = 120.0
"""A sweep ends what it removes, politely at first."""

_LOGS = aiohttp.ClientTimeout(total=60, sock_connect=CONNECT_SECONDS)
_ENDLESS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=60)


class Client:
    """All calls raise errors of `elizacloud.errors`: those that the API tells, and Unavailable when it cannot be reached.

    `owner_id` is who a service token acts for. `socket` is the API's unix socket; the URL then only gives the Host.
    """

    def __init__(
        self, url: str, token: SecretStr | None = None, *, socket: Path | None = None, owner_id: str | None = None
    ) -> None:
        self._transport = Transport(url, token, socket=socket, owner_id=owner_id)

    @property
    def url(self) -> str:
        return self._transport.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    # agents

    async def create_agent(
        self,
        name: str,
        *,
        config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        external: bool = False,
        wait_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> Agent:
        """Create an agent and return when it has joined, or after `wait_seconds` (0: at once) with what it is then.

        `options` are further fields of the request, such as image, environment or idlePolicy, by their wire names.
        """
        body: dict[str, Any] = {"agentName": name, **(options or {})}
        if config is not None:
            body["agentConfig"] = config
        if external:
            body["external"] = True
        answer = await self._transport.json(
            "POST",
            "/api/v1/agents",
            body=body,
            query={} if wait_seconds is None else {"wait": f"{wait_seconds:g}"},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else None,
            within_seconds=CALL_SECONDS + (CALL_SECONDS if wait_seconds is None else wait_seconds),
        )
        return _read(Agent, answer)

    async def get_agent(self, agent_id: str) -> Agent:
        return _read(Agent, await self._transport.json("GET", _agent(agent_id)))

    async def agents(self) -> AsyncIterator[Agent]:
        """All of the owner's agents, page by page."""
        async for item in self._items("/api/v1/agents"):
            yield _read(Agent, item)

    async def update_agent(self, agent_id: str, changes: Mapping[str, Any]) -> Agent:
        """PATCH: `changes` by their wire names."""
        return _read(Agent, await self._transport.json("PATCH", _agent(agent_id), body=changes))

    async def start_agent(self, agent_id: str) -> Agent:
        return _read(Agent, await self._transport.json("POST", f"{_agent(agent_id)}/start"))

    async def pause_agent(self, agent_id: str) -> Agent:
        """Freeze it until a request comes for it."""
        return _read(Agent, await self._transport.json("POST", f"{_agent(agent_id)}/pause"))

    async def sleep_agent(self, agent_id: str) -> Agent:
        """Stop it until a request comes for it."""
        return _read(Agent, await self._transport.json("POST", f"{_agent(agent_id)}/sleep"))

    async def idle_policy(self) -> dict[str, Any]:
        """What holds for all agents of the owner that say nothing themselves, by its wire names."""
        return dict(await self._transport.json("GET", "/api/v1/idle-policy"))

    async def set_idle_policy(self, policy: Mapping[str, Any]) -> dict[str, Any]:
        """Replace it."""
        return dict(await self._transport.json("PUT", "/api/v1/idle-policy", body=policy))

    async def stop_agent(self, agent_id: str) -> None:
        await self._transport.json("POST", f"{_agent(agent_id)}/stop")

    async def restart_agent(self, agent_id: str) -> Agent:
        return _read(Agent, await self._transport.json("POST", f"{_agent(agent_id)}/restart"))

    async def delete_agent(self, agent_id: str) -> None:
        await self._transport.json("DELETE", _agent(agent_id))

    async def events(
        self, agent_id: str, *, after: int | None = None, following: bool = True
    ) -> AsyncGenerator[AgentEvent, None]:
        """The agent's transitions after that sequence number, then, if following, each new one as it happens."""
        path = f"{_agent(agent_id)}/events"
        if not following:
            async for item in self._items(path, "after", 0 if after is None else after):
                yield _read(AgentEvent, item)
            return
        last_id = None if after is None else str(after)
        async with aclosing(follow(self._stream(path, {}), last_id=last_id)) as events:
            async for event in events:
                if (read := _agent_event(event)) is not None:
                    yield read
                    if read.state_to == State.GONE:
                        return

    async def logs(self, agent_id: str, *, tail: int = 100, following: bool = False) -> AsyncGenerator[str, None]:
        """Lines of the agent's output: the last `tail` ones, then, if following, each new one."""
        path = f"{_agent(agent_id)}/logs"
        if following:
            query = {"tail": str(tail), "follow": "true"}
            async with aclosing(follow(self._stream(path, query), again=False)) as events:
                async for event in events:
                    # Lines have no ids: after a broken connection only new ones are wanted.
                    query["tail"] = "0"
                    yield event.data
            return
        async with self._transport.request("GET", path, query={"tail": str(tail)}, timeout=_LOGS) as answer:
            for line in (await answer.text(errors="replace")).splitlines():
                yield line

    async def stats(self, agent_id: str) -> AgentStats:
        """What it uses now. Raises Conflict `no_instance` while it does not run."""
        return _read(AgentStats, await self._transport.json("GET", f"{_agent(agent_id)}/stats"))

    async def wait_until(
        self,
        agent_id: str,
        states: Collection[State],
        *,
        within_seconds: float,
        on_event: Callable[[AgentEvent], None] | None = None,
        after: int | None = None,
        anew: bool = False,
    ) -> Agent:
        """Return the agent once it is in one of the states; `on_event` hears each transition after that sequence number.

        With `anew`, only a state that was reached after it counts, so that a restart can be waited for.

        Raises Unavailable with reason TIMED_OUT and what is in the way after `within_seconds`, and NotFound when the
        agent is gone (State.GONE among the states makes that an end to wait for: then the last look is returned).
        """
        wanted = {state.value for state in states}
        look, arrived = asyncio.Event(), asyncio.Event()

        def hear(event: AgentEvent) -> None:
            if event.state_to in wanted:
                arrived.set()
                look.set()
            if on_event is not None:
                on_event(event)

        seen = await self.get_agent(agent_id)
        reader = asyncio.create_task(self._tell(agent_id, after, hear), name=f"events of {agent_id}")
        try:
            async with asyncio.timeout(within_seconds):
                while seen.status not in wanted or (anew and not arrived.is_set()):
                    # Events are the fast path; a look now and then finds what a broken stream did not tell.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(look.wait(), LOOK_SECONDS)
                    look.clear()
                    seen = await self.get_agent(agent_id)
            if on_event is not None:
                # A look can be ahead of the events: whoever listens hears the last one, too.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), CATCH_UP_SECONDS)
            return seen
        except TimeoutError as error:
            with contextlib.suppress(Error, TimeoutError):
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    seen = await self.get_agent(agent_id)
            names = " or ".join(sorted(wanted))
            raise Unavailable(
                f"cannot wait longer for {agent_id} to be {names}: it is {seen.status} after {within_seconds:g} s."
                f" {seen.message}".rstrip(),
                code=TIMED_OUT,
            ) from error
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def _tell(self, agent_id: str, after: int | None, hear: Callable[[AgentEvent], None]) -> None:
        # Without events the looks go on: an error here is told by the next look, if it matters.
        with contextlib.suppress(Error):
            async with aclosing(self.events(agent_id, after=after)) as events:
                async for event in events:
                    hear(event)

    # tokens and logins

    async def create_token(
        self,
        name: str | None = None,
        *,
        scopes: Sequence[str] = (),
        agent_id: str | None = None,
        expires_in_seconds: float | None = None,
    ) -> CreatedToken:
        """A new API token of the owner; with `agent_id`, one that reaches only that agent and needs no name."""
        body: dict[str, Any] = {} if name is None else {"name": name}
        if scopes:
            body["scopes"] = list(scopes)
        if expires_in_seconds is not None:
            body["expiresInSeconds"] = expires_in_seconds
        return _read(CreatedToken, await self._transport.json("POST", _tokens(agent_id), body=body))

    async def create_jwt(self, *, agent_id: str | None = None, expires_in_seconds: float | None = None) -> CreatedToken:
        """A short-lived JWT that reaches this agent, or all of the owner's, and manages nothing."""
        body: dict[str, Any] = {"kind": "jwt"}
        if expires_in_seconds is not None:
            body["expiresInSeconds"] = expires_in_seconds
        return _read(CreatedToken, await self._transport.json("POST", _tokens(agent_id), body=body))

    async def create_ticket(self, agent_id: str) -> Ticket:
        """A one-time ticket for a browser: its `url` opens the agent's own page."""
        return _read(Ticket, await self._transport.json("POST", f"{_agent(agent_id)}/tickets"))

    async def tokens(self) -> AsyncIterator[Token]:
        page = _read(Page, await self._transport.json("GET", "/api/v1/tokens"))
        for item in page.items:
            yield _read(Token, item)

    async def revoke_token(self, token_id: str) -> None:
        await self._transport.json("DELETE", f"/api/v1/tokens/{quote(token_id, safe='')}")

    async def open_cli_session(self) -> CliSession:
        """Begin a login: a person approves it at its `browser_url`."""
        return _read(CliSession, await self._transport.json("POST", "/api/auth/cli-session", body={}))

    async def poll_cli_session(self, session_id: SecretStr) -> CliSession:
        """What became of the login; the token is in exactly one answer."""
        path = f"/api/auth/cli-session/{quote(session_id.get_secret_value(), safe='')}"
        return _read(CliSession, await self._transport.json("GET", path))

    # for operators

    async def sweep(self, *, dry_run: bool = False, accept: bool = False) -> Swept:
        """Compare store, runtime and Headscale now. Needs a service token, as does `explain`."""
        body = {"dryRun": dry_run, "accept": accept}
        answer = await self._transport.json("POST", "/api/v1/operator/sweep", body=body, within_seconds=SWEEP_SECONDS)
        return _read(Swept, answer)

    async def explain(self, agent_id: str) -> Explanation:
        """The agent, whoever's it is, as store, runtime and Headscale see it."""
        path = f"/api/v1/operator/agents/{quote(agent_id, safe='')}"
        return _read(Explanation, await self._transport.json("GET", path))

    # the server itself, and agents through the relay

    async def ready(self) -> Mapping[str, Any]:
        """What the control plane says of its parts at /readyz; Unavailable when it is not ready."""
        answer = await self._transport.json("GET", "/readyz")
        return answer if isinstance(answer, dict) else {}

    def relay(
        self,
        method: str,
        agent_id: str,
        route: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout = _ENDLESS,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A request to the agent itself; `route` begins with a slash. Answers of 300 and up are raised as errors."""
        return self._transport.request(
            method, f"/api/relay/{quote(agent_id, safe='')}{route}", body=body, headers=headers, timeout=timeout
        )

    async def _items(
        self, path: str, cursor_name: str = "cursor", cursor: str | int | None = None
    ) -> AsyncIterator[Any]:
        """The items of all pages; `next` of one page is the cursor of the one after it."""
        while True:
            query = {"limit": str(PAGE)} | ({cursor_name: str(cursor)} if cursor else {})
            page = _read(Page, await self._transport.json("GET", path, query=query))
            for item in page.items:
                yield item
            cursor = page.next
            if not cursor:
                return

    def _stream(self, path: str, query: Mapping[str, str]) -> Open:
        def open_stream(last_id: str | None) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
            headers = {"Accept": "text/event-stream"}
            if last_id is not None:
                headers["Last-Event-ID"] = last_id
            return self._transport.request("GET", path, query=query, headers=headers, timeout=_STREAM)

        return open_stream


def _agent(agent_id: str) -> str:
    return f"/api/v1/agents/{quote(agent_id, safe='')}"


def _tokens(agent_id: str | None) -> str:
    return "/api/v1/tokens" if agent_id is None else f"{_agent(agent_id)}/tokens"


def _read(model: type[T], answer: Any) -> T:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise Unavailable(
            f"cannot understand the server's answer ({error.error_count()} fields): is it an elizacloud of this version?",
            code=UNREACHABLE,
        ) from error


def _agent_event(event: ServerSentEvent) -> AgentEvent | None:
    """None for what is not a transition."""
    try:
        return AgentEvent.model_validate_json(event.data)
    except ValidationError:
        return None
