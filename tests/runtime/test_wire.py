"""Values cross the socket whole, secrets included; what is no value is refused without being quoted."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr, TypeAdapter

from elizacloud.errors import Invalid
from elizacloud.model import AgentSpec
from elizacloud.runtime.process.wire import INSTANCE, INSTANCES, SECRETS, SPEC, decode, encode
from elizacloud.runtime.protocol import Instance, Phase
from tests.contract.runtimes import labels, secrets, spec

FULL = replace(
    spec(),
    report_url="http://127.0.0.1:1",
    agent=AgentSpec(
        image="i",
        command=("a", "b c", "ü"),
        environment={"A": "1"},
        secrets={"B": SecretStr("2")},
        config={"deep": {"er": [1, None, "x"]}},
        port=1,
        health_path="/h",
        resources={"memory": "1g"},
        idle_policy={"after": 5},
    ),
)


def test_specs_and_secrets_cross() -> None:
    assert decode(SPEC, encode(SPEC, FULL)) == FULL
    assert decode(SPEC, encode(SPEC, spec())) == spec()
    assert decode(SECRETS, encode(SECRETS, secrets())) == secrets()
    assert decode(SECRETS, encode(SECRETS, secrets(preauth_key=None))) == secrets(preauth_key=None)


def test_instances_cross() -> None:
    seen = Instance("r", labels(), Phase.EXITED, 3, "why", datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))

    assert decode(INSTANCE, encode(INSTANCE, seen)) == seen
    assert decode(INSTANCES, encode(INSTANCES, [seen, Instance("s", labels(), Phase.CREATED)]))[0] == seen


@pytest.mark.parametrize("adapter", [SPEC, SECRETS, INSTANCE, INSTANCES])
@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"{}", b'{"preauth_key": ["hunter2"]}', b"\xff\xfe", b'"hunter2"']
)
def test_what_is_no_value_is_refused_and_not_quoted(adapter: TypeAdapter[object], data: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        decode(adapter, data)

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
