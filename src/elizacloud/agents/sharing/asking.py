"""Questions from one control plane to whichever other one can answer, over hints.

A question is asked again until it is heard, and everyone who hears it decides whether it is theirs. Answers are sealed, since
they may hold a credential, and come in parts, since a hint is short. One that is lost is for the caller's deadline to find.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from elizacloud import errors
from elizacloud.errors import Error, LeaseLost, Unavailable
from elizacloud.store.hints import Hint, Hints

AGAIN_SECONDS = 1.0
HEARD_SECONDS = 12.0
"""By then whatever a dead control plane had to do is another one's."""
_PART_CHARACTERS = 6000
_MOST_PARTS = 250
_KINDS = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Error)}

Answerer = Callable[[Hint], Awaitable[Any] | None]
"""Given a question, at once: what will be its answer (anything that JSON can hold), or None when it is not ours."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Asked:
    answer: asyncio.Future[Any]
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    parts: dict[int, str] = field(default_factory=dict)


class Asking:
    """`me` differs at every start. `run` it once: what is asked is answered only while it runs."""

    def __init__(self, hints: Hints, me: str, answerers: Mapping[str, Answerer]) -> None:
        self._hints = hints
        self._me = me
        self._answerers = answerers
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._questions: asyncio.Queue[tuple[Hint, Awaitable[Any] | None]] = asyncio.Queue()
        self._answering: set[tuple[str, int]] = set()
        hints.listen(self._hear)

    async def ask(self, what: str, **facts: Any) -> asyncio.Future[Any]:
        """Returns once somebody has heard the question and is at it. The future brings the answer, or the Error of whoever
        tried; cancel it when it is not wanted any more.

        Raises LeaseLost when nobody has heard it within HEARD_SECONDS, and StoreUnavailable.
        """
        number = next(self._numbers)
        asked = self._asked[number] = _Asked(asyncio.get_running_loop().create_future())
        asked.answer.add_done_callback(lambda _: self._asked.pop(number, None))
        try:
            async with asyncio.timeout(HEARD_SECONDS):
                while not asked.heard.is_set():
                    await self._hints.send({"kind": "ask", "what": what, "from": self._me, "number": number, **facts})
                    with suppress(TimeoutError):
                        async with asyncio.timeout(AGAIN_SECONDS):
                            await asked.heard.wait()
        except TimeoutError:
            asked.answer.cancel()
            raise LeaseLost(
                "cannot do this now: no control plane says that it is the one to do it; try again",
                retry_after_seconds=1,
            ) from None
        except BaseException:
            asked.answer.cancel()
            raise
        return asked.answer

    async def run(self) -> None:
        """Answer until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                question, answer = await self._questions.get()
                tasks.create_task(self._give(question, answer), name=f"answer {question['what']}")

    def _hear(self, hint: Hint) -> None:
        if hint.get("kind") == "ask":
            name = (str(hint["from"]), int(hint["number"]))
            answerer = self._answerers.get(str(hint["what"]))
            if name in self._answering:
                self._questions.put_nowait((hint, None))  # our word that we heard it was lost
            elif answerer is not None and (answer := answerer(hint)) is not None:
                self._answering.add(name)
                self._questions.put_nowait((hint, answer))
        elif hint.get("to") == self._me and (asked := self._asked.get(hint.get("number", 0))) is not None:
            if hint["kind"] == "heard":
                asked.heard.set()
            elif hint["kind"] == "answer":
                self._hear_answer(asked, hint)

    def _hear_answer(self, asked: _Asked, hint: Hint) -> None:
        asked.heard.set()
        asked.parts[int(hint["part"])] = str(hint["text"])
        if len(asked.parts) < int(hint["parts"]) or asked.answer.done():
            return
        sealed = "".join(text for _, text in sorted(asked.parts.items()))
        try:
            told = json.loads(zlib.decompress(self._hints.open(sealed, bound_to=_bound_to(self._me, hint["number"]))))
        except Error as error:
            asked.answer.set_exception(error)
            return
        if "error" in told:
            asked.answer.set_exception(_as_error(**told["error"]))
        else:
            asked.answer.set_result(told["answer"])

    async def _give(self, question: Hint, answer: Awaitable[Any] | None) -> None:
        name = (str(question["from"]), int(question["number"]))
        try:
            await self._say(name, kind="heard")
            if answer is None:
                return
            try:
                told = {"answer": await answer}
            except Error as error:
                told = {"error": _told_of(error)}
            texts = self._parts(told, name)
            if len(texts) > _MOST_PARTS:
                long = Unavailable("cannot pass on so long an answer: ask at the control plane that holds the lease")
                texts = self._parts({"error": _told_of(long)}, name)
            for number, text in enumerate(texts):
                await self._say(name, kind="answer", part=number, parts=len(texts), text=text)
        finally:
            if answer is not None:
                self._answering.discard(name)

    def _parts(self, told: Mapping[str, Any], name: tuple[str, int]) -> list[str]:
        sealed = self._hints.seal(zlib.compress(json.dumps(told).encode()), bound_to=_bound_to(*name))
        return [sealed[begin : begin + _PART_CHARACTERS] for begin in range(0, len(sealed), _PART_CHARACTERS)]

    async def _say(self, to: tuple[str, int], **facts: Any) -> None:
        try:
            await self._hints.send({"to": to[0], "number": to[1], **facts})
        except Error as error:
            log.warning("cannot answer another control plane", kind=facts["kind"], reason=str(error))


def _bound_to(asker: str, number: int) -> str:
    return f"answers/{asker}/{number}"


def _told_of(error: Error) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "code": error.reason,
        "retry_after_seconds": error.retry_after_seconds,
    }


def _as_error(kind: str, message: str, **facts: Any) -> Error:
    return _KINDS.get(kind, Unavailable)(message, **facts)
