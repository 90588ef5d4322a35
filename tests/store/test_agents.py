import asyncio
import base64
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from elizacloud.errors import Conflict, Error, Invalid, NotFound
from elizacloud.model import Agent, AgentSpec, Failure, Generation, Run
from elizacloud.states import State, Wanted
from elizacloud.store import Cipher, Store, agents, rows
from tests.fakes.store import CELL, HOST, an_agent, created
from tests.loop_turns import calls_by_turn
from tests.store.conftest import Clock, Open

SPEC = AgentSpec(
    image="agent:1",
    command=("run", "it"),
    environment={"A": "b"},
    secrets={"KEY": SecretStr("value")},
    config={"nested": {"nul": "\x00", "surrogate": "\ud800", "emoji": "🦊"}},
    port=3000,
    resources={"memory": 512},
)


async def outcome(call: Awaitable[object]) -> str:
    try:
        await call
    except Error as error:
        return error.reason
    return "done"


async def together(*calls: Awaitable[object]) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(call), name=f"call {number}") for number, call in enumerate(calls)]
    return [task.result() for task in tasks]


async def test_an_agent_is_read_as_it_was_created(store: Store) -> None:
    agent = await created(store, an_agent(spec=SPEC))
    assert agent.revision == 1
    assert await store.agents.get(agent.id) == agent
    assert await store.agents.generations(agent.id) == [Generation(agent.id, 1, created_at=agent.created_at)]


async def test_what_is_absent_or_somebody_elses_is_not_found(store: Store) -> None:
    agent = await created(store)
    assert await store.agents.get(agent.id, owner_id="owner-1") == agent
    for agent_id, owner_id in [(agent.id, "owner-2"), ("nothing", None), ("", None), ("x" * 5000, None)]:
        with pytest.raises(NotFound):
            await store.agents.get(agent_id, owner_id=owner_id)
    with pytest.raises(NotFound):
        await store.agents.record("nothing")
    with pytest.raises(NotFound):
        await store.agents.generation(agent.id, 2)
    with pytest.raises(NotFound):
        await store.agents.save(an_agent(), step="any")


async def test_two_agents_of_one_owner_never_have_one_name(store: Store) -> None:
    await created(store, an_agent("ada"))
    await created(store, an_agent("Ada"))
    await created(store, an_agent("ada", owner_id="owner-2"))
    with pytest.raises(Conflict, match="choose another name") as caught:
        await created(store, an_agent("ada"))
    assert caught.value.reason == "name_taken"


async def test_of_many_creates_of_one_name_at_once_one_wins(store: Store) -> None:
    answers = await together(*(created(store, an_agent("ada")) for _ in range(8)))
    assert sorted(answers) == ["done"] + ["name_taken"] * 7
    assert len(await store.agents.list_all()) == 1


async def test_renaming_to_a_taken_name_is_refused_and_changes_nothing(store: Store) -> None:
    await created(store, an_agent("ada"))
    bob = await created(store, an_agent("bob"))
    with pytest.raises(Conflict) as caught:
        await store.agents.save(replace(bob, name="ada"), step="rename", reason="asked")
    assert caught.value.reason == "name_taken"
    assert await store.agents.get(bob.id) == bob
    assert await store.events.last_sequence() == 2


async def test_a_name_is_free_as_soon_as_its_agent_is_to_be_deleted(store: Store) -> None:
    agent = await created(store, an_agent("ada"))
    deleted = await store.agents.save(replace(agent, wanted=Wanted.DELETED), step="delete")
    await created(store, an_agent("ada"))
    with pytest.raises(Conflict) as caught:
        await store.agents.save(replace(deleted, wanted=Wanted.RUNNING), step="undelete")
    assert caught.value.reason == "name_taken"


async def test_an_id_is_never_used_twice(store: Store) -> None:
    agent = await created(store)
    with pytest.raises(Conflict) as caught:
        await created(store, replace(agent, name="other"))
    assert caught.value.reason == "agent_exists"
    assert sorted(await together(*(created(store, an_agent(f"n{n}")) for n in range(3)))) == ["done"] * 3
    again = an_agent("again")
    assert sorted(await together(*(created(store, replace(again, name=f"m{n}")) for n in range(3)))) == [
        "agent_exists",
        "agent_exists",
        "done",
    ]


async def test_an_agent_needs_a_known_cell_and_host_and_an_owner(store: Store) -> None:
    for unknown in [replace(an_agent(), cell_id="x"), replace(an_agent(), host_id="x")]:
        with pytest.raises(NotFound):
            await created(store, unknown)
    for owner_id in ["", "x" * 256]:
        with pytest.raises(Invalid):
            await created(store, an_agent(owner_id=owner_id))
    assert await store.agents.list_all() == []


