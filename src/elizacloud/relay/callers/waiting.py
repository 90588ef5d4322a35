"""What a person sees who opens a sleeping agent's page: that it wakes up, until it has. It asks again by itself. Pure."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from http import HTTPStatus

from elizacloud.relay.callers.pages import Page
from elizacloud.relay.front import ToAgent
from elizacloud.relay.http1.head import RequestHead, kept_with_head, value_of

PAGE_AFTER_SECONDS = 1.0
"""An agent that was only paused is there sooner, and nobody sees the page."""

# Without an icon of its own a browser asks the agent for one with each reload, and waits for that, too.
_ICON = '<link rel="icon" href="data:,">'
# A refresh of an address that ends in #something only scrolls (HTML standard, 7.4.2.2), so that a script has to ask again.
_SCRIPT = "setTimeout(() => location.reload(), 1000)"
_PAGE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<noscript><meta http-equiv="refresh" content="1"></noscript>
<script>{_SCRIPT}</script>
{_ICON}
<title>Waking up</title>
<style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;color-scheme:light dark}}
h1::after{{content:"";display:inline-block;width:.6em;height:.6em;margin-left:.5em;border:.12em solid;
border-top-color:transparent;border-radius:50%;animation:turn 1s linear infinite}}
@keyframes turn{{to{{transform:rotate(1turn)}}}}
</style>
<h1>Waking up</h1>
<p>This agent was asleep because nobody used it. Its page appears here as soon as it is up.</p>
</html>
"""


def is_navigation(front: ToAgent, head: RequestHead) -> bool:
    """A browser opens a page at the agent's own host; where a script asks, it waits for the answer itself."""
    return not front.by_path and _opens_a_page(head)


@cache
def waiting_page() -> Page:
    """A 503, so that nothing keeps it; the address stays the same, with what follows its #."""
    return Page(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "agent_starting",
        (
            "Content-Type: text/html; charset=utf-8",
            "Content-Security-Policy: default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{_script_hash()}'; base-uri 'none'; form-action 'none'",
            "Retry-After: 1",
        ),
        _PAGE.encode(),
    )


def _script_hash() -> str:
    return base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()


@kept_with_head
def _opens_a_page(head: RequestHead) -> bool:
    fields = head.fields
    return (
        head.method == b"GET"
        and b"text/html" in (value_of(fields, b"accept") or b"")
        and value_of(fields, b"sec-fetch-mode") in (None, b"navigate")
    )
