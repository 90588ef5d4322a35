"""Rows to nouns and back: the one place that knows how a dataclass is laid out in columns and what is sealed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy.engine import RowMapping

from elizacloud.cipher import Cipher
from elizacloud.model import Agent, AgentSpec, ApiToken, Event, Failure, Generation, Run, Scope, TokenKind
from elizacloud.states import State, Wanted

Row = Mapping[str, Any] | RowMapping


def agent_to_row(agent: Agent, cipher: Cipher) -> dict[str, Any]:
    return {
        "id": agent.id,
        "owner_id": agent.owner_id,
        "cell_id": agent.cell_id,
        "host_id": agent.host_id,
        "name": agent.name,
        **spec_to_row(agent.id, agent.spec, cipher),
        "wanted": agent.wanted.value,
        "state": agent.state.value,
        "external": agent.external,
        "generation": agent.generation,
        "run": agent.run,
        "agent_ready": agent.agent_ready,
        "failure": _failure_to_json(agent.failure),
        "revision": agent.revision,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
    }


def agent_from_row(row: Row, cipher: Cipher) -> Agent:
    return Agent(
        id=row["id"],
        owner_id=row["owner_id"],
        name=row["name"],
        spec=_spec_from_row(row, cipher),
        wanted=Wanted(row["wanted"]),
        state=State(row["state"]),
        cell_id=row["cell_id"],
        host_id=row["host_id"],
        external=row["external"],
        generation=row["generation"],
        run=row["run"],
        agent_ready=row["agent_ready"],
        failure=_failure_from_json(row["failure"]),
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def spec_to_row(agent_id: str, spec: AgentSpec, cipher: Cipher) -> dict[str, Any]:
    """The spec in two columns: what anyone who reads the database may see, and the rest sealed."""
    hidden = {
        "environment": dict(spec.environment),
        "secrets": {name: secret.get_secret_value() for name, secret in spec.secrets.items()},
        "config": dict(spec.config),
    }
    return {
        "spec": {
            "image": spec.image,
            "command": None if spec.command is None else list(spec.command),
            "port": spec.port,
            "health_path": spec.health_path,
            "resources": dict(spec.resources),
            "idle_policy": dict(spec.idle_policy),
        },
        "sealed": cipher.seal(json.dumps(hidden).encode(), bound_to=_spec_of(agent_id))
        if any(hidden.values())
        else None,
    }


def _spec_from_row(row: Row, cipher: Cipher) -> AgentSpec:
    shown = row["spec"]
    hidden = {} if row["sealed"] is None else json.loads(cipher.open(row["sealed"], bound_to=_spec_of(row["id"])))
    return AgentSpec(
        image=shown["image"],
        command=None if shown["command"] is None else tuple(shown["command"]),
        environment=hidden.get("environment", {}),
        secrets={name: SecretStr(value) for name, value in hidden.get("secrets", {}).items()},
        config=hidden.get("config", {}),
        port=shown["port"],
        health_path=shown["health_path"],
        resources=shown["resources"],
        idle_policy=shown["idle_policy"],
    )


def _spec_of(agent_id: str) -> str:
    return f"agents/{agent_id}/spec"


def _failure_to_json(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return asdict(failure) | {"retry_at": failure.retry_at.isoformat() if failure.retry_at else None}


def _failure_from_json(value: Row | None) -> Failure | None:
    if value is None:
        return None
    retry_at = datetime.fromisoformat(value["retry_at"]) if value["retry_at"] else None
    return Failure(**{**value, "retry_at": retry_at})


def generation_to_row(generation: Generation) -> dict[str, Any]:
    return asdict(generation)


def generation_from_row(row: Row) -> Generation:
    return Generation(**row)


def run_to_row(run: Run, cipher: Cipher) -> dict[str, Any]:
    """All but `busy_until`, which its container may have moved since the run was read."""
    token = run.agent_token
    return {
        "agent_id": run.agent_id,
        "generation": run.generation,
        "number": run.number,
        "runtime_ref": run.runtime_ref,
        "agent_token": token and cipher.seal(token.get_secret_value().encode(), bound_to=_token_of(run_key(run))),
        "join_token_sha256": run.join_token_sha256,
        "busy_token_sha256": run.busy_token_sha256,
        "started_at": run.started_at,
        "ready_at": run.ready_at,
        "ended_at": run.ended_at,
        "end_reason": run.end_reason,
    }


def run_from_row(row: Row, cipher: Cipher) -> Run:
    sealed, token = row["agent_token"], None
    if sealed is not None:
        key = (row["agent_id"], row["generation"], row["number"])
        token = SecretStr(cipher.open(sealed, bound_to=_token_of(key)).decode())
    return Run(**{**row, "agent_token": token})


def run_key(run: Run) -> tuple[str, int, int]:
    return (run.agent_id, run.generation, run.number)


def _token_of(key: tuple[str, int, int]) -> str:
    return "runs/{}/{}/{}/agent_token".format(*key)


def event_to_row(event: Event) -> dict[str, Any]:
    # By value: psycopg writes an enum by its name.
    return asdict(event) | {
        "state_from": event.state_from and event.state_from.value,
        "state_to": event.state_to.value,
    }


def event_from_row(row: Row) -> Event:
    state_from = row["state_from"]
    return Event(
        **{
            **row,
            "state_from": None if state_from is None else State(state_from),
            "state_to": State(row["state_to"]),
        }
    )


def token_to_row(token: ApiToken) -> dict[str, Any]:
    return asdict(token) | {"scopes": sorted(scope.value for scope in token.scopes), "kind": token.kind.value}


def token_from_row(row: Row) -> ApiToken:
    scopes = frozenset(Scope(scope) for scope in row["scopes"])
    return ApiToken(**{**row, "scopes": scopes, "kind": TokenKind(row["kind"])})
