"""The interface of every runtime: what an instance is made of, what can be observed of it, what can be done to it.

Look before you act: every call is idempotent and safe to repeat after a crash of the caller. Every outside object
carries the labels, so that what a crash left behind can be found by `list`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import SecretStr

from elizacloud.model import DEFAULT_HOST_ID, AgentSpec


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose instance it is. Two installations on one host never touch each other's."""

    installation_id: str
    agent_id: str
    generation: int
    run: int


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What to create. `state volume` is named by agent and generation and outlives runs."""

    labels: Labels
    hostname: str
    join_url: str
    """Where its tailscaled logs in: Headscale's advertised URL."""
    report_url: str | None
    """Where it reports its address; the path is /containers/{agent id}/networking."""
    agent: AgentSpec
    host_id: str = DEFAULT_HOST_ID
    """Which host it is created on, of a runtime that has several."""


@dataclass(frozen=True, slots=True)
class InstanceSecrets:
    """Handed over at the start, never by argv and never kept by the runtime in clear where `inspect` would show it."""

    preauth_key: SecretStr | None
    """None when the state volume already holds a node identity."""
    agent_token: SecretStr
    join_token: SecretStr
    busy_token: SecretStr


class Phase(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


EXIT_KEY_DEAD = 78
"""Exit code of an instance whose pre-auth key was refused: ask for a re-key (EX_CONFIG of sysexits.h, so agents use it, too)."""

OF_TAILNET = "tailnet: "
"""How the reason of an instance begins that its way to the tailnet ended, and not its agent."""

STOPPED = "stopped"
"""Reason of an instance that did not end by itself: somebody asked for it, or its host went in good order."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the runtime sees it now. `ref` is how to name it in the other calls."""

    ref: str
    labels: Labels
    phase: Phase
    exit_code: int | None = None
    reason: str = ""
    started_at: datetime | None = None

    @property
    def key_is_dead(self) -> bool:
        """It ended because its pre-auth key was refused, or because it had none and the node of its state is not known."""
        return self.exit_code == EXIT_KEY_DEAD and self.reason.startswith(OF_TAILNET)


@dataclass(frozen=True, slots=True)
class Volume:
    """The state of one generation, which is there whether or not it has an instance."""

    ref: str
    """What `remove(ref, volume=True)` removes it by, as long as no instance has it."""
    agent_id: str
    generation: int
    whole: bool = True
    """False when part of it was lost."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an instance uses, its tailscaled included."""

    cpu_seconds: float
    """Since it was started."""
    memory_bytes: int
    memory_limit_bytes: int | None
    """The agent's; None where the runtime sets none."""
    received_bytes: int | None
    sent_bytes: int | None
    """None where its network is not parted from the host's."""


class Inventory(Protocol):
    """What there is. Raises RuntimeUnavailable rather than leave out what cannot be seen."""

    async def list_volumes(self, installation_id: str, *, agent_id: str | None = None) -> list[Volume]:
        """The state volumes of this installation, or of one agent in it, also those whose instance is gone."""

    async def list(self, installation_id: str) -> list[Instance]:
        """All instances of this installation, found by label."""


class Runtime(Inventory, Protocol):
    """All calls raise RuntimeUnavailable when the runtime does not answer and RuntimeRefused when it says no."""

    kind: str
    isolates: bool
    """False when instances can reach each other's files; then a second owner is refused."""

    async def create(self, spec: InstanceSpec) -> str:
        """Make the instance and its state volume, not started; return its ref. Repeating it returns the same ref.

        A generation has one instance: that of a later run takes the place of one that has ended, whose ref is then of no
        more use. Refused, by code: `earlier_run_runs`, `later_run_exists`, `not_ours` (another installation's volume).
        """

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        """Start it; a no-op when it runs already. It joins the tailnet by itself. NotFound if there is none.

        Refused, by code: `paused` (resume it), `spawn_failed`, `port_in_use`, `secrets_lost` (the runtime was restarted
        and keeps no owner's secrets: `create` again, then start).
        """

    async def pause(self, ref: str) -> None:
        """Freeze it; its memory stays. A no-op when paused."""

    async def resume(self, ref: str) -> None:
        """Undo `pause`; a no-op when running."""

    async def stop(self, ref: str, *, grace_seconds: float) -> None:
        """End it, politely and then not; state volume kept. A no-op when it does not run or does not exist."""

    async def remove(self, ref: str, *, volume: bool) -> None:
        """Stop it if needed and remove it, and with `volume` its state for good. A no-op when absent."""

    async def inspect(self, ref: str) -> Instance | None:
        """What it is now; None only when the runtime says that there is none."""

    def logs(self, ref: str, *, tail: int, follow: bool) -> AsyncIterator[str]:
        """Lines of output without newline: the last `tail` ones, oldest first, then with `follow` new ones for ever."""

    async def usage(self, ref: str) -> Usage:
        """What it uses now. NotFound when there is none; refused `not_running` when it does not run."""

    def watch(self) -> AsyncIterator[Instance]:
        """Every instance as it is, then every change of phase, for ever; begins again when the runtime restarts.

        A hint beside `list`: what happened while the runtime was away is not told.
        """
