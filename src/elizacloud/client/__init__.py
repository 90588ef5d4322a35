"""The typed client of our own HTTP API: what the CLI speaks, and the tests.

client    Client: one method a call, and waiting for an agent by its events
transport one request: credential, deadline, and the API's problems turned into our errors
answers   what the API answers, as models
sse       server-sent events: the format, and following a stream across broken connections
"""

from elizacloud.client.answers import Agent, AgentEvent, CliSession, CreatedToken, Token
from elizacloud.client.client import Client
from elizacloud.client.transport import TIMED_OUT, UNREACHABLE

__all__ = [
    "TIMED_OUT",
    "UNREACHABLE",
    "Agent",
    "AgentEvent",
    "CliSession",
    "Client",
    "CreatedToken",
    "Token",
]
