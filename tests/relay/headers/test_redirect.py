from urllib.parse import urljoin

import pytest

from elizacloud.relay.headers.redirect import Front, location

PREFIX = "/api/relay/kagent"
BY_PATH = Front(b"100.64.0.7:2138", (b"cloud.test:8443", b"app.test"), PREFIX.encode(), b"/a/b?x=1")
BY_HOST = Front(b"100.64.0.7:2138", (b"kagent.agents.test",), b"", b"/a/b?x=1")


@pytest.mark.parametrize(
    ("sent", "by_path", "by_host"),
    [
        ("/y?q#f", f"{PREFIX}/y?q#f", "/y?q#f"),
        ("y", f"{PREFIX}/a/y", "y"),
        ("../y/", f"{PREFIX}/y/", "../y/"),
        ("?q", f"{PREFIX}/a/b?q", "?q"),
        ("", f"{PREFIX}/a/b", ""),
        (f"{PREFIX}/y", f"{PREFIX}/y", f"{PREFIX}/y"),
        ("http://100.64.0.7:2138/y?q", f"{PREFIX}/y?q", "/y?q"),
        ("http://100.64.0.7:2138", f"{PREFIX}/", "/"),
        ("http://100.64.0.7:2138?q", f"{PREFIX}/?q", "/?q"),
        ("http://100.64.0.7:2138//evil.test", f"{PREFIX}//evil.test", "/.//evil.test"),
        ("https://user@100.64.0.7:2138/y", f"{PREFIX}/y", "/y"),
        (f"https://cloud.test{PREFIX}/y", f"{PREFIX}/y", f"https://cloud.test{PREFIX}/y"),
        ("https://discord.com/oauth2?redirect_uri=x", "https://discord.com/oauth2?redirect_uri=x", None),
        ("//elsewhere.test/y", "//elsewhere.test/y", None),
        ("myapp://done", "myapp://done", None),
        ("http://127.0.0.1:8976/callback", "http://127.0.0.1:8976/callback", None),
    ],
)
def test_a_redirect_leads_to_where_the_client_came_in(sent: str, by_path: str, by_host: str | None) -> None:
    assert location(sent.encode(), BY_PATH) == by_path.encode()
    assert location(sent.encode(), BY_HOST) == (sent if by_host is None else by_host).encode()


@pytest.mark.parametrize(
    "authority",
    [
        "100.64.0.8",
        "100.64.0.8:2138",
        "100.64.0.7:22",
        "100.127.255.255",
        "user@100.64.0.8",
        "100.64.0.8.",
        "1681915912",
        "0x64.64.0.8",
        "0144.0100.0.8",
        "100.64.8",
        "%31%30%30.64.0.8",
        "[fd7a:115c:a1e0::8]:80",
        "[::ffff:100.64.0.8]",
        "\uff11\uff10\uff10.64.0.8",
    ],
)
@pytest.mark.parametrize("how", ["http://{}/x", "https:\\\\{}\\x", "//{}/x", "/\\{}", "ht\ttp://{}/", " //{}/ "])
def test_no_client_is_sent_into_the_tailnet(authority: str, how: str) -> None:
    for front in (BY_PATH, BY_HOST):
        assert location(how.format(authority).encode(), front) is None


@pytest.mark.parametrize("sent", ["http:/x", "http:x", "https:", "http:///100.64.0.8/"])
def test_what_clients_read_in_different_ways_is_not_passed_on(sent: str) -> None:
    assert location(sent.encode(), BY_PATH) is None


@pytest.mark.parametrize(
    "sent",
    [
        "/api/v1/agents/other",
        "/../../../v1/agents/other",
        "../../../../v1/agents/other",
        "/%2e%2e/%2E./.%2e/v1/agents/other",
        "/..\\..\\..\\v1\\agents\\other",
        "\\api\\v1\\agents\\other",
        f"{PREFIX}/../../v1/agents/other",
        f"{PREFIX}x/../../v1",
        "/api/relay/other/x",
        "https://cloud.test/api/v1/agents/other",
        "https://CLOUD.test.:9/api/v1/agents/other",
        "http://app.test/api/v1/agents/other",
        "http://x@app.test\\api\\v1",
        "//cloud.test/api/v1/agents/other",
        "..",
        ".",
    ],
)
def test_on_the_apis_origin_a_redirect_stays_below_the_agent(sent: str) -> None:
    """As a browser resolves it: `urljoin` knows neither %2e nor backslashes, so none may be left."""
    sent_on = location(sent.encode(), BY_PATH)
    assert sent_on is not None
    assert b"\\" not in sent_on
    assert b"%2e" not in sent_on.lower()
    assert urljoin(f"https://cloud.test{PREFIX}/a/b", sent_on.decode()).startswith(f"https://cloud.test{PREFIX}/")
