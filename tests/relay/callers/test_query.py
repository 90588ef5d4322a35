"""Which of a query's parameters an agent gets to see."""

import base64
import json

import pytest

from elizacloud.relay.callers import query
from elizacloud.relay.callers.credentials import claimed_issuer, looks_ours

TOKEN = "ec_Abc123_secretSECRET"
SESSION = "ecs_Abc123_secretSECRET"
TICKET = "ect_Abc123_secretSECRET"


def jwt(issuer: str) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"iss": issuer}).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJFZERTQSJ9.{claims}.c2ln"


def is_ours(text: str) -> bool:
    return looks_ours(text) or claimed_issuer(text) == "https://ours.test"


@pytest.mark.parametrize(
    ("target", "cleaned"),
    [
        (f"/ws?token={TOKEN}", "/ws"),
        (f"/ws?clientId=1&token={TOKEN}", "/ws?clientId=1"),
        (f"/ws?token={TOKEN}&clientId=1", "/ws?clientId=1"),
        (f"/ws?a=1&token={TOKEN}&b=2", "/ws?a=1&b=2"),
        (f"/ws?a=1&a={SESSION}&b=%2F&&c", "/ws?a=1&b=%2F&&c"),
        (f"/ws?a=Bearer%20{TOKEN}", "/ws"),
        (f"/ws?a=bearer+{TOKEN}", "/ws"),
        (f"/ws?elizacloud_ticket={TICKET}", "/ws"),
        ("/ws?elizacloud_ticket=anything&x=1", "/ws?x=1"),
        ("/ws?%65lizacloud%5fticket=anything&x=1", "/ws?x=1"),
        (f"/ws?x=%65%63%5f{TOKEN[3:]}", "/ws"),
        (f"/ws?x={jwt('https://ours.test')}", "/ws"),
        (f"/ws?x={jwt('https://the-agents-own.test')}", f"/ws?x={jwt('https://the-agents-own.test')}"),
        ("/ws?token=theirs&x=ec_", "/ws?token=theirs&x=ec_"),
        ("/exec_x?q=exec_y_z&a=%2F", "/exec_x?q=exec_y_z&a=%2F"),
        (f"/{TOKEN}?", f"/{TOKEN}?"),
        ("/a?&", "/a?&"),
        ("/a", "/a"),
    ],
)
def test_no_credential_of_ours_is_among_them(target: str, cleaned: str) -> None:
    assert query.without_credentials(target.encode(), is_ours) == cleaned.encode()


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/ws?clientId=a&token=wrong", "/ws?clientId=a&token=eca_own%2F"),
        ("/ws?apiKey=wrong&x=%2f", "/ws?apiKey=eca_own%2F&x=%2f"),
        ("/ws?%74oken=wrong", "/ws?%74oken=eca_own%2F"),
        ("/ws?clientId=a", "/ws?clientId=a"),
        ("/ws?mytoken=a", "/ws?mytoken=a"),
        ("/ws", "/ws"),
    ],
)
def test_a_websockets_token_becomes_the_agents_own(target: str, sent: str) -> None:
    assert query.with_agent_token(target.encode(), "eca_own/") == sent.encode()


def test_every_ticket_is_seen() -> None:
    assert query.tickets(b"/x?a&elizacloud_ticket=1&elizacloud%5Fticket=2&ticket=3") == ["1", "2"]
    assert query.tickets(b"/elizacloud_ticket=1") == []
