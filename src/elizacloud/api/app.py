"""The two apps: the API, and the one for containers alone, which listens where agents can reach it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Depends, FastAPI

from elizacloud import __version__
from elizacloud.agents.containers import Containers
from elizacloud.agents.lifecycle import Lifecycle
from elizacloud.api import (
    agent_streams,
    agents,
    containers,
    docs_page,
    health,
    idle,
    openapi,
    operator,
    problem,
    sessions,
    tickets,
    tokens,
)
from elizacloud.api.access_log import AccessLog
from elizacloud.api.limits import BodyLimit
from elizacloud.api.parts import ApiParts, known_query
from elizacloud.api.readiness import Readiness
from elizacloud.auth.credentials import Credentials
from elizacloud.settings import Settings
from elizacloud.store import Store


def create_app(
    lifecycle: Lifecycle,
    credentials: Credentials,
    store: Store,
    settings: Settings,
    *,
    checks: Mapping[str, Callable[[], Awaitable[object]]] | None = None,
) -> FastAPI:
    """Everything of design section 3 but the relay.

    `checks` are what has to work for /readyz, by name, besides store, Headscale and runtime. Call `close_streams` before
    its server stops.
    """
    app = _whole_app()
    app.state.containers = lifecycle.containers
    app.state.parts = ApiParts(
        operations=lifecycle.operations,
        oversight=lifecycle.oversight,
        credentials=credentials,
        idempotency=store.idempotency,
        settings=settings,
        readiness=Readiness({**lifecycle.checks, **(checks or {})}),
    )
    return app


def document() -> dict[str, Any]:
    """The OpenAPI document, without anything behind it."""
    return _whole_app().openapi()


def create_containers_app(containers_: Containers) -> FastAPI:
    """/containers/* and nothing else: this one listens where agents can reach it."""
    app = _app("elizacloud for containers", "What containers tell and ask.", documented=False)
    app.state.containers = containers_
    app.include_router(containers.router)
    return app


def close_streams(app: FastAPI) -> None:
    """End the event and log streams of this app, which would hold up the stop of its server."""
    parts = getattr(app.state, "parts", None)
    if isinstance(parts, ApiParts):
        parts.closing.set()


def _whole_app() -> FastAPI:
    app = _app("elizacloud", openapi.DESCRIPTION)
    for noun in (agents, agent_streams, idle, tokens, tickets, sessions, containers, operator, health, docs_page):
        app.include_router(noun.router)
    app.include_router(containers.router, prefix="/api/v1")
    return app


def _app(title: str, description: str, *, documented: bool = True) -> FastAPI:
    app = FastAPI(
        title=title,
        version=__version__,
        description=description,
        openapi_url="/openapi.json" if documented else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(known_query)],
    )
    problem.install(app)
    openapi.install(app)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit)
    app.add_middleware(AccessLog)
    return app
