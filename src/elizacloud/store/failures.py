"""The one place where errors of SQLAlchemy and its drivers become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from elizacloud.errors import Conflict, Error, Invalid, Misconfigured, NotFound, StoreUnavailable

_DISK_FULL = "its disk is full; free some space, nothing was changed"
_HELD = "another process holds it; stop that process or try again"
_LOST = "it does not answer; check that it runs and can be reached"

_SQLITE_REASONS = {
    "SQLITE_FULL": _DISK_FULL,
    "SQLITE_BUSY": _HELD,
    "SQLITE_LOCKED": _HELD,
    "SQLITE_PROTOCOL": _HELD,
    "SQLITE_READONLY": "its file cannot be written; correct the permissions of the data dir",
    "SQLITE_CANTOPEN": "its file cannot be opened; check that the data dir is there and can be written",
    "SQLITE_IOERR": "its disk failed to read or write; check the disk",
    "SQLITE_NOMEM": "there is no memory left; free some",
}
_SQLITE_DAMAGED = {"SQLITE_CORRUPT", "SQLITE_NOTADB"}

# SQLSTATE or its class, PostgreSQL 18 documentation, appendix A.
_POSTGRESQL_REASONS = {
    "53100": _DISK_FULL,
    "53300": "it has no connection left; raise max_connections or run fewer control planes",
    "53": "it is out of resources; look at its log",
    "55P03": "another transaction holds what this one needs; try again",
    "57014": "it took too long; look at its load",
    "40": "another transaction was in the way; try again",
    "25006": "it is read-only at the moment; point database_url at the primary",
    "XX001": "it reports damaged data; look at its log",
    "58": "its system failed to read or write; look at its log",
}
_POSTGRESQL_FIXES = {
    "28": "the user or password is not accepted; correct database_url",
    "3D000": "the database does not exist; create it or correct database_url",
    "42501": "the user may not do this; grant it the rights on its schema",
    "42P01": "a table is missing; restore the database from a backup",
}

# A broken unique constraint: its name on PostgreSQL, the columns on SQLite.
TAKEN = {
    "uq_agents_name": ("an agent of this name exists already; choose another name", "name_taken"),
    "pk_agents": ("an agent of this id exists already", "agent_exists"),
}
TAKEN |= {
    "agents.owner_id, agents.name": TAKEN["uq_agents_name"],
    "agents.id": TAKEN["pk_agents"],
}


@contextmanager
def mapped() -> Iterator[None]:
    """Turn what the database or its driver raises into an Error; ours pass through."""
    try:
        yield
    except (exc.StatementError, exc.TimeoutError, TimeoutError, OSError, UnicodeEncodeError, OverflowError) as error:
        if isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError) and not _unfit(error.orig):
            raise  # a mistake of ours in the values, met before they reached the database
        raise ours(error) from error


def ours(error: Exception) -> Error:
    """The error of ours that stands for a foreign one. Never repeats its text: that holds values and addresses."""
    if isinstance(error, exc.TimeoutError | TimeoutError):
        return StoreUnavailable("cannot use the store: it is too slow or too busy; try again", retry_after_seconds=2)
    cause = error.orig if isinstance(error, exc.StatementError) else error
    if _unfit(cause) or isinstance(error, exc.DataError):
        return Invalid("cannot store a value: it has a character or a size that no database takes; correct it")
    if isinstance(error, exc.IntegrityError):
        return _violation(error)
    name = getattr(cause, "sqlite_errorname", None)
    if name is not None:
        return _from_sqlite(name)
    return _from_postgresql(getattr(cause, "sqlstate", None) or "")


def _unfit(cause: object) -> bool:
    return isinstance(cause, UnicodeEncodeError | OverflowError)


def _violation(error: exc.IntegrityError) -> Error:
    cause = error.orig
    if getattr(cause, "sqlite_errorname", "") == "SQLITE_CONSTRAINT_FOREIGNKEY" or _sqlstate(cause) == "23503":
        return NotFound("cannot store this: what it belongs to does not exist")
    constraint = getattr(getattr(cause, "diag", None), "constraint_name", None)
    columns = str(cause).removeprefix("UNIQUE constraint failed: ")
    what, code = TAKEN.get(constraint or columns, ("the same exists already", "exists"))
    return Conflict(f"cannot store this: {what}", code=code)


def _from_sqlite(name: str) -> Error:
    family = "_".join(name.split("_")[:2])
    if family in _SQLITE_DAMAGED:
        return Misconfigured("cannot use the store: its database file is damaged; restore it from a backup")
    reason = _SQLITE_REASONS.get(family, "its database refused; look at the log")
    return StoreUnavailable(f"cannot use the store: {reason}", retry_after_seconds=5)


def _from_postgresql(sqlstate: str) -> Error:
    for key in (sqlstate, sqlstate[:2]):
        if key in _POSTGRESQL_FIXES:
            return Misconfigured(f"cannot use the database: {_POSTGRESQL_FIXES[key]}")
        if key in _POSTGRESQL_REASONS:
            return StoreUnavailable(f"cannot use the database: {_POSTGRESQL_REASONS[key]}", retry_after_seconds=2)
    lost = sqlstate == "" or sqlstate[:2] in ("08", "57")
    reason = _LOST if lost else f"it refused with SQLSTATE {sqlstate}; look at its log"
    return StoreUnavailable(f"cannot use the database: {reason}", retry_after_seconds=5)


def _sqlstate(cause: object) -> str:
    return getattr(cause, "sqlstate", None) or ""
