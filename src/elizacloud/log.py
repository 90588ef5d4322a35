"""Structured logs: one line a fact, JSON when nobody is watching, colours on a terminal.

Log a fact once, where the state changes. Never log query strings, keys, tokens or bodies.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


class _Losing:
    """A file that loses what cannot be written, on a full disk or to a terminal that is gone: no process ends for a log."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


def show_line(line: bytes) -> None:
    """Write a line that another process said to our standard error; lost when it cannot be written."""
    with contextlib.suppress(OSError):
        sys.stderr.buffer.write(line + b"\n")
        sys.stderr.flush()


def configure_logging(*, level: str = "info", json: bool | None = None, process: str = "") -> None:
    """Set up structlog for this process; `json=None` means JSON unless standard error is a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Losing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    if process:
        structlog.contextvars.bind_contextvars(process=process)