async def test_text_that_no_database_takes_is_invalid(store: Store) -> None:
    with pytest.raises(Invalid):
        await created(store, an_agent("a lone surrogate \ud800"))


async def test_text_that_postgresql_does_not_take_is_invalid(open_store: Open, postgresql_url: str) -> None:
    store = await open_store(postgresql_url)
    with pytest.raises(Invalid):
        await created(store, an_agent("a nul \x00"))


async def test_a_save_writes_agent_generation_run_and_event_together(store: Store, clock: Clock) -> None:
    agent = await created(store)
    clock.pass_seconds(2)
    run = Run(agent.id, 1, 1, runtime_ref="ref-1", agent_token=SecretStr("token"), started_at=clock())
    generation = Generation(agent.id, 1, preauth_key_id="7", created_at=agent.created_at)
    failure = Failure("start", "no room", "runtime_refused", 2, clock() + timedelta(seconds=8), fix="make room")
    saved = await store.agents.save(
        replace(agent, state=State.KEYED, run=1, agent_ready=False, failure=failure),
        step="mint key",
        reason="asked",
        seconds=1.5,
        generation=generation,
        run=run,
    )
    assert saved.revision == 2
    assert saved.updated_at == clock()
    record = await store.agents.record(agent.id)
    assert (record.agent, record.generation, record.run) == (saved, generation, run)
    assert await store.agents.run(agent.id, 1, 1) == run
    assert await store.agents.run(agent.id, 1, 2) is None
    event = (await store.events.after(1))[0]
    assert (event.step, event.state_from, event.state_to) == ("mint key", State.REQUESTED, State.KEYED)
    assert (event.reason, event.seconds, event.run, event.at) == ("asked", 1.5, 1, clock())


async def test_a_save_replaces_what_it_is_given_and_keeps_the_rest(store: Store) -> None:
    agent = await created(store, an_agent(spec=SPEC))
    first = await store.agents.save(replace(agent, run=1), step="s", run=Run(agent.id, 1, 1, runtime_ref="a"))
    second = await store.agents.save(first, step="s", run=Run(agent.id, 1, 1, runtime_ref="b"))
    third = await store.agents.save(second, step="s")
    record = await store.agents.record(agent.id)
    assert record.agent == third
    assert record.run == Run(agent.id, 1, 1, runtime_ref="b")
    assert third.spec == SPEC


async def test_a_new_spec_is_written(store: Store) -> None:
    agent = await created(store, an_agent(spec=SPEC))
    changed = replace(SPEC, secrets={"KEY": SecretStr("another")})
    await store.agents.save(replace(agent, spec=changed), step="patch")
    assert (await store.agents.get(agent.id)).spec == changed


async def test_a_save_without_a_change_of_state_or_a_reason_is_no_event(store: Store) -> None:
    agent = await created(store)
    await store.agents.save(replace(agent, agent_ready=True), step="probe")
    assert await store.events.last_sequence() == 1


async def test_a_stale_save_is_refused_and_changes_nothing(store: Store) -> None:
    agent = await created(store)
    newer = await store.agents.save(replace(agent, wanted=Wanted.DELETED), step="delete", reason="asked")
    with pytest.raises(Conflict) as caught:
        await store.agents.save(
            replace(agent, state=State.KEYED), step="mint key", run=Run(agent.id, 1, 1, runtime_ref="x")
        )
    assert caught.value.reason == "stale"
    assert await store.agents.get(agent.id) == newer
    assert await store.agents.run(agent.id, 1, 1) is None
    assert await store.events.last_sequence() == 2


async def test_of_many_saves_of_one_revision_one_wins(store: Store) -> None:
    agent = await created(store)
    saves = (store.agents.save(replace(agent, agent_ready=True), step="s", reason=f"{n}") for n in range(12))
    answers = await together(*saves)
    assert sorted(answers) == ["done"] + ["stale"] * 11
    assert await store.events.last_sequence() == 2


async def test_many_agents_are_written_at_once(store: Store) -> None:
    agents = [an_agent(f"agent {number}") for number in range(20)]

    async def live(number: int) -> None:
        agent = await created(store, agents[number])
        for turn in range(5):
            agent = await store.agents.save(agent, step="turn", reason=str(turn))
            assert await store.agents.get(agent.id) == agent

    assert await together(*(live(number) for number in range(20))) == ["done"] * 20
    assert [event.sequence for event in await store.events.after(0, limit=1000)] == list(range(1, 121))


