"""The whole cloud as an ordinary user: tailscaled does for root alone what nobody notices who is root."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.states import State
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import READY_SECONDS

USER = 1000
AS_USER = ("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}")
"""In a user namespace: another user as far as any process can tell, who still may read the files of this one."""
SERVER = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def ordinary(own_cloud: Cloud) -> Cloud:
    if os.geteuid() == 0:
        tried = subprocess.run([*AS_USER, "id", "-u"], capture_output=True, text=True)
        if tried.stdout.strip() != str(USER):
            pytest.skip(f"no ordinary user: unshare --user does not work here ({tried.stderr.strip()})")
        own_cloud.through = AS_USER
    return own_cloud.start()


async def test_agents_join_and_are_reached(ordinary: Cloud) -> None:
    async with Client(ordinary.url, SecretStr(ordinary.token)) as client:
        built_in = await client.create_agent("built in")
        of_owner = await client.create_agent("of its owner", options={"command": [sys.executable, "-c", SERVER]})
        for agent in (built_in, of_owner):
            await client.wait_until(agent.agent_id, {State.READY}, within_seconds=READY_SECONDS)
            async with client.relay("GET", agent.agent_id, "/api/health") as answer:
                assert answer.status == 200
