from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from elizacloud.errors import NotFound, Unauthenticated, Unavailable
from elizacloud.model import utc_now
from elizacloud.relay.callers.access import Access
from elizacloud.relay.callers.origins import Origins
from elizacloud.relay.edge import Edge, Request
from elizacloud.relay.front import ToAgent
from elizacloud.relay.headers.cors import Cors
from elizacloud.relay.headers.forwarded import Peer, Proxies
from elizacloud.relay.http1.head import RequestHead
from elizacloud.upstreams import Change, Snapshot, UpstreamTable
from tests.relay.conftest import AGENT, TOKEN, TOKENS, asleep, upstream

EDGE = Edge(Cors(()), Proxies())
PEER = Peer("127.0.0.1", False, False, b"")
FRONT = ToAgent(AGENT, b"/", by_path=True)


@dataclass
class Link:
    known: bool = True
    tokens_honoured: bool = True
    table: UpstreamTable = field(default_factory=UpstreamTable)
    sought: list[str] = field(default_factory=list)

    def tell_unknown_key(self, issuer: str) -> None:
        self.sought.append(issuer)


@pytest.fixture
def link() -> Link:
    link = Link()
    link.table.replace(Snapshot("e", 1, (upstream(),), (), tuple(TOKENS)))
    return link


def asking(authorization: str = f"Bearer {TOKEN}") -> Request:
    head = RequestHead(b"GET", b"/", 1, [(b"authorization", b"Authorization", authorization.encode())], b"x")
    return EDGE.receive(head, PEER)


def access_of(link: Link, now: Callable[[], datetime] = utc_now) -> Access:
    return Access(link, Origins(), now)


def test_an_owner_reaches_an_agent_awake_or_asleep(link: Link) -> None:
    access = access_of(link)
    access.check(asking(), FRONT)
    link.table.apply(Change(2, agents=(asleep(),)))
    access.check(asking(), FRONT)


def test_a_token_that_was_seen_before_is_refused_once_revoked(link: Link) -> None:
    access = access_of(link)
    access.check(asking(), FRONT)
    access.check(asking(), FRONT)
    link.table.apply(Change(2, revoked_tokens=(TOKENS[0].token_id,)))
    with pytest.raises(Unauthenticated):
        access.check(asking(), FRONT)


def test_a_token_that_was_seen_before_is_refused_once_expired(link: Link) -> None:
    now = [utc_now()]
    token = replace(TOKENS[0], expires_at=now[0] + timedelta(seconds=10))
    link.table.apply(Change(2, tokens=(token,)))
    access = access_of(link, lambda: now[0])
    access.check(asking(), FRONT)
    now[0] += timedelta(seconds=10)
    with pytest.raises(Unauthenticated):
        access.check(asking(), FRONT)


def test_a_token_that_changed_its_owner_counts_as_it_is_now(link: Link) -> None:
    access = access_of(link)
    access.check(asking(), FRONT)
    link.table.apply(Change(2, tokens=(replace(TOKENS[0], owner_id="other"),)))
    with pytest.raises(NotFound):
        access.check(asking(), FRONT)


@pytest.mark.parametrize(
    "authorization", ["", "Basic x", "Bearer", "Bearer  ", TOKEN, f"Bearer {TOKEN} x", f"Bearer {TOKEN}\xe9"]
)
def test_other_credentials_are_refused(link: Link, authorization: str) -> None:
    with pytest.raises(Unauthenticated):
        access_of(link).check(asking(authorization), FRONT)


def test_without_recent_word_from_the_control_plane_nobody_is_let_in(link: Link) -> None:
    link.tokens_honoured = False
    with pytest.raises(Unavailable):
        access_of(link).check(asking(), FRONT)