async def test_a_move_that_the_table_forbids_is_refused(store: Store) -> None:
    agent = await created(store)
    with pytest.raises(Conflict) as caught:
        await store.agents.save(replace(agent, state=State.READY), step="cheat")
    assert caught.value.reason == "illegal_move"
    assert await store.agents.get(agent.id) == agent


async def test_a_run_of_an_unknown_generation_is_refused(store: Store) -> None:
    agent = await created(store)
    with pytest.raises(NotFound):
        await store.agents.save(agent, step="s", run=Run(agent.id, 5, 1))
    assert await store.agents.get(agent.id) == agent


async def test_a_save_that_is_cancelled_leaves_the_store_usable(store: Store) -> None:
    agent = await created(store)
    for turns in range(40):
        task = asyncio.create_task(store.agents.save(agent, step="s", reason="r"), name="save")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        agent = await store.agents.get(agent.id)
        assert agent.revision == await store.events.last_sequence()
    assert await store.agents.save(agent, step="s", reason="r") == await store.agents.get(agent.id)


async def test_a_page_follows_the_other_without_gap_or_repeat_while_agents_come(store: Store) -> None:
    start = datetime(2026, 1, 2, tzinfo=UTC)
    # Every three share a time, so that the id has to break the tie.
    before = [await created(store, an_agent(f"n{n}", at=start + timedelta(seconds=n // 3))) for n in range(11)]
    await created(store, an_agent("other", owner_id="owner-2"))
    seen: list[str] = []
    after: str | None = None
    while True:
        page = await store.agents.list("owner-1", after=after, limit=3)
        assert len(page.items) <= 3
        seen += [record.agent.id for record in page.items]
        await created(store, an_agent(f"new {len(seen)}", at=start + timedelta(days=1)))
        if page.next is None:
            break
        after = page.next
    assert sorted(seen) == sorted(agent.id for agent in before)
    assert [record.agent.created_at for record in (await store.agents.list("owner-1")).items] == sorted(
        (record.agent.created_at for record in (await store.agents.list("owner-1")).items), reverse=True
    )


async def test_a_page_that_ends_the_list_says_so(store: Store) -> None:
    assert await store.agents.list("owner-1") == await store.agents.list(None)
    assert (await store.agents.list("owner-1")).items == ()
    for number in range(4):
        await created(store, an_agent(f"n{number}"))
    assert (await store.agents.list("owner-1", limit=4)).next is None
    assert (await store.agents.list("owner-1", limit=3)).next is not None
    assert len((await store.agents.list(None)).items) == 4


@pytest.mark.parametrize(("limit", "size"), [(0, 1), (-5, 1), (10**30, 3)])
async def test_a_limit_is_kept_within_reason(store: Store, limit: int, size: int) -> None:
    for number in range(3):
        await created(store, an_agent(f"n{number}"))
    assert len((await store.agents.list(None, limit=limit)).items) == size


@pytest.mark.parametrize("owner_id", [None, "owner-1"])
async def test_a_page_is_read_from_an_index_without_those_that_are_gone(
    open_store: Open, sqlite_url: str, owner_id: str | None
) -> None:
    store = await open_store(sqlite_url)
    statements: list[tuple[str, tuple[Any, ...]]] = []
    engine = store._database._reader.sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2:4]))
    at = "2026-01-01T00:00:00+00:00"
    await store.agents.list(owner_id, after=_encoded(f"{at} bcdfghjkmnpqrstv"))
    (statement, parameters) = next(each for each in statements if "FROM agents" in each[0])
    async with store._database.read() as connection:
        plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)).all()
    agents, *others = [str(row[-1]) for row in plan]
    assert ("USING INDEX ix_agents_of_owner" if owner_id else "USING INDEX ix_agents_listed") in agents
    # Each one's generation and run by their keys, and nothing is sorted.
    assert len(others) == 2
    assert all("USING INDEX sqlite_autoindex" in step for step in others)


async def test_all_are_read_by_an_index_and_nothing_is_sorted(
    open_store: Open, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_PORTION", 1)
    store = await open_store(sqlite_url)
    await store.places.ensure_cell(CELL)
    await store.places.ensure_host(HOST)
    await created(store)
    statements: list[tuple[str, tuple[Any, ...]]] = []
    engine = store._database._reader.sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2:4]))
    assert len(await store.agents.records()) == 1
    read = [each for each in statements if "FROM agents" in each[0]]
    assert len(read) == 2
    async with store._database.read() as connection:
        for statement, parameters in read:
            plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)).all()
            steps = [str(row[-1]) for row in plan]
            assert "USING INDEX ix_agents_listed" in steps[0]
            assert not [step for step in steps if "TEMP B-TREE" in step]


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


