"""`Idempotency-Key`: a create that is sent twice makes one agent, and both get the same answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Response

from elizacloud.errors import Conflict, Error, Unavailable
from elizacloud.model import new_agent_id
from elizacloud.store.idempotency import Idempotency, Outcome


async def once(
    idempotency: Idempotency,
    owner_id: str,
    key: str | None,
    request: Any,
    act: Callable[[str | None], Awaitable[Response]],
) -> Response:
    """The answer of `act`, which is given the id that the new agent gets, or the stored one of an earlier call.

    Without a key it just acts. Raises Invalid `idempotency_mismatch` when the key was used with another request, and
    Conflict `idempotency_in_progress` while the first call is at work.
    """
    if key is None:
        return await act(None)
    sha256 = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    claim = await idempotency.claim(owner_id, key, sha256, agent_id=new_agent_id())
    match claim.outcome:
        case Outcome.REPLAY:
            assert claim.status is not None
            headers = {"Location": f"/api/v1/agents/{claim.agent_id}", "Idempotent-Replayed": "true"}
            return Response(claim.body, claim.status, headers, "application/json")
        case Outcome.IN_PROGRESS:
            raise Conflict(
                "cannot answer yet: another request with this Idempotency-Key is at work; try again",
                code="idempotency_in_progress",
                retry_after_seconds=1,
            )
    try:
        answer = await act(claim.agent_id)
    except Unavailable:
        # It may have acted. The claim is taken over later, by a call that looks for its agent first.
        raise
    except Error:
        await idempotency.release(claim)
        raise
    await idempotency.finish(claim, status=answer.status_code, body=bytes(answer.body))
    return answer
