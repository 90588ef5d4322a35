"""What the routes call, and who calls them: the dependencies that every route file uses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import SecretStr

from elizacloud.agents.containers import Containers
from elizacloud.agents.operations import Operations
from elizacloud.agents.oversight import Oversight
from elizacloud.api.problem import shown_name
from elizacloud.api.readiness import Readiness
from elizacloud.auth.access import OWNER_HEADER, OWNER_ID_PATTERN, Action, acting_owner, check_action
from elizacloud.auth.credentials import Credentials
from elizacloud.auth.tokens import parse_bearer
from elizacloud.errors import Forbidden, Invalid, Unauthenticated
from elizacloud.model import Principal, Scope
from elizacloud.settings import Settings
from elizacloud.store.idempotency import Idempotency


@dataclass(frozen=True, slots=True)
class ApiParts:
    """The operations behind the routes, and two things of the server itself."""

    operations: Operations
    oversight: Oversight
    credentials: Credentials
    idempotency: Idempotency
    settings: Settings
    readiness: Readiness
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it before the server stops: streams end then, instead of holding it up."""


def api_parts(request: Request) -> ApiParts:
    parts = request.app.state.parts
    assert isinstance(parts, ApiParts)
    return parts


def containers_of(request: Request) -> Containers:
    containers = request.app.state.containers
    assert isinstance(containers, Containers)
    return containers


FromParts = Annotated[ApiParts, Depends(api_parts)]
FromContainers = Annotated[Containers, Depends(containers_of)]

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="An API token, `Authorization: Bearer ec_…`, or a JWT of a trusted issuer, which acts for the owner it names.",
)
_CONTAINER_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="containerToken",
    description="A token of the container's present run: ELIZACLOUD_JOIN_TOKEN or ELIZACLOUD_BUSY_TOKEN.",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller, and the owner that it acts for."""

    principal: Principal
    owner_id: str


async def authenticated(request: Request, parts: FromParts, _: Annotated[object, Depends(_BEARER)]) -> Principal:
    return await parts.credentials.callers.authenticate(_authorization(request))


async def reaching(
    principal: Annotated[Principal, Depends(authenticated)],
    elizacloud_owner: Annotated[
        str | None,
        Header(
            alias=OWNER_HEADER,
            description="The owner that a service token acts for.",
            examples=["user-17"],
            json_schema_extra={"pattern": OWNER_ID_PATTERN},
        ),
    ] = None,
) -> Caller:
    return Caller(principal, acting_owner(principal, elizacloud_owner))


async def managing(caller: Annotated[Caller, Depends(reaching)]) -> Caller:
    check_action(caller.principal, Action.MANAGE)
    return caller


async def operating(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """An operator sees the agents of all owners, so that no owner's token will do, and no issuer's word."""
    if Scope.SERVICE not in principal.scopes or principal.agent_id is not None or principal.issuer is not None:
        raise Forbidden("cannot do this with an owner's token: use a service token", code="operator_only")
    return principal


async def container_token(request: Request, _: Annotated[object, Depends(_CONTAINER_BEARER)]) -> SecretStr:
    return parse_bearer(_authorization(request))


FromCaller = Annotated[Caller, Depends(managing)]
"""One that may manage."""
FromReaching = Annotated[Caller, Depends(reaching)]
"""One that may only be allowed to reach agents, or a single one."""
FromOperator = Annotated[Principal, Depends(operating)]
FromContainer = Annotated[SecretStr, Depends(container_token)]


def _authorization(request: Request) -> str | None:
    """The header's value. Two of them are refused: somebody on the way would read the other one."""
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        raise Unauthenticated(
            "cannot tell who is calling: the request has two Authorization headers", code="malformed_credential"
        )
    return values[0] if values else None


def base_url(request: Request, parts: ApiParts) -> str:
    """How the caller reaches the front door, without a slash at its end."""
    return (parts.settings.public_url or str(request.base_url)).rstrip("/")


def known_query(request: Request) -> None:
    """Refuse query parameters that the call does not have, as unknown fields of a body are: so that a typo is told."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = {parameter.alias for parameter in route.dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise Invalid(
                f"cannot use the query parameter {shown_name(name)}: this call has {', '.join(sorted(known)) or 'none'}",
                code="unknown_parameter",
            )
