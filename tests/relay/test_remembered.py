"""What is remembered to be fast stays small, whatever strangers send: each of these is tens of thousands of bytes long."""

import gc
import tracemalloc
from collections.abc import Callable
from itertools import count

import pytest

from elizacloud.relay.access_log import logged_path
from elizacloud.relay.callers.access import Access
from elizacloud.relay.callers.origins import Origins
from elizacloud.relay.headers import hygiene
from elizacloud.relay.headers.forwarded import Proxies
from elizacloud.relay.http1.framing import NO_BODY
from elizacloud.relay.http1.head import AnswerHead, RequestHead
from elizacloud.upstreams import Snapshot
from tests.relay.callers.test_access import FRONT, Link, asking
from tests.relay.conftest import TOKEN, TOKENS, upstream

LONG = 60_000
TIMES = 200
NUMBERS = count()
"""No text is that of an earlier case: it might be remembered from there."""

LINK = Link()
LINK.table.replace(Snapshot("e", 1, (upstream(),), (), tuple(TOKENS)))
ACCESS = Access(LINK, Origins())
PROXIES = Proxies(["10.0.0.0/8"])


def asks(name: bytes, value: bytes = b"v") -> RequestHead:
    return RequestHead(b"GET", b"/", 1, [(name.lower(), name, value)], b"cloud.test")


def answers(name: bytes) -> AnswerHead:
    return AnswerHead(200, b"OK", 1, [(name, name, b"v")])


def for_agent(text: bytes) -> None:
    hygiene.agent_request(
        asks(text),
        target=b"/",
        framing=NO_BODY,
        upgrade=None,
        host_line=b"",
        authorization_line=b"",
        forwarded_lines=b"",
        by_path=True,
    )


@pytest.mark.parametrize(
    "receive",
    [
        pytest.param(for_agent, id="a header for an agent"),
        pytest.param(
            lambda text: hygiene.api_request(
                asks(text), target=b"/", framing=NO_BODY, upgrade=None, forwarded_lines=b""
            ),
            id="a header for the API",
        ),
        pytest.param(lambda text: hygiene.agent_answer_by_path(answers(text)), id="a header of an agent"),
        pytest.param(lambda text: hygiene.api_answer(answers(text)), id="a header of the API"),
        pytest.param(
            lambda text: hygiene.trailer_lines([(text, text, b"v")], to_agent=True), id="a trailer for an agent"
        ),
        pytest.param(lambda text: logged_path(b"/" + text), id="a path"),
        pytest.param(
            lambda text: PROXIES.client(
                PROXIES.peer(("10.0.0.1", 1), secure=False), asks(b"X-Forwarded-For", b"fe80::1%" + text)
            ),
            id="an address",
        ),
        pytest.param(
            lambda text: ACCESS.check(asking(f"Bearer{' ' * len(text)}{TOKEN}"), FRONT),
            id="an Authorization that counts",
        ),
    ],
)
def test_what_is_long_is_not_remembered(receive: Callable[[bytes], object]) -> None:
    receive(b"x")
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(TIMES):
            receive(b"x" * (LONG + next(NUMBERS)))
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < TIMES * LONG / 10
