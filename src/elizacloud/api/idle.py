"""Idle policies: what an owner says about agents that nobody uses. Of one agent in `idlePolicy`, of all of theirs here."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from elizacloud.agents.idle.policy import LONGEST_SECONDS
from elizacloud.agents.idle.schedule import HOURS_PATTERN, MOST_HOURS
from elizacloud.api.parts import FromCaller, FromParts
from elizacloud.api.schemas import Wire

Never = Literal["never"]


def _zones(schema: dict[str, Any]) -> None:
    schema["enum"] = sorted({"UTC", *available_timezones()})


class Part(Wire):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True)


class Schedule(Part):
    """Hours of the week in which it is awake whether it is used or not."""

    timezone: str = Field("UTC", description="An IANA name.", json_schema_extra=_zones)
    awake: list[Annotated[str, Field(json_schema_extra={"pattern": HOURS_PATTERN})]] = Field(
        min_length=1,
        max_length=MOST_HOURS,
        description="`mon-fri 08:00-18:00`; an end that is not later than the start is on the next day.",
    )


class IdlePolicy(Part):
    """What is left out is as the owner's policy has it, or else the installation's. Takes effect at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "idleAfterSeconds": 900,
                    "stopAfterSeconds": 3600,
                    "schedule": {"timezone": "Europe/Berlin", "awake": ["mon-fri 08:00-18:00"]},
                }
            ]
        }
    )

    idle_after_seconds: Annotated[float, Field(ge=1, le=LONGEST_SECONDS)] | Never | None = Field(
        None, description="How long nobody may have used it before it is paused, or `never`."
    )
    stop_after_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] | Never | None = Field(
        None,
        description="How long it stays paused before it is stopped; 0: it is not paused first; `never`: it stays paused.",
    )
    schedule: Schedule | Never | None = Field(None, description="When it is awake; `never` takes a schedule away.")

    def stored(self) -> dict[str, Any]:
        """What was said, by its wire names."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


router = APIRouter(prefix="/api/v1/idle-policy", tags=["agents"])


@router.get("", response_model=IdlePolicy, response_model_exclude_none=True)
async def get_idle_policy(caller: FromCaller, parts: FromParts) -> dict[str, Any]:
    """What holds for all agents of the owner that say nothing themselves."""
    return dict(await parts.operations.idle_policy(caller.owner_id))


@router.put("", response_model=IdlePolicy, response_model_exclude_none=True)
async def set_idle_policy(body: IdlePolicy, caller: FromCaller, parts: FromParts) -> dict[str, Any]:
    """Replace it; an empty one leaves everything to the installation's settings."""
    await parts.operations.set_idle_policy(caller.owner_id, body.stored())
    return body.stored()
