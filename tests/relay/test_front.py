import pytest

from elizacloud.relay.front import Fronts, ToAgent, ToApi, ToOwn
from elizacloud.relay.http1.head import BadMessage, RequestHead

A = "kagent0000000001"
FRONTS = Fronts("agents.test")


def find(target: str, host: str = "cloud.test", method: str = "GET") -> ToAgent | ToOwn | ToApi:
    return FRONTS.find(RequestHead(method.encode(), target.encode(), 1, [], host.encode()))


@pytest.mark.parametrize(
    ("target", "onward"),
    [
        (f"/api/relay/{A}/api/health", "/api/health"),
        (f"/api/relay/{A}/", "/"),
        (f"/api/relay/{A}", "/"),
        (f"/api/relay/{A}?a=/b", "/?a=/b"),
        (f"/api/relay/{A}//x/../y%2F?z#f", "//x/../y%2F?z#f"),
        (f"/api/relay/{A}/../../v1/agents", "/../../v1/agents"),
    ],
)
def test_the_path_front_passes_the_rest_as_it_is(target: str, onward: str) -> None:
    assert find(target) == ToAgent(A, onward.encode(), by_path=True)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/api/v1/agents",
        "/api/relay",
        "/api/relayed/x",
        "/api/%72elay/a/b",
        "//api/relay/a",
        "/x/../api/relay/a",
        "/API/relay/a",
    ],
)
def test_all_else_is_the_apis(target: str) -> None:
    assert find(target) == ToApi(target.encode())


@pytest.mark.parametrize(
    "host", [f"{A}.agents.test", f"{A}.agents.test:8420", f"{A.upper()}.AGENTS.test", f"{A}.agents.test."]
)
def test_an_agents_host_is_its_front(host: str) -> None:
    assert find("/ws?x=1", host) == ToAgent(A, b"/ws?x=1", by_path=False)


@pytest.mark.parametrize("host", ["x.agents.test", "a.b.agents.test", ".agents.test"])
def test_an_unknown_host_of_the_relay_domain_is_never_the_apis(host: str) -> None:
    found = find("/api/v1/agents", host)
    assert isinstance(found, ToAgent)
    assert found.agent_id != A


@pytest.mark.parametrize(
    "host", ["agents.test", "agents.test.evil", f"{A}.agents.tests", f"{A}agents.test", "", "127.0.0.1:8420"]
)
def test_other_hosts_are_the_apis(host: str) -> None:
    assert find("/", host) == ToApi(b"/")


def test_an_agents_host_wins_over_a_path() -> None:
    assert find(f"/api/relay/{A}/x", "other.agents.test") == ToAgent(
        "other", f"/api/relay/{A}/x".encode(), by_path=False
    )


def test_an_absolute_target_is_read_as_its_path() -> None:
    assert find("http://cloud.test/api/v1?x") == ToApi(b"/api/v1?x")
    assert find("https://CLOUD.test") == ToApi(b"/")
    assert find("http://cloud.test?x") == ToApi(b"/?x")
    assert find(f"http://{A}.agents.test/x", f"{A}.agents.test") == ToAgent(A, b"/x", by_path=False)


@pytest.mark.parametrize("target", ["http://evil.test/", "ftp://cloud.test/", "cloud.test:80", "*"])
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(BadMessage):
        find(target)


def test_options_may_ask_for_the_whole_server() -> None:
    assert find("*", method="OPTIONS") == ToApi(b"*")


def test_trace_is_never_relayed() -> None:
    with pytest.raises(BadMessage) as refused:
        find("/", method="TRACE")
    assert refused.value.status == 405
