import asyncio
from pathlib import Path

from elizacloud.api.agents import WAIT_MAX_SECONDS
from elizacloud.relay.destination import API_ANSWER_SECONDS
from tests.relay.conftest import Cloud, RawAgent, request, soon


class Api(RawAgent):
    """Answers once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        await self.may_answer.wait()
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        writer.close()


async def test_the_api_has_longer_to_answer_than_agents(run_dir: Path) -> None:
    cloud = Cloud(run_dir)
    cloud.api = api = Api()
    async with cloud.running(first_byte_timeout_seconds=0.05):
        cloud.agent(RawAgent(b""))
        creating = await cloud.client()
        creating.send(b"POST /api/v1/agents?wait=100 HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: 0\r\n\r\n")
        await soon(api.asked.wait())
        assert (await cloud.ask(request())).status == 504  # so would the older request be, were the API an agent
        api.may_answer.set()
        assert (await soon(creating.answer())).status == 201


def test_the_relay_waits_longer_than_the_api_may() -> None:
    assert API_ANSWER_SECONDS > WAIT_MAX_SECONDS + 30
