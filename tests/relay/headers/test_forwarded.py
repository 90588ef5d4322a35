from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured
from elizacloud.relay.headers.forwarded import Proxies
from elizacloud.relay.http1.head import RequestHead
from elizacloud.settings import load_settings
from tests.relay.conftest import Cloud, RawAgent, request
from tests.relay.headers.test_hygiene import fields

PROXIES = Proxies(["10.0.0.0/8", "2001:db8::1/128"])


def client(peer: str, *lines: str, secure: bool = False) -> tuple[str, list[str]]:
    head = RequestHead(b"GET", b"/", 1, fields(*lines), b"cloud.test")
    address, forwarded = PROXIES.client(PROXIES.peer((peer, 1), secure=secure), head)
    return address, forwarded.decode().split("\r\n")[:-1]


@pytest.mark.parametrize("peer", ["192.0.2.9", "::ffff:192.0.2.9"])
def test_what_a_stranger_claims_is_not_kept(peer: str) -> None:
    address, lines = client(peer, "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil")
    assert address == "192.0.2.9"
    assert lines == ["X-Forwarded-For: 192.0.2.9", "X-Forwarded-Proto: http", "X-Forwarded-Host: cloud.test"]


@pytest.mark.parametrize(
    ("sent", "hops"),
    [
        (["192.0.2.9"], "192.0.2.9, 10.0.0.1"),
        (["192.0.2.9", "10.0.0.2"], "192.0.2.9, 10.0.0.2, 10.0.0.1"),
        (["192.0.2.9:4711"], "192.0.2.9, 10.0.0.1"),
        (["[2001:db8::9]:1"], "2001:db8::9, 10.0.0.1"),
        (["6.6.6.6, 192.0.2.9"], "192.0.2.9, 10.0.0.1"),
        (["6.6.6.6", "192.0.2.9,10.0.0.2"], "192.0.2.9, 10.0.0.2, 10.0.0.1"),
        (["192.0.2.9, unknown"], "10.0.0.1"),
        (["192.0.2.9, "], "192.0.2.9, 10.0.0.1"),
        ([], "10.0.0.1"),
        ([", ".join(["10.0.0.2"] * 500)], ", ".join(["10.0.0.2"] * 32 + ["10.0.0.1"])),
    ],
)
def test_a_trusted_proxy_names_the_client_and_nobody_left_of_it_counts(sent: list[str], hops: str) -> None:
    address, lines = client("10.0.0.1", *(f"X-Forwarded-For: {value}" for value in sent))
    assert lines[0] == f"X-Forwarded-For: {hops}"
    assert address == hops.split(",")[0]


@pytest.mark.parametrize(
    ("proto", "host", "secure", "expected"),
    [
        ("https", "app.test:8443", False, ["https", "app.test:8443"]),
        ("http, https", "evil, app.test", False, ["https", "app.test"]),
        ("gopher", "a b", True, ["https", "cloud.test"]),
    ],
)
def test_a_trusted_proxy_says_how_it_was_called(proto: str, host: str, secure: bool, expected: list[str]) -> None:
    _, lines = client("2001:db8::1", f"X-Forwarded-Proto: {proto}", f"X-Forwarded-Host: {host}", secure=secure)
    assert lines[1:] == [f"X-Forwarded-Proto: {expected[0]}", f"X-Forwarded-Host: {expected[1]}"]


def test_a_unix_socket_is_this_machine() -> None:
    assert PROXIES.peer("", secure=False).address == "127.0.0.1"


async def test_the_agent_reads_what_the_proxy_said(run_dir: Path) -> None:
    headers = "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Request-Id: edge-1\r\n"
    async with Cloud(run_dir).running(trusted_proxies=("127.0.0.1/32",)) as cloud:
        agent = RawAgent()
        cloud.agent(agent)
        assert (await cloud.ask(request(headers=headers))).header("X-Request-Id") == "edge-1"
        for line in (
            b"X-Forwarded-For: 192.0.2.9, 127.0.0.1",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: relay.test",
            b"X-Request-Id: edge-1",
        ):
            assert agent.lines.count(line) == 1
        assert (await cloud.log_lines(1))[0]["client"] == "192.0.2.9"


def test_networks_are_checked_when_settings_are_read() -> None:
    assert load_settings({"trusted_proxies": "10.0.0.5, ::1"}).settings.trusted_proxies == ("10.0.0.5/32", "::1/128")
    with pytest.raises(Misconfigured, match="use addresses or networks"):
        load_settings({"trusted_proxies": "proxy.test"})
