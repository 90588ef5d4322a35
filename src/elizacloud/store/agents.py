"""Agents with their generations and runs. One write is one transaction: the agent, what belongs to it, and its event."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.cipher import Cipher
from elizacloud.errors import Conflict, Invalid, NotFound
from elizacloud.model import Agent, AgentSpec, Event, Generation, Run, is_agent_id
from elizacloud.states import State, Wanted, check_move
from elizacloud.store import rows, tables
from elizacloud.store.bell import Bell
from elizacloud.store.database import Database, upsert
from elizacloud.store.events import append
from elizacloud.store.leases import Fence, check
from elizacloud.store.owners import ensure_owner

_AGENTS, _GENERATIONS, _RUNS = tables.agents, tables.generations, tables.runs
_LONGEST_PAGE = 1000
_PORTION, _AT_ONCE = 200, 25
"""Rows of one query, and those of it that are made into nouns in one turn of the loop: 25 take some 1 ms."""
_Noun = TypeVar("_Noun")


@dataclass(frozen=True, slots=True)
class Record:
    """An agent with its current generation and, once it was started, its current run."""

    agent: Agent
    generation: Generation
    run: Run | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some agents, newest first. `next` is given to the next call as `after`; None when there are no more."""

    items: tuple[Record, ...]
    next: str | None


class _Part:
    """The columns of one table in a row that has those of several: taken by place, since ten thousand rows have many."""

    def __init__(self, table: sa.Table, first: int) -> None:
        self._names = [column.name for column in table.columns]
        self.end = first + len(self._names)
        self._place = slice(first, self.end)

    def of(self, row: Any) -> dict[str, Any]:
        return dict(zip(self._names, row[self._place], strict=True))


_AGENT_PART = _Part(_AGENTS, 0)
_GENERATION_PART = _Part(_GENERATIONS, _AGENT_PART.end)
_RUN_PART = _Part(_RUNS, _GENERATION_PART.end)


_RECORDS = sa.select(_AGENTS, _GENERATIONS, _RUNS).select_from(
    _AGENTS.join(
        _GENERATIONS, (_GENERATIONS.c.agent_id == _AGENTS.c.id) & (_GENERATIONS.c.number == _AGENTS.c.generation)
    ).outerjoin(
        _RUNS,
        (_RUNS.c.agent_id == _AGENTS.c.id)
        & (_RUNS.c.generation == _AGENTS.c.generation)
        & (_RUNS.c.number == _AGENTS.c.run),
    )
)


