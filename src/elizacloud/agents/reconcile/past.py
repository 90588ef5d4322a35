"""What was seen before, kept outside the database: by it a database that went back in time is noticed, and another Headscale.

Neither is ever guessed about: what would remove something is held, with a sentence, until the operator accepts it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from elizacloud.errors import HeadscaleRefused
from elizacloud.headscale.protocol import Headscale
from elizacloud.store import Marks, Store, regressed

ACCEPT = "look at `elizacloud sweep --dry-run`, then accept it by `elizacloud sweep --accept`"
OTHER_HEADSCALE = "headscale_changed"


@dataclass(frozen=True, slots=True)
class Past:
    """`relays` are the machine keys of the relays that were accepted; `suspicion` is why the database is not trusted."""

    marks: Marks = field(default_factory=lambda: Marks(0, 0))
    headscale_key: str = ""
    relays: tuple[str, ...] = ()
    suspicion: str = ""


class PastFile(Protocol):
    """A place that a restored database does not take back with it."""

    def read(self) -> Past: ...

    def write(self, past: Past) -> None: ...


class Remembered:
    """A PastFile for a control plane that keeps none."""

    def __init__(self) -> None:
        self.past = Past()

    def read(self) -> Past:
        return self.past

    def write(self, past: Past) -> None:
        self.past = past


class Memory:
    def __init__(self, file: PastFile, store: Store, headscale: Headscale) -> None:
        self._file = file
        self._store = store
        self._headscale = headscale
        self._past = file.read()
        self.refusal = ""
        """Why Headscale was refused when it was last looked at."""

    @property
    def suspicion(self) -> str:
        return self._past.suspicion

    @property
    def relays(self) -> tuple[str, ...]:
        return self._past.relays

    async def check_store(self) -> None:
        """Compare the database with what was last seen of it; once, when the control plane starts."""
        now, seen = await self._store.installation.marks(), self._past.marks
        if regressed(now, seen):
            self._keep(
                suspicion=f"the database is older than it was (its last event is {now.last_event} and was "
                f"{seen.last_event}): was a backup restored? {ACCEPT.capitalize()}"
            )

    async def check_headscale(self) -> None:
        """HeadscaleRefused `headscale_changed` when it is not the one that was there at the first start."""
        key = await self._headscale.public_key()
        if key is not None and not self._past.headscale_key:
            self._keep(headscale_key=key)
        self.refusal = ""
        if key is not None and key != self._past.headscale_key:
            self.refusal = (
                "cannot use this Headscale: it is not the one that this installation was begun with (its public key is "
                "another one), and no agent of ours is on it; correct ELIZACLOUD_HEADSCALE_API_URL, or accept it by "
                "`elizacloud sweep --accept`"
            )
            raise HeadscaleRefused(self.refusal, code="headscale_changed")

    async def remember(self, relays: Iterable[str]) -> None:
        """Note how far the database has come; the first relays that are seen are those that belong here."""
        if not self._past.relays:
            self._keep(relays=tuple(relays))
        if not self.suspicion:
            self._keep(marks=await self._store.installation.marks())

    async def accept_headscale(self) -> None:
        """The operator says that it is the right one."""
        self._keep(headscale_key=await self._headscale.public_key() or "")

    async def accept(self, relays: Iterable[str]) -> None:
        """The operator says that database and relays are right as they are now."""
        self._keep(suspicion="", marks=await self._store.installation.marks(), relays=tuple(relays))

    def _keep(self, **changes: object) -> None:
        past = replace(self._past, **changes)  # type: ignore[arg-type]
        if past != self._past:
            self._file.write(past)
            self._past = past
