"""/healthz: this process answers. /readyz: what it needs answers too."""

from __future__ import annotations

from fastapi import APIRouter, Response

from elizacloud.api.parts import FromParts
from elizacloud.api.problem import problem
from elizacloud.api.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    return Health(status="ok")


@router.get("/readyz", response_model=Health)
async def readyz(parts: FromParts) -> Health | Response:
    """200 when all of it works; 503 and what does not."""
    checks = await parts.readiness.get()
    failed = [name for name, said in checks.items() if said != "ok"]
    if failed:
        detail = f"cannot work yet: {failed[0]}: {checks[failed[0]]}"
        return problem(503, "not_ready", detail, retry_after_seconds=1, checks=checks)
    return Health(status="ready", checks=checks)
