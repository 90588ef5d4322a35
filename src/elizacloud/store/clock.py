"""The database's own time, on both databases: what several control planes agree on, whatever their clocks say."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from elizacloud.store.tables import UtcTime


class DatabaseTime(FunctionElement[Any]):
    """The moment at which the database reads it (not the transaction's begin: that may have waited for a lock), and so
    many seconds on."""

    type = UtcTime()
    inherit_cache = True
    name = "database_time"

    def __init__(self, seconds_on: float = 0.0) -> None:
        super().__init__(sa.literal(float(seconds_on), sa.Double))


@compiles(DatabaseTime, "postgresql")
def _on_postgresql(element: DatabaseTime, compiler: SQLCompiler, **arguments: Any) -> str:
    return f"(clock_timestamp() + {compiler.process(element.clauses, **arguments)} * interval '1 second')"


@compiles(DatabaseTime, "sqlite")
def _on_sqlite(element: DatabaseTime, compiler: SQLCompiler, **arguments: Any) -> str:
    # Written as SQLAlchemy writes a time, so that the texts compare as the times do.
    seconds = compiler.process(element.clauses, **arguments)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"
