"""The page on which a person approves a login: plain HTML, no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from fastapi.responses import HTMLResponse

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:28rem;margin:4rem auto;padding:0 1rem}"
    "label{display:block;margin:1rem 0 .25rem}input{width:100%;box-sizing:border-box;padding:.5rem;font:inherit}"
    "button{margin-top:1.5rem;padding:.5rem 1.5rem;font:inherit}.problem{color:#a00}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def approval_page(code: str, *, problem: str = "", status: int = 200) -> HTMLResponse:
    told = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return _page(
        "Approve a login",
        f"""<p>A command line asks to act for you. Approve only if you started it yourself just now and it shows this code.</p>
{told}<form method="post" action="/login">
<label for="code">Code</label><input id="code" name="code" value="{escape(code)}" autocomplete="off" required>
<label for="token">Your API token</label><input id="token" name="token" type="password" autocomplete="off" required>
<button type="submit">Approve</button>
</form>""",
        status,
    )


def approved_page() -> HTMLResponse:
    return _page("Approved", "<p>The command line is signed in. You can close this page.</p>", 200)


def _page(title: str, body: str, status: int) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}</main></body></html>",
        status,
        _HEADERS,
    )
