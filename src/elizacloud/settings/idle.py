"""What becomes of agents that nobody uses, unless their owner says otherwise, and who may wake how many (docs/idle.md)."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from elizacloud.settings.kinds import Count

_YEAR_SECONDS = 366 * 86_400


class IdleSettings(BaseSettings):
    idle_after_seconds: float | None = Field(
        None,
        ge=1,
        le=_YEAR_SECONDS,
        description="How long nobody may have used an agent before it is paused; never unless given, here or in its idlePolicy.",
    )
    stop_after_seconds: float | None = Field(
        3600,
        ge=0,
        le=_YEAR_SECONDS,
        description="How long such an agent stays paused before it is stopped until a request comes; 0: it is not paused first.",
    )
    archive_after_seconds: float | None = Field(
        30 * 86_400,
        ge=1,
        description="How long an agent is stopped before its node is deleted; its state is kept and joins as another node.",
    )
    owner_wakes_per_hour: Count | None = Field(
        1000, description="How many times an hour requests may wake agents of one owner."
    )
    owner_agents: Count | None = Field(None, description="Most agents of one owner; no limit unless given.")
    owner_running: Count | None = Field(
        None,
        description="Most agents of one owner that run at a time, be they created, started or woken; no limit unless given.",
    )
