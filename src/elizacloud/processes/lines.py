"""Bytes in, lines out, each of bounded size. Pure."""

from __future__ import annotations

LINE_LIMIT_BYTES = 16 * 1024
CUT = b" [cut]"


class LineSplitter:
    """Splits a stream at newlines; of a longer line only the first `limit_bytes` are kept, marked as cut."""

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = b""
        self._cutting = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without newline or carriage return before it."""
        *complete, rest = data.split(b"\n")
        lines = []
        for part in complete:
            self._append(part)
            lines.append(self._take())
        self._append(rest)
        return lines

    def flush(self) -> bytes | None:
        """What came after the last newline, or None when there was nothing."""
        return self._take() if self._rest else None

    def _append(self, part: bytes) -> None:
        room = self._limit_bytes - len(self._rest)
        self._cutting = self._cutting or len(part) > room
        self._rest += part[:room]

    def _take(self) -> bytes:
        line = self._rest + CUT if self._cutting else self._rest.removesuffix(b"\r")
        self._rest, self._cutting = b"", False
        return line
