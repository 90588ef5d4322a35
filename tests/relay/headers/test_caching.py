"""What an agent says to caches that others share, and what is left of it."""

import pytest

from elizacloud.relay.headers.caching import cache_control_line


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ([], "private"),
        (["no-store"], "private, no-store"),
        (["public, max-age=60"], "private, max-age=60"),
        (["max-age=60", "s-maxage=600, Public"], "private, max-age=60"),
        (["private"], "private"),
        (['private="x-a, x-b", max-age=1'], "private, max-age=1"),
        (['no-cache="set-cookie, x"'], 'private, no-cache="set-cookie, x"'),
        (["s-maxage = 9, proxy-revalidate,, ,no-transform"], "private, no-transform"),
        (['public="'], "private"),
        (["publicity, max-age=1"], "private, publicity, max-age=1"),
    ],
)
def test_a_browser_may_keep_it_and_a_shared_cache_may_not(sent: list[str], passed: str) -> None:
    line = cache_control_line([value.encode() for value in sent])
    assert line == f"Cache-Control: {passed}\r\n".encode()
