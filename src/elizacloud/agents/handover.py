"""What is on its way to an instance and kept nowhere else: the value of its pre-auth key and its credentials.

It lives in the memory of one process. After a crash it is gone; then the key is expired and a new one minted, which is why
no key value has to be stored.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from elizacloud.agents.credentials import Credentials, mint_credentials
from elizacloud.headscale.protocol import MintedKey
from elizacloud.runtime.protocol import InstanceSecrets

RunKey = tuple[str, int, int]
"""Agent id, generation and run."""


@dataclass(slots=True)
class Handover:
    """By agent. Nothing here survives the run that it was made for."""

    _keys: dict[str, MintedKey] = field(default_factory=dict)
    _credentials: dict[str, tuple[RunKey, Credentials]] = field(default_factory=dict)
    _awaited: dict[str, asyncio.Future[InstanceSecrets]] = field(default_factory=dict)

    def put_key(self, agent_id: str, key: MintedKey) -> None:
        self._keys[agent_id] = key

    def key(self, agent_id: str, key_id: str | None) -> MintedKey | None:
        """The minted key, if this process minted the one with that id."""
        key = self._keys.get(agent_id)
        return key if key is not None and key.id == key_id else None

    def credentials(self, run: RunKey) -> Credentials:
        """Those of the run: the same on each try of its start, since a try whose answer was lost may have succeeded."""
        held = self._credentials.get(run[0])
        if held is None or held[0] != run:
            held = self._credentials[run[0]] = (run, mint_credentials())
        return held[1]

    def has_credentials(self, run: RunKey) -> bool:
        held = self._credentials.get(run[0])
        return held is not None and held[0] == run

    def drop(self, agent_id: str) -> None:
        """Forget what was handed over."""
        self._keys.pop(agent_id, None)
        self._credentials.pop(agent_id, None)

    # An agent that is started by hand: its owner waits for the values, once.

    def expect(self, agent_id: str) -> asyncio.Future[InstanceSecrets]:
        """Ask for the next secrets of an agent that is started by hand; they come as the future's result."""
        future = asyncio.get_running_loop().create_future()
        self._awaited[agent_id] = future
        return future

    def is_expected(self, agent_id: str) -> bool:
        future = self._awaited.get(agent_id)
        return future is not None and not future.done()

    def give(self, agent_id: str, secrets: InstanceSecrets) -> None:
        future = self._awaited.pop(agent_id, None)
        if future is not None and not future.done():
            future.set_result(secrets)

    def give_up(self, agent_id: str, future: object = None) -> None:
        """Nobody waits any more; with a future, only if it is the one that is waited for."""
        if (awaited := self._awaited.get(agent_id)) is not None and future in (None, awaited):
            del self._awaited[agent_id]
            awaited.cancel()
