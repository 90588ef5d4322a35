"""/docs: the API's document as a page to read and try. All of it comes from here (Swagger UI from the wheel of fastapi-offline),
so that it works without the internet, and nobody else's server is told who reads it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from elizacloud.errors import NotFound

_STATIC = Path(str(files("fastapi_offline"))) / "static"
_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}
_HEADERS = {
    # Swagger UI draws with style attributes and images of its own.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KEPT = {**_HEADERS, "Cache-Control": "public, max-age=86400"}
# Links are relative to the page, so that it works below any path that a proxy puts before it.
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>elizacloud API</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="api"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>"""
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});\n'

router = APIRouter(prefix="/docs", include_in_schema=False)


@router.get("")
async def page() -> HTMLResponse:
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.get("/start.js")
async def start() -> Response:
    return Response(_START, media_type="text/javascript", headers=_KEPT)


@router.get("/{name}")
async def asset(name: str) -> FileResponse:
    if name not in _FILES:
        raise NotFound("there is no such path", code="no_such_path")
    return FileResponse(_STATIC / name, media_type=_FILES[name], headers=_KEPT)
