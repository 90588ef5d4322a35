"""/api/v1/operator: a sweep now, and one agent as store, runtime and Headscale see it. For service tokens only."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from elizacloud.agents.oversight import Explained
from elizacloud.agents.reconcile.diff import Finding as Found
from elizacloud.agents.reconcile.guards import Verdict
from elizacloud.api.agents import AgentId
from elizacloud.api.parts import FromOperator, FromParts
from elizacloud.api.requests import Request
from elizacloud.api.schemas import Agent, Wire, agent_of
from elizacloud.runtime.protocol import Phase
from elizacloud.upstreams import Probe

router = APIRouter(prefix="/api/v1/operator", tags=["operator"])


class Sweep(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"dryRun": True}]})

    dry_run: bool = Field(False, description="Only say what would be done.")
    accept: bool = Field(
        False,
        description="Do what is held, and take the database, Headscale and the relays for right as they are now.",
    )


class Outcome(StrEnum):
    REPAIR = "repair"
    """It is put right now."""
    WAIT = "wait"
    """It has to be there in the next sweep, too."""
    HOLD = "hold"
    """An operator has to accept it."""
    TELL = "tell"
    """It is left as it is; a person has to know."""


class Finding(Wire):
    """Something that store, runtime and Headscale do not agree on."""

    kind: str
    agent_id: str
    about: str = Field(description="The instance, volume, node or key.")
    detail: str


class Judged(Finding):
    outcome: Outcome


class Swept(Wire):
    findings: list[Judged]
    held_because: str | None = Field(description="Why some of it is held; null when nothing is.")
    dry_run: bool


class GenerationFacts(Wire):
    number: int
    key_id: str | None
    key_expired: bool
    node_id: str | None
    ipv4: str | None
    ipv6: str | None
    joined_at: datetime | None


class RunFacts(Wire):
    generation: int
    number: int
    ref: str | None
    started_at: datetime | None
    ready_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None


class InStore(Wire):
    generations: list[GenerationFacts]
    run: RunFacts | None


class InstanceFacts(Wire):
    ref: str
    generation: int
    run: int
    phase: Phase
    exit_code: int | None
    reason: str
    started_at: datetime | None


class VolumeFacts(Wire):
    generation: int
    whole: bool


class InRuntime(Wire):
    host_id: str = Field(description="The host that the agent lives on, for as long as it lives.")
    error: str | None = Field(description="Why nothing is known of it; null when it answered.")
    instances: list[InstanceFacts]
    volumes: list[VolumeFacts]


class NodeFacts(Wire):
    node_id: str
    hostname: str
    ipv4: str | None
    tags: list[str]
    key_id: str | None
    online: bool
    last_seen: datetime | None
    expires_at: datetime | None = Field(description="When its machine has to log in again; null for never.")


class KeyFacts(Wire):
    key_id: str
    used: bool
    expires_at: datetime | None


class InHeadscale(Wire):
    error: str | None = Field(description="Why nothing is known of it; null when it answered.")
    nodes: list[NodeFacts]
    keys: list[KeyFacts]


class AnswerFacts(Wire):
    status: int | None = Field(description="Of its health path; null when there was no answer.")
    ready: bool | None = Field(description="What it says of itself; null when it does not say.")
    error: str | None = Field(description="Why there was no answer; null when there was one.")


class Explanation(Wire):
    agent: Agent
    why: str = Field(description="Why it runs, or rests; empty for one that is on its way.")
    next_step: str | None = Field(description="What is done next; null when it is where its owner wants it.")
    store: InStore
    runtime: InRuntime
    headscale: InHeadscale
    answer: AnswerFacts | None = Field(description="What a relay got from it just now; null when it is not up.")
    findings: list[Finding] = Field(description="What the last sweep found about it.")
    findings_error: str | None = Field(description="Why that is not known; null when it is.")


@router.post("/sweep", response_model=Swept)
async def sweep(body: Sweep, _: FromOperator, parts: FromParts) -> Swept:
    """Compare store, runtime and Headscale now, and repair what may be repaired."""
    verdict = await parts.oversight.sweep(dry_run=body.dry_run, accept=body.accept)
    return Swept(findings=_judged(verdict), held_because=verdict.why or None, dry_run=body.dry_run)


@router.get("/agents/{agent_id}", response_model=Explanation)
async def explain(agent_id: AgentId, _: FromOperator, parts: FromParts) -> Explanation:
    """One agent, whoever's it is, as store, runtime and Headscale see it, and what it answers a relay now."""
    return explanation_of(await parts.oversight.explain(agent_id))


def _judged(verdict: Verdict) -> list[Judged]:
    groups = (
        (Outcome.REPAIR, verdict.repair),
        (Outcome.HOLD, verdict.held),
        (Outcome.WAIT, verdict.waiting),
        (Outcome.TELL, verdict.alarms),
    )
    return [Judged(**_fields(found), outcome=outcome) for outcome, group in groups for found in group]


def _fields(found: Found) -> dict[str, str]:
    return {"kind": found.kind.value, "agent_id": found.agent_id, "about": found.about, "detail": found.detail}


def explanation_of(explained: Explained) -> Explanation:
    run = explained.record.run
    return Explanation(
        agent=agent_of(explained.record),
        why=explained.why,
        next_step=None if explained.due is None else explained.due.step.value,
        store=InStore(
            generations=[
                GenerationFacts(
                    number=one.number,
                    key_id=one.preauth_key_id,
                    key_expired=one.preauth_key_expired,
                    node_id=one.node_id,
                    ipv4=one.ipv4,
                    ipv6=one.ipv6,
                    joined_at=one.joined_at,
                )
                for one in explained.generations
            ],
            run=None
            if run is None
            else RunFacts(
                generation=run.generation,
                number=run.number,
                ref=run.runtime_ref,
                started_at=run.started_at,
                ready_at=run.ready_at,
                ended_at=run.ended_at,
                end_reason=run.end_reason,
            ),
        ),
        runtime=InRuntime(
            host_id=explained.record.agent.host_id,
            error=explained.instances.error or explained.volumes.error or None,
            instances=[
                InstanceFacts(
                    ref=one.ref,
                    generation=one.labels.generation,
                    run=one.labels.run,
                    phase=one.phase,
                    exit_code=one.exit_code,
                    reason=one.reason,
                    started_at=one.started_at,
                )
                for one in explained.instances.found
            ],
            volumes=[VolumeFacts(generation=one.generation, whole=one.whole) for one in explained.volumes.found],
        ),
        headscale=InHeadscale(
            error=explained.nodes.error or explained.keys.error or None,
            nodes=[
                NodeFacts(
                    node_id=one.id,
                    hostname=one.name,
                    ipv4=one.ipv4,
                    tags=list(one.tags),
                    key_id=one.preauth_key_id,
                    online=one.online,
                    last_seen=one.last_seen,
                    expires_at=one.expires_at,
                )
                for one in explained.nodes.found
            ],
            keys=[KeyFacts(key_id=one.id, used=one.used, expires_at=one.expires_at) for one in explained.keys.found],
        ),
        answer=_answer_of(explained.answer),
        findings=[Finding(**_fields(found)) for found in explained.findings.found],
        findings_error=explained.findings.error or None,
    )


def _answer_of(probe: Probe | None) -> AnswerFacts | None:
    if probe is None:
        return None
    return AnswerFacts(status=probe.status, ready=probe.ready, error=probe.error or None)
