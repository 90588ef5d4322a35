"""/api/auth/cli-session: a command line logs in; a person approves it on the page at /login."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import SecretStr

from elizacloud.api.login_page import approval_page, approved_page
from elizacloud.api.parts import FromCaller, FromParts, base_url
from elizacloud.api.requests import Approval
from elizacloud.api.schemas import CliSession
from elizacloud.auth.access import Action, check_action
from elizacloud.auth.login import Login
from elizacloud.errors import Error, Invalid

_CODE_MAX = 64

router = APIRouter(tags=["login"])


@router.post("/api/auth/cli-session", status_code=201, response_model=CliSession, response_model_exclude_none=True)
async def open_session(request: Request, response: Response, parts: FromParts) -> CliSession:
    """Begin a login. Poll with the session id; a person approves at browserUrl, where the user code is shown again."""
    session_id, login = await parts.credentials.logins.open()
    response.headers["Cache-Control"] = "no-store"
    return _shown(request, parts, session_id, login)


@router.get("/api/auth/cli-session/{session_id}", response_model=CliSession, response_model_exclude_none=True)
async def poll_session(
    session_id: Annotated[str, Path(max_length=128)], request: Request, response: Response, parts: FromParts
) -> CliSession:
    """How the login stands. The first call after the approval gets the token, and no other one does."""
    secret = SecretStr(session_id)
    response.headers["Cache-Control"] = "no-store"
    return _shown(request, parts, secret, await parts.credentials.logins.poll(secret))


@router.post("/api/auth/cli-approval", status_code=204)
async def approve_session(body: Approval, caller: FromCaller, parts: FromParts) -> None:
    """Approve the login with this user code, for the caller's owner."""
    await parts.credentials.logins.approve(body.user_code, caller.principal, caller.owner_id)


@router.get("/login", response_class=HTMLResponse, include_in_schema=False)
async def show_login(code: Annotated[str, Query(max_length=_CODE_MAX)] = "") -> HTMLResponse:
    return approval_page(code)


async def _form(request: Request) -> dict[str, str]:
    try:
        fields = parse_qs((await request.body()).decode(), max_num_fields=10, strict_parsing=False)
    except ValueError as error:
        raise Invalid("cannot read the form: send it from the page", code="invalid_form") from error
    return {name: values[0] for name, values in fields.items()}


@router.post("/login", response_class=HTMLResponse, include_in_schema=False)
async def submit_login(form: Annotated[dict[str, str], Depends(_form)], parts: FromParts) -> HTMLResponse:
    """The page's form. The token in it is what proves who approves: no cookie, so no other site can submit it."""
    code, token = form.get("code", "")[:_CODE_MAX], form.get("token", "").strip()
    try:
        principal = await parts.credentials.callers.authenticate(f"Bearer {token}")
        check_action(principal, Action.MANAGE)
        await parts.credentials.logins.approve(code, principal, principal.owner_id)
    except Error as error:
        return approval_page(code, problem=str(error), status=error.status)
    return approved_page()


def _shown(request: Request, parts: FromParts, session_id: SecretStr, login: Login) -> CliSession:
    return CliSession(
        session_id=session_id.get_secret_value(),
        browser_url=f"{base_url(request, parts)}/login?{urlencode({'code': login.user_code})}",
        user_code=login.user_code,
        status=login.status.value,
        expires_at=login.expires_at,
        token=None if login.token is None else login.token.get_secret_value(),
    )
