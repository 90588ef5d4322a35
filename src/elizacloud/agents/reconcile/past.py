"""What was seen before: by it a database that went back in time is noticed, another Headscale, and a relay nobody knows.

How far the database had come is kept outside it, by each control plane; which Headscale and relays are ours is in it, for all of
them. Nothing is ever guessed: what would remove something is held, with a sentence, until the operator accepts it at any one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

from elizacloud.errors import HeadscaleRefused
from elizacloud.headscale.protocol import Headscale
from elizacloud.store import Marks, Store, regressed

ACCEPT = "look at `elizacloud sweep --dry-run`, then accept it by `elizacloud sweep --accept`"
OTHER_HEADSCALE = "headscale_changed"


@dataclass(frozen=True, slots=True)
class Past:
    """`suspicion` is why the database is not trusted. `headscale_key` and `relays` are of a time before the database held
    them, and count while it holds none."""

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
        self._installation = store.installation
        self._headscale = headscale
        self._past = file.read()
        self.refusal = ""
        """Why Headscale was refused when it was last looked at."""

    @property
    def suspicion(self) -> str:
        return self._past.suspicion

    async def check_store(self) -> None:
        """Compare the database with what was last seen of it: at the start, and before each sweep."""
        now, seen = await self._installation.marks(), self._past.marks
        if self.suspicion:
            if now.accepted > seen.accepted:  # at another control plane
                self._keep(suspicion="", marks=now)
        elif regressed(now, seen):
            self._keep(
                suspicion=f"the database is older than it was (its last event is {now.last_event} and was "
                f"{seen.last_event}): was a backup restored? {ACCEPT.capitalize()}"
            )

    async def check_headscale(self) -> None:
        """HeadscaleRefused `headscale_changed` when it is not the one that was there at the first start."""
        key = await self._headscale.public_key()
        before = self._past.headscale_key
        # What a file of before says may be older than what was accepted elsewhere: it only confirms, and is nobody else's word.
        known = key and (await self._installation.headscale_key(first=key if before in ("", key) else "") or before)
        self.refusal = ""
        if key != known:
            self.refusal = (
                "cannot use this Headscale: it is not the one that this installation was begun with (its public key is "
                "another one), and no agent of ours is on it; correct ELIZACLOUD_HEADSCALE_API_URL, or accept it by "
                "`elizacloud sweep --accept`"
            )
            raise HeadscaleRefused(self.refusal, code="headscale_changed")

    async def relays(self, seen: Collection[str], *, learn: bool) -> Collection[str]:
        """The machine keys of those that belong here: while none is known, those that are `seen`, from now on when it is to
        `learn` them."""
        first = self._past.relays or tuple(seen)
        return await self._installation.relays(first=first if learn else ()) or first

    async def remember(self) -> None:
        """Note how far the database has come."""
        if not self.suspicion:
            self._keep(marks=await self._installation.marks())

    async def accept_headscale(self) -> None:
        """The operator says that it is the right one."""
        if key := await self._headscale.public_key():
            await self._installation.accept_headscale(key)

    async def accept(self, relays: Collection[str]) -> None:
        """The operator says that database and relays are right as they are now."""
        await self._installation.accept(tuple(relays))
        self._keep(suspicion="", marks=await self._installation.marks(), relays=())

    def _keep(self, **changes: object) -> None:
        past = replace(self._past, **changes)  # type: ignore[arg-type]
        if past != self._past:
            self._file.write(past)
            self._past = past
