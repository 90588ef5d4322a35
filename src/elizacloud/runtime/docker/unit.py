"""What the containers of one instance are together: two, or one that is both. Pure.

How a unit ended is read from how its containers ended, so nothing has to be remembered, here or on the host:

    sidecar   agent     the unit
    ran on    exited    the agent ended by itself; whoever sees it kills the sidecar, and then the next line holds
    137       not 137   the same
    143       any       it was stopped in good order: the sidecar is only ever told to end by `stop`, or by a host that ends
    other     137       the sidecar ended (container-init's exit codes say why), and the kernel ended the agent with it

Of one that is both, the last line of its container-init tells.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from elizacloud.runtime.docker.labels import Role, read, ref_of
from elizacloud.runtime.protocol import OF_TAILNET, STOPPED, Instance, Labels, Phase

KILLED = 128 + signal.SIGKILL
TOLD_TO_END = 128 + signal.SIGTERM
SAID_STOPPED = "told to end"
SAID_OF_AGENT = "the agent ended"
"""How container-init begins its last line, when neither it nor the tailnet is the reason."""
INIT_CODES = frozenset({64, 69, 75, 78})
"""container-init's own exit codes, which an agent may have, too."""
_ENDED = frozenset({"exited", "dead", "removing"})


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    labels: Labels
    role: Role
    status: str
    """Docker's word: created, running, paused, restarting, removing, exited, dead."""
    exit_code: int
    out_of_memory: bool
    started_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


@dataclass(frozen=True, slots=True)
class Unit:
    """The containers of one run; either may be missing after a crash in the middle of `create` or `remove`."""

    labels: Labels
    sidecar: Container | None = None
    agent: Container | None = None

    @property
    def ref(self) -> str:
        return ref_of(self.labels)

    @property
    def containers(self) -> list[Container]:
        """The agent first: the order in which they are ended."""
        return [container for container in (self.agent, self.sidecar) if container is not None]

    @property
    def embedded(self) -> bool:
        return self.agent is not None and self.agent.role is Role.WHOLE

    @property
    def whole(self) -> bool:
        return self.agent is not None and (self.sidecar is not None or self.embedded)

    @property
    def phase(self) -> Phase:
        statuses = {container.status for container in self.containers}
        if any(container.ended for container in self.containers) or not self.containers:
            return Phase.EXITED
        if "paused" in statuses:
            return Phase.PAUSED
        if self.whole and statuses == {"running"}:
            return Phase.RUNNING
        return Phase.CREATED

    @property
    def sidecar_left_behind(self) -> bool:
        """The agent ended by itself and the sidecar goes on: they are to end as one."""
        alone = self.agent is not None and self.agent.ended
        return alone and self.sidecar is not None and self.sidecar.status in ("running", "paused")

    @property
    def sidecar_ended_it(self) -> bool:
        """The sidecar ended by itself; its last words are the reason."""
        return self.sidecar is not None and self.sidecar.ended and self.sidecar.exit_code not in (KILLED, TOLD_TO_END)

    @property
    def tells_why(self) -> Container | None:
        """The container whose last words are needed to say how the unit ended."""
        if self.embedded and self.agent is not None and self.agent.ended:
            return self.agent
        return self.sidecar if self.sidecar_ended_it else None

    def seen(self, last_words: str = "") -> Instance:
        """`last_words` are those of the container that `tells_why`."""
        if self.phase is not Phase.EXITED:
            started_at = self.agent.started_at if self.agent is not None else None
            return Instance(self.ref, self.labels, self.phase, started_at=started_at)
        code, reason = self._end(last_words)
        return Instance(
            self.ref,
            self.labels,
            Phase.EXITED,
            code,
            reason,
            next((container.started_at for container in self.containers if container.started_at), None),
        )

    def _end(self, last_words: str) -> tuple[int | None, str]:
        agent, sidecar = self.agent, self.sidecar
        if self.embedded and agent is not None:
            return agent.exit_code, _why_embedded_ended(agent, last_words)
        if self.sidecar_ended_it:
            assert sidecar is not None
            return (
                sidecar.exit_code,
                f"{OF_TAILNET}{last_words or f'the sidecar ended: exit status {sidecar.exit_code}'}",
            )
        if agent is None or not agent.ended:
            return (sidecar.exit_code if sidecar else None), f"{OF_TAILNET}the sidecar was killed"
        if sidecar is not None and sidecar.ended and sidecar.exit_code == TOLD_TO_END:
            return agent.exit_code, STOPPED
        if agent.out_of_memory:
            return agent.exit_code, "agent: out of memory"
        if sidecar is not None and sidecar.out_of_memory:
            return sidecar.exit_code, f"{OF_TAILNET}out of memory"
        return agent.exit_code, f"agent: exit status {agent.exit_code}"


def _why_embedded_ended(agent: Container, last_words: str) -> str:
    before_its_agent = agent.exit_code == TOLD_TO_END and not last_words.startswith(SAID_OF_AGENT)
    if last_words.startswith(SAID_STOPPED) or before_its_agent:
        return STOPPED
    if agent.out_of_memory:
        return "agent: out of memory"
    if agent.exit_code in INIT_CODES and last_words and not last_words.startswith(SAID_OF_AGENT):
        return f"{OF_TAILNET}{last_words}"
    return f"agent: exit status {agent.exit_code}"


def container_of(shown: Mapping[str, Any]) -> Container | None:
    """From the Engine API's inspection; None when it is not ours."""
    known = read(shown["Config"].get("Labels"))
    if known is None:
        return None
    state = shown["State"]
    started_at = datetime.fromisoformat(state["StartedAt"])
    return Container(
        id=shown["Id"],
        labels=known[0],
        role=known[1],
        status=state["Status"],
        exit_code=state["ExitCode"],
        out_of_memory=state.get("OOMKilled", False),
        started_at=started_at if started_at.year > 1 else None,
    )


def unstarted_of(listed: Mapping[str, Any]) -> Container | None:
    """From the Engine API's list, which says all that there is to know of a container that was never started; of any other
    None."""
    known = read(listed.get("Labels"))
    if known is None or listed["State"] != "created":
        return None
    return Container(listed["Id"], *known, status="created", exit_code=0, out_of_memory=False, started_at=None)


def units_of(containers: Iterable[Container]) -> list[Unit]:
    """One for each run that has a container."""
    by_run: dict[Labels, dict[Role, Container]] = {}
    for container in containers:
        by_run.setdefault(container.labels, {})[container.role] = container
    return [
        Unit(labels, parts.get(Role.TAILNET), parts.get(Role.AGENT) or parts.get(Role.WHOLE))
        for labels, parts in by_run.items()
    ]
