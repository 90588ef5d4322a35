"""Dials that are begun again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from elizacloud.errors import Refused
from elizacloud.relay.dialling.redial import MOST_DIALS, Redialer
from elizacloud.relay.upstream import UpstreamConnection
from tests.relay.conftest import soon, until


class Transport(asyncio.Transport):
    aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def connected() -> tuple[UpstreamConnection, Transport]:
    connection, transport = UpstreamConnection(), Transport()
    connection.connection_made(transport)
    return connection, transport


class Dials:
    """A dialer whose every dial waits for what the test says."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Any]] = []
        self.ended = 0

    async def __call__(self, ip: str, port: int) -> Any:
        self.answers.append(asyncio.get_running_loop().create_future())
        try:
            return await self.answers[-1]
        finally:
            self.ended += 1

    async def begun(self, count: int) -> None:
        await until(lambda: len(self.answers) == count)


async def test_a_dial_that_is_answered_is_the_only_one() -> None:
    dials = Dials()
    connection, transport = connected()
    dialling = asyncio.create_task(Redialer(dials, again_seconds=60)("100.64.0.7", 2138))
    await dials.begun(1)
    dials.answers[0].set_result(connection)

    assert await soon(dialling) == connection
    assert len(dials.answers) == 1
    assert not transport.aborted


@pytest.mark.parametrize("winner", [0, 1])
async def test_one_without_an_answer_gets_company_and_the_first_answer_counts(winner: int) -> None:
    dials = Dials()
    connection, transport = connected()
    dialling = asyncio.create_task(Redialer(dials, again_seconds=0.01)("100.64.0.7", 2138))
    await dials.begun(2)
    dials.answers[winner].set_result(connection)

    assert await soon(dialling) == connection
    await until(lambda: dials.ended == len(dials.answers))
    assert not transport.aborted


async def test_an_error_is_an_answer() -> None:
    dials = Dials()
    dialling = asyncio.create_task(Redialer(dials, again_seconds=0.01)("100.64.0.7", 2138))
    await dials.begun(2)
    dials.answers[1].set_exception(Refused("nothing listens"))

    with pytest.raises(Refused):
        await soon(dialling)


async def test_two_answers_at_once_leave_no_connection_behind() -> None:
    dials = Dials()
    connections = [connected(), connected()]
    dialling = asyncio.create_task(Redialer(dials, again_seconds=0.01)("100.64.0.7", 2138))
    await dials.begun(2)
    for answer, (connection, _) in zip(dials.answers, connections, strict=False):
        answer.set_result(connection)

    chosen = await soon(dialling)
    await until(lambda: sum(transport.aborted for _, transport in connections) == 1)
    assert [connection for connection, transport in connections if not transport.aborted] == [chosen]


async def test_there_are_never_more_than_a_few_and_a_deadline_ends_all() -> None:
    dials = Dials()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await Redialer(dials, again_seconds=0.001)("100.64.0.7", 2138)

    assert len(dials.answers) == MOST_DIALS
    await until(lambda: dials.ended == MOST_DIALS)