_AT = "2026-01-01T00:00:00"
_NOT_CURSORS = [
    "[]",
    "é",
    f"{_AT}+00:00",
    f"{_AT}+00:00 \x00",
    f"{_AT}+00:00 {'x' * 5000}",
    f"{_AT} bcdfghjkmnpqrstv",
    "0001-01-01T00:00:00+23:59 bcdfghjkmnpqrstv",
]


@pytest.mark.parametrize("cursor", ["", "x", "é", "\x00", "A" * 10000, *map(_encoded, _NOT_CURSORS)])
async def test_a_cursor_that_is_not_ours_is_invalid(store: Store, cursor: str) -> None:
    with pytest.raises(Invalid) as caught:
        await store.agents.list("owner-1", after=cursor)
    assert caught.value.reason == "invalid_cursor"


async def gone(store: Store, name: str = "ada") -> str:
    agent = await created(store, an_agent(name, spec=SPEC))
    run = Run(agent.id, 1, 1, agent_token=SecretStr("t"), join_token_sha256="j", busy_token_sha256="b")
    agent = await store.agents.save(replace(agent, wanted=Wanted.DELETED, run=1), step="delete", run=run)
    for state in (State.DELETING, State.TOMBSTONE, State.GONE):
        agent = await store.agents.save(replace(agent, state=state), step="delete")
    return agent.id


async def test_a_gone_agent_is_kept_without_its_secrets_and_is_not_listed(store: Store) -> None:
    agent_id = await gone(store)
    left = await created(store)
    assert [record.agent for record in (await store.agents.list("owner-1")).items] == [left]
    assert await store.agents.list_all() == [left]
    assert [record.agent for record in await store.agents.records()] == [left]
    agent = await store.agents.get(agent_id)
    assert agent.state is State.GONE
    assert agent.spec == AgentSpec(image="agent:1")
    run = await store.agents.run(agent_id, 1, 1)
    assert run is not None
    assert (run.agent_token, run.join_token_sha256, run.busy_token_sha256) == (None, None, None)
    with pytest.raises(Conflict):
        await created(store, replace(left, id=agent_id, name="another"))


async def test_records_hold_the_current_generation_and_run(store: Store) -> None:
    fresh = await created(store, an_agent("fresh"))
    agent = await created(store, an_agent("old"))
    agent = await store.agents.save(replace(agent, run=1), step="s", run=Run(agent.id, 1, 1))
    second = Generation(agent.id, 2, created_at=agent.created_at)
    agent = await store.agents.save(replace(agent, generation=2, run=1), step="s", generation=second)
    agent = await store.agents.save(agent, step="s", run=Run(agent.id, 2, 1, runtime_ref="now"))
    found = {record.agent.id: record for record in await store.agents.records()}
    assert found[fresh.id].run is None
    assert found[agent.id].generation == second
    assert found[agent.id].run == Run(agent.id, 2, 1, runtime_ref="now")
    assert [generation.number for generation in await store.agents.generations(agent.id)] == [1, 2]


async def test_many_are_read_in_portions_and_none_is_made_in_a_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends a transaction in which nothing is asked for a while; a busy event loop must not look like one."""
    ids = {(await created(store, an_agent(f"n{n}"))).id for n in range(7)}
    monkeypatch.setattr(agents, "_PORTION", 2)
    pool, made, open_ones = store._database._reader.pool, rows.agent_from_row, set[int]()

    def watched(row: Any, cipher: Cipher) -> Agent:
        open_ones.add(pool.checkedout())  # type: ignore[attr-defined]
        return made(row, cipher)

    monkeypatch.setattr(rows, "agent_from_row", watched)
    assert {record.agent.id for record in await store.agents.records()} == ids
    assert {agent.id for agent in await store.agents.list_all()} == ids
    assert open_ones == {0}


async def test_only_so_many_are_made_in_one_turn_of_the_loop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {(await created(store, an_agent(f"n{n}"))).id for n in range(7)}
    monkeypatch.setattr(agents, "_AT_ONCE", 2)
    async with calls_by_turn(monkeypatch, rows, "agent_from_row") as in_turn:
        assert {record.agent.id for record in await store.agents.records()} == ids
    assert sorted(in_turn.values()) == [1, 2, 2, 2]
