import asyncio

import pytest

from elizacloud.errors import Conflict, Invalid
from elizacloud.model import Cell, Host
from elizacloud.store import Store
from tests.fakes.store import CELL, HOST


async def test_cells_and_hosts_are_known_once_and_renamed(store: Store) -> None:
    renamed = Host(HOST.id, "new name", "docker")
    await store.places.ensure_cell(CELL)
    await store.places.ensure_host(renamed)
    await store.places.ensure_cell(Cell("cell-2", "second"))
    assert await store.places.cells() == [CELL, Cell("cell-2", "second")]
    assert await store.places.hosts() == [renamed]


async def test_two_cells_never_have_one_name(store: Store) -> None:
    await store.places.ensure_cell(Cell("cell-2", "second"))
    for taken in [Cell("cell-3", CELL.name), Cell("cell-2", CELL.name)]:
        with pytest.raises(Conflict):
            await store.places.ensure_cell(taken)
    assert await store.places.cells() == [CELL, Cell("cell-2", "second")]


async def test_many_ensure_the_same_at_once(store: Store) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(store.places.ensure_cell(Cell("cell-9", "ninth")), name=f"cell {number}")
            group.create_task(store.owners.ensure("owner-9"), name=f"owner {number}")
    assert await store.places.cells() == [CELL, Cell("cell-9", "ninth")]


async def test_an_owner_id_has_to_be_one(store: Store) -> None:
    for owner_id in ["", "x" * 256]:
        with pytest.raises(Invalid):
            await store.owners.ensure(owner_id)