class Agents:
    """The agents of all owners. An agent that is gone keeps its row, since ids are never re-used, and is not listed."""

    def __init__(self, database: Database, bell: Bell, cipher: Cipher, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._bell = bell
        self._cipher = cipher
        self._clock = clock

    async def create(self, agent: Agent, generation: Generation, *, event_reason: str = "") -> Agent:
        """Store a new agent; its owner is made known if it was not. Returns it with its first revision.

        Raises Conflict `name_taken` when the owner has another agent of that name that is not being deleted,
        `agent_exists` when the id was used before, and NotFound when its cell or host is unknown.
        """
        created = replace(agent, revision=1)
        async with self._database.write() as connection:
            if await connection.scalar(sa.select(_AGENTS.c.id).where(_AGENTS.c.id == agent.id)) is not None:
                raise Conflict(f"cannot create the agent {agent.id}: it exists already", code="agent_exists")
            await ensure_owner(connection, agent.owner_id, self._clock())
            await connection.execute(sa.insert(_AGENTS).values(rows.agent_to_row(created, self._cipher)))
            await connection.execute(sa.insert(_GENERATIONS).values(rows.generation_to_row(generation)))
            await append(connection, self._event(created, step="create", state_from=None, reason=event_reason))
        self._bell.ring(agent.id)
        return created

    async def get(self, agent_id: str, *, owner_id: str | None = None) -> Agent:
        """The agent, also when it is gone. NotFound when there is none, or when it is not that owner's."""
        query = sa.select(_AGENTS).where(_AGENTS.c.id == agent_id)
        if owner_id is not None:
            query = query.where(_AGENTS.c.owner_id == owner_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise _not_found(agent_id)
        return rows.agent_from_row(row, self._cipher)

    async def list(self, owner_id: str | None, *, after: str | None = None, limit: int = 100) -> Page:
        """A page of the owner's agents, or with None of everybody's; at most 1000. Agents made meanwhile shift no page.

        Raises Invalid `invalid_cursor` when `after` is not what an earlier page gave.
        """
        limit = max(1, min(limit, _LONGEST_PAGE))
        query = _RECORDS.where(tables.LISTED)
        if owner_id is not None:
            query = query.where(_AGENTS.c.owner_id == owner_id)
        if after is not None:
            query = query.where(sa.tuple_(_AGENTS.c.created_at, _AGENTS.c.id) < sa.tuple_(*_cursor_values(after)))
        query = query.order_by(_AGENTS.c.created_at.desc(), _AGENTS.c.id.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            found = [self._record_from_row(row) for row in await connection.execute(query)]
        return Page(tuple(found[:limit]), _cursor(found[limit - 1].agent) if len(found) > limit else None)

    async def list_all(self) -> Sequence[Agent]:
        """All agents but those that are gone."""
        everything = sa.select(_AGENTS).where(tables.LISTED)
        return await self._all(everything, lambda row: rows.agent_from_row(_AGENT_PART.of(row), self._cipher))

    async def has_others(self, owner_id: str) -> bool:
        """Whether any other owner has an agent that a runtime of ours runs."""
        other = sa.select(_AGENTS.c.id).where(tables.LISTED, _AGENTS.c.owner_id != owner_id, ~_AGENTS.c.external)
        async with self._database.read() as connection:
            return await connection.scalar(other.limit(1)) is not None

    async def count_by_state(self) -> dict[State, int]:
        """How many agents are in each state, but those that are gone; states without one are left out."""
        query = sa.select(_AGENTS.c.state, sa.func.count()).where(tables.LISTED).group_by(_AGENTS.c.state)
        async with self._database.read() as connection:
            return {State(state): count for state, count in await connection.execute(query)}

    async def count_by_host(self) -> dict[str, int]:
        """How many agents live on each host, but those that are gone or were started by hand; hosts without one are left out."""
        query = sa.select(_AGENTS.c.host_id, sa.func.count()).where(tables.LISTED, _AGENTS.c.external.is_(False))
        async with self._database.read() as connection:
            found = await connection.execute(query.group_by(_AGENTS.c.host_id))
            return {str(host_id): count for host_id, count in found}

    async def count_by_wanted(self, owner_id: str) -> dict[Wanted, int]:
        """How many of the owner's agents are wanted how, without those that are gone."""
        query = sa.select(_AGENTS.c.wanted, sa.func.count()).where(_AGENTS.c.owner_id == owner_id, tables.LISTED)
        async with self._database.read() as connection:
            found = await connection.execute(query.group_by(_AGENTS.c.wanted))
            return {Wanted(wanted): count for wanted, count in found}

    async def gone(self, ids: Collection[str]) -> set[str]:
        """Those of these agents that are gone; of one that was never there, or was forgotten, nothing is known."""
        query = sa.select(_AGENTS.c.id).where(_AGENTS.c.state == State.GONE.value, _AGENTS.c.id.in_(ids))
        async with self._database.read() as connection:
            return set(await connection.scalars(query))

    async def save(
        self,
        agent: Agent,
        *,
        step: str,
        reason: str = "",
        seconds: float | None = None,
        generation: Generation | None = None,
        run: Run | None = None,
        fence: Fence | None = None,
    ) -> Agent:
        """Write the agent and, with it, the generation and the run that are given. Returns it with its new revision.

        Writes one event when the state changed or a reason is given. Raises Conflict `stale` when somebody else wrote
        the agent since it was read, `illegal_move` when the table of states forbids the move, `name_taken`; NotFound; and
        LeaseLost when it is made under a lease that is no longer held.
        Owner, id and creation time never change. A gone agent's secrets are erased.
        """
        saved = replace(agent, revision=agent.revision + 1, updated_at=self._clock())
        if saved.state is State.GONE:
            saved = replace(saved, spec=AgentSpec(image=agent.spec.image, health_path=agent.spec.health_path))
        async with self._database.write() as connection:
            await check(connection, fence)
            before = await self._before(connection, agent)
            check_move(before.state, saved.state)
            await self._update(connection, saved, expected=agent.revision, with_spec=saved.spec != before.spec)
            if generation is not None:
                await upsert(connection, _GENERATIONS, rows.generation_to_row(generation))
            if run is not None:
                await upsert(connection, _RUNS, rows.run_to_row(run, self._cipher))
            if saved.state is State.GONE:
                await _erase_credentials(connection, saved.id)
            if before.state is not saved.state or reason:
                event = self._event(saved, step=step, state_from=before.state, reason=reason, seconds=seconds)
                await append(connection, event)
        self._bell.ring(agent.id)
        return saved

    async def generation(self, agent_id: str, number: int) -> Generation:
        """One generation; NotFound when there is none."""
        query = sa.select(_GENERATIONS).where(_GENERATIONS.c.agent_id == agent_id, _GENERATIONS.c.number == number)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"cannot find generation {number} of the agent {agent_id}")
        return rows.generation_from_row(row)

    async def generations(self, agent_id: str) -> Sequence[Generation]:
        """All generations of the agent, oldest first."""
        query = sa.select(_GENERATIONS).where(_GENERATIONS.c.agent_id == agent_id).order_by(_GENERATIONS.c.number)
        async with self._database.read() as connection:
            return [rows.generation_from_row(row) for row in (await connection.execute(query)).mappings()]

    async def recorded_by_others(
        self, agent_id: str, key_ids: Collection[str], node_ids: Collection[str]
    ) -> tuple[set[str], set[str]]:
        """Which of these ids are in the records of other agents too, as after Headscale was restored from a backup."""
        key, node = _GENERATIONS.c.preauth_key_id, _GENERATIONS.c.node_id
        found: list[set[str]] = []
        async with self._database.read() as connection:
            for column, ids in ((key, key_ids), (node, node_ids)):
                query = sa.select(column).where(_GENERATIONS.c.agent_id != agent_id, column.in_(ids))
                found.append({str(id_) for id_ in await connection.scalars(query)})
        return found[0], found[1]

    async def run(self, agent_id: str, generation: int, number: int) -> Run | None:
        """One run; None when the agent was never started so often."""
        query = sa.select(_RUNS).where(
            _RUNS.c.agent_id == agent_id, _RUNS.c.generation == generation, _RUNS.c.number == number
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else rows.run_from_row(row, self._cipher)

    async def busy(self, run: Run, until: datetime) -> None:
        """Its container works until then. Whoever wants to pause it reads that, wherever the call came in."""
        key = (_RUNS.c.agent_id == run.agent_id, _RUNS.c.generation == run.generation, _RUNS.c.number == run.number)
        async with self._database.write() as connection:
            await connection.execute(sa.update(_RUNS).where(*key).values(busy_until=until))

    async def record(self, agent_id: str) -> Record:
        """The agent with its current generation and run, read at one moment. NotFound when there is none."""
        async with self._database.read() as connection:
            row = (await connection.execute(_RECORDS.where(_AGENTS.c.id == agent_id))).one_or_none()
        if row is None:
            raise _not_found(agent_id)
        return self._record_from_row(row)

    async def records(self) -> Sequence[Record]:
        """All agents but those that are gone, each with its current generation and run, which are read at one moment."""
        return await self._all(_RECORDS.where(tables.LISTED), self._record_from_row)

    async def _all(self, query: sa.Select[Any], noun_from_row: Callable[[Any], _Noun]) -> Sequence[_Noun]:
        """Read in portions, so that ten thousand rows do not hold up the event loop; made into nouns between transactions,
        since PostgreSQL ends one in which nothing is asked for a while. What is there all the time is in it."""
        found: list[_Noun] = []
        # In the order of the index of those that are listed: by id each portion would be sorted out of all.
        place = sa.tuple_(_AGENTS.c.created_at, _AGENTS.c.id)
        portion = query = query.order_by(_AGENTS.c.created_at, _AGENTS.c.id).limit(_PORTION)
        while True:
            async with self._database.read() as connection:
                read = (await connection.execute(portion)).all()
            for first in range(0, len(read), _AT_ONCE):
                if found:
                    await asyncio.sleep(0)
                found += [noun_from_row(row) for row in read[first : first + _AT_ONCE]]
            if len(read) < _PORTION:
                return found
            last = _AGENT_PART.of(read[-1])
            after = sa.tuple_(sa.literal(last["created_at"], tables.UtcTime), sa.literal(last["id"]))
            portion = query.where(place > after)

    def _record_from_row(self, row: Any) -> Record:
        run = _RUN_PART.of(row)
        return Record(
            rows.agent_from_row(_AGENT_PART.of(row), self._cipher),
            rows.generation_from_row(_GENERATION_PART.of(row)),
            None if run["agent_id"] is None else rows.run_from_row(run, self._cipher),
        )

    async def _before(self, connection: AsyncConnection, agent: Agent) -> Agent:
        row = (await connection.execute(sa.select(_AGENTS).where(_AGENTS.c.id == agent.id))).mappings().one_or_none()
        if row is None:
            raise _not_found(agent.id)
        if row["revision"] != agent.revision:
            raise _stale(agent.id)
        return rows.agent_from_row(row, self._cipher)

    async def _update(self, connection: AsyncConnection, saved: Agent, *, expected: int, with_spec: bool) -> None:
        values = rows.agent_to_row(saved, self._cipher)
        fixed = {"id", "owner_id", "external", "created_at"} | (set() if with_spec else {"spec", "sealed"})
        written = {name: value for name, value in values.items() if name not in fixed}
        result = await connection.execute(
            sa.update(_AGENTS).where(_AGENTS.c.id == saved.id, _AGENTS.c.revision == expected).values(written)
        )
        if result.rowcount != 1:
            raise _stale(saved.id)

    def _event(
        self, agent: Agent, *, step: str, state_from: State | None, reason: str, seconds: float | None = None
    ) -> Event:
        return Event(
            sequence=0,
            agent_id=agent.id,
            at=self._clock(),
            step=str(step),
            state_from=state_from,
            state_to=agent.state,
            generation=agent.generation,
            run=agent.run,
            reason=reason,
            seconds=seconds,
        )


async def _erase_credentials(connection: AsyncConnection, agent_id: str) -> None:
    nothing = {"agent_token": None, "join_token_sha256": None, "busy_token_sha256": None}
    await connection.execute(sa.update(_RUNS).where(_RUNS.c.agent_id == agent_id).values(nothing))


def _not_found(agent_id: str) -> NotFound:
    return NotFound(f"cannot find the agent {agent_id}")


def _stale(agent_id: str) -> Conflict:
    return Conflict(f"cannot write the agent {agent_id}: it was changed meanwhile; read it again", code="stale")


def _cursor(agent: Agent) -> str:
    return base64.urlsafe_b64encode(f"{agent.created_at.isoformat()} {agent.id}".encode()).decode()


def _cursor_values(cursor: str) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    try:
        text = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
        at, _, agent_id = text.partition(" ")
        created_at = datetime.fromisoformat(at)
        if created_at.utcoffset() != timedelta(0) or not is_agent_id(agent_id):
            raise ValueError(text)
    except ValueError as error:
        raise Invalid(
            "cannot list from there: the cursor is not one of ours; start without", code="invalid_cursor"
        ) from error
    return sa.literal(created_at, tables.UtcTime), sa.literal(agent_id)
