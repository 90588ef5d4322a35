"""Signing keys: made once for all control planes, sealed, and gone when nothing they signed can be valid."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa
from pydantic import SecretStr

from elizacloud.store import Purpose, SigningKey, Store, tables
from tests.store.conftest import Clock, Open

PRIVATE = '{"d": "the-private-part"}'


def a_key(clock: Clock, number: int = 1, purpose: Purpose = Purpose.ACCESS) -> SigningKey:
    begin = clock()
    return SigningKey(
        f"kid-{number}",
        purpose,
        SecretStr(PRIVATE),
        begin,
        begin + timedelta(days=1),
        begin + timedelta(days=1, hours=1),
    )


async def test_keys_are_kept_as_they_were_made(store: Store, clock: Clock) -> None:
    made = [a_key(clock, 1), a_key(clock, 2, Purpose.ASSERTION)]
    assert await store.signing_keys.complete(lambda present: made) == made
    assert await store.signing_keys.list() == made
    assert "the-private-part" not in repr(made)


async def test_the_private_part_is_sealed_for_its_own_row(store: Store, clock: Clock) -> None:
    await store.signing_keys.complete(lambda present: [a_key(clock)])
    async with store._database.read() as connection:
        sealed = await connection.scalar(sa.select(tables.signing_keys.c.private_jwk))
    assert sealed is not None
    assert b"private-part" not in sealed


async def test_two_control_planes_make_one_key(store: Store, open_store: Open, url: str, clock: Clock) -> None:
    stores = (store, await open_store(url))
    made = iter(range(1, 100))

    def first_only(present: Sequence[SigningKey]) -> list[SigningKey]:
        return [] if present else [a_key(clock, next(made))]

    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(stores[number % 2].signing_keys.complete(first_only), name=f"{number}")
    assert len(await store.signing_keys.list()) == 1


async def test_a_dead_key_is_neither_listed_nor_kept(store: Store, clock: Clock) -> None:
    later = replace(a_key(clock, 2), published_until=clock() + timedelta(days=9))
    await store.signing_keys.complete(lambda present: [a_key(clock), later])
    clock.pass_seconds(86_400 + 3_600)
    assert await store.signing_keys.list() == [later]
    assert [await store.signing_keys.prune(batch=5) for _ in range(2)] == [1, 0]
