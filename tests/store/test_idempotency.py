import asyncio

import pytest

from elizacloud.errors import Invalid
from elizacloud.store import Claim, Outcome, Store
from tests.store.conftest import Clock, Open


async def claim(
    store: Store, *, key: str = "key", body: str = "body", agent_id: str = "agent-1", owner: str = "o"
) -> Claim:
    return await store.idempotency.claim(owner, key, body, agent_id=agent_id)


async def test_a_key_is_new_then_in_progress_then_replayed(store: Store) -> None:
    first = await claim(store)
    assert (first.outcome, first.agent_id, first.taken_over) == (Outcome.NEW, "agent-1", False)
    second = await claim(store, agent_id="agent-2")
    assert (second.outcome, second.agent_id) == (Outcome.IN_PROGRESS, "agent-1")
    await store.idempotency.finish(first, status=201, body=b'{"a": "\xff"}')
    third = await claim(store, agent_id="agent-3")
    assert (third.outcome, third.agent_id, third.status, third.body) == (
        Outcome.REPLAY,
        "agent-1",
        201,
        b'{"a": "\xff"}',
    )


async def test_another_body_is_refused_in_progress_and_after(store: Store) -> None:
    first = await claim(store)
    for _ in range(2):
        with pytest.raises(Invalid, match="choose a new one") as caught:
            await claim(store, body="another")
        assert caught.value.reason == "idempotency_mismatch"
        await store.idempotency.finish(first, status=201, body=b"")
    assert (await claim(store)).body == b""


async def test_keys_of_owners_and_other_keys_are_apart(store: Store) -> None:
    claims = [await claim(store), await claim(store, owner="p"), await claim(store, key="other")]
    assert [each.outcome for each in claims] == [Outcome.NEW] * 3


async def test_of_many_at_once_one_is_new(store: Store) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(claim(store, agent_id=f"a{number}"), name=f"{number}") for number in range(12)]
    outcomes = [task.result().outcome for task in tasks]
    assert sorted(outcomes) == [Outcome.IN_PROGRESS] * 11 + [Outcome.NEW]
    assert len({task.result().agent_id for task in tasks}) == 1


async def test_a_claim_that_a_crash_left_is_taken_over_with_its_agent_by_one(
    store: Store, open_store: Open, url: str, clock: Clock
) -> None:
    await claim(store)
    clock.pass_seconds(59)
    assert (await claim(store)).outcome is Outcome.IN_PROGRESS
    clock.pass_seconds(1)
    after_restart = await open_store(url)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(claim(after_restart, agent_id=f"a{number}"), name=f"{number}") for number in range(6)
        ]
    claims = [task.result() for task in tasks]
    assert sorted(each.outcome for each in claims) == [Outcome.IN_PROGRESS] * 5 + [Outcome.NEW]
    (new,) = [each for each in claims if each.outcome is Outcome.NEW]
    assert (new.agent_id, new.taken_over) == ("agent-1", True)


async def test_who_lost_the_claim_cannot_finish_or_release_it(store: Store, clock: Clock) -> None:
    slow = await claim(store)
    clock.pass_seconds(61)
    taker = await claim(store)
    await store.idempotency.finish(slow, status=500, body=b"late")
    await store.idempotency.release(slow)
    assert (await claim(store)).outcome is Outcome.IN_PROGRESS
    await store.idempotency.finish(taker, status=201, body=b"good")
    await store.idempotency.finish(taker, status=202, body=b"again")
    assert ((await claim(store)).status, (await claim(store)).body) == (201, b"good")


async def test_a_released_key_is_new_again(store: Store) -> None:
    await store.idempotency.release(await claim(store))
    again = await claim(store, body="corrected", agent_id="agent-2")
    assert (again.outcome, again.agent_id) == (Outcome.NEW, "agent-2")


async def test_a_finished_key_is_not_released(store: Store) -> None:
    first = await claim(store)
    await store.idempotency.finish(first, status=201, body=b"good")
    await store.idempotency.release(first)
    assert (await claim(store)).outcome is Outcome.REPLAY


async def test_a_day_later_the_key_is_new_again_swept_or_not(store: Store, clock: Clock) -> None:
    await store.idempotency.finish(await claim(store), status=201, body=b"")
    clock.pass_seconds(86399)
    assert await store.idempotency.sweep() == 0
    await claim(store, key="fresh")
    clock.pass_seconds(1)
    assert (await claim(store, body="other")).outcome is Outcome.NEW
    clock.pass_seconds(86399)
    assert await store.idempotency.sweep() == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_of_no_or_too_many_characters_is_invalid(store: Store, key: str) -> None:
    with pytest.raises(Invalid) as caught:
        await claim(store, key=key)
    assert caught.value.reason == "invalid_idempotency_key"
