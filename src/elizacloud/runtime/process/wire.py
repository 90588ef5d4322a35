"""The values that cross the host's socket, as JSON. Secrets cross it in clear: the socket is 0600 in a 0700 directory."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, TypeVar

from pydantic import SecretStr, TypeAdapter, ValidationError

from elizacloud.errors import Invalid
from elizacloud.runtime.protocol import Instance, InstanceSecrets, InstanceSpec, Usage, Volume

T = TypeVar("T")

SPEC = TypeAdapter(InstanceSpec)
SECRETS = TypeAdapter(InstanceSecrets)
INSTANCE = TypeAdapter(Instance)
INSTANCES = TypeAdapter(list[Instance])
VOLUMES = TypeAdapter(list[Volume])
USAGE = TypeAdapter(Usage)

BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""Largest request: a spec with a config as large as the API lets through, with room to spare."""


def encode(adapter: TypeAdapter[T], value: T) -> bytes:
    """The value as one line of JSON, secrets revealed."""
    return json.dumps(adapter.dump_python(value), default=_plain).encode()


def decode(adapter: TypeAdapter[T], data: bytes) -> T:
    """The value; Invalid, without quoting what was sent, when it is not one."""
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise Invalid(f"cannot read the message: {places[:500]}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} does not cross the socket")
