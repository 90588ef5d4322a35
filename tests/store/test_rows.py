import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from elizacloud.model import AgentSpec, Failure, Run
from elizacloud.store import Cipher, new_secret_key, rows
from tests.fakes.store import an_agent

CIPHER = Cipher(new_secret_key())

_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text(), _json, max_size=3)
_specs = st.builds(
    AgentSpec,
    image=st.none() | st.text(),
    command=st.none() | st.lists(st.text(), max_size=3).map(tuple),
    environment=st.dictionaries(st.text(), st.text(), max_size=3),
    secrets=st.dictionaries(st.text(), st.text().map(SecretStr), max_size=3),
    config=_objects,
    port=st.none() | st.integers(1, 65535),
    health_path=st.text(),
    resources=_objects,
    idle_policy=_objects,
)
_failures = st.builds(
    Failure,
    step=st.text(),
    reason=st.text(),
    code=st.text(),
    attempts=st.integers(0, 1000),
    retry_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    fix=st.text(),
)


@given(_specs, st.none() | _failures)
def test_an_agent_comes_back_as_it_was(spec: AgentSpec, failure: Failure | None) -> None:
    agent = replace(an_agent(spec=spec), failure=failure)
    row = rows.agent_to_row(agent, CIPHER)
    row |= {name: json.loads(json.dumps(row[name])) for name in ("spec", "failure")}
    assert rows.agent_from_row(row, CIPHER) == agent


def test_what_may_be_secret_is_sealed() -> None:
    spec = AgentSpec(
        environment={"TOKEN": "canary-1"}, secrets={"KEY": SecretStr("canary-2")}, config={"password": "canary-3"}
    )
    assert "canary" not in repr(rows.agent_to_row(an_agent(spec=spec), CIPHER))


def test_a_run_comes_back_with_its_token_which_is_sealed() -> None:
    run = Run(
        "a", 2, 3, runtime_ref="ref", agent_token=SecretStr("canary"), started_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    row = rows.run_to_row(run, CIPHER)
    assert b"canary" not in row["agent_token"]
    assert rows.run_from_row(row, CIPHER) == run


def test_a_run_without_a_token_has_none() -> None:
    run = Run("a", 2, 3)
    assert rows.run_from_row(rows.run_to_row(run, CIPHER), CIPHER) == run
