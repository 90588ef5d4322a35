"""Every table. Change one here and add a migration beside it: a test compares the two on both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class UtcTime(sa.TypeDecorator[datetime]):
    """An aware datetime in UTC, on both databases: SQLite keeps no zone, so that it is taken off and put on here."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone was given to the store")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id(name: str = "id") -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _references(name: str, target: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, sa.ForeignKey(target), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UtcTime, nullable=nullable)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True))


installation = sa.Table(
    "installation",
    metadata,
    sa.Column("singleton", sa.Integer, primary_key=True, autoincrement=False),
    _text("id"),
    sa.Column("canary", sa.LargeBinary, nullable=False),  # sealed: opens only with the right secret key
    _time("created_at"),
    _text("headscale_key", nullable=True),  # the public key of the Headscale that it is on
    _json("relays"),  # the machine keys of its relays
    _time("accepted_at", nullable=True),  # when an operator last said that all is right as it is
)

counters = sa.Table(
    "counters",
    metadata,
    _id("name"),
    sa.Column("value", sa.BigInteger, nullable=False),
)

owners = sa.Table("owners", metadata, _id(), _time("created_at"), _json("idle_policy"))

cells = sa.Table("cells", metadata, _id(), sa.Column("name", sa.Text, nullable=False, unique=True))

hosts = sa.Table(
    "hosts", metadata, _id(), sa.Column("name", sa.Text, nullable=False, unique=True), _text("runtime", nullable=False)
)

agents = sa.Table(
    "agents",
    metadata,
    _id(),
    _references("owner_id", "owners.id"),
    _references("cell_id", "cells.id"),
    _references("host_id", "hosts.id"),
    _text("name"),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("sealed", sa.LargeBinary),  # environment, secrets and config of the spec
    _text("wanted"),
    _text("state"),
    sa.Column("external", sa.Boolean, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("run", sa.Integer, nullable=False),
    sa.Column("agent_ready", sa.Boolean),
    _json("failure"),
    sa.Column("revision", sa.BigInteger, nullable=False),
    _time("created_at"),
    _time("updated_at"),
)

# Literals, not parameters: SQLite uses a partial index only when it can prove that the query's condition implies the index's.
LISTED = agents.c.state != sa.literal_column("'gone'")
NAMED = agents.c.wanted != sa.literal_column("'deleted'")

sa.Index("uq_agents_name", agents.c.owner_id, agents.c.name, unique=True, sqlite_where=NAMED, postgresql_where=NAMED)
sa.Index("ix_agents_listed", agents.c.created_at, agents.c.id, sqlite_where=LISTED, postgresql_where=LISTED)
sa.Index(
    "ix_agents_of_owner",
    agents.c.owner_id,
    agents.c.created_at,
    agents.c.id,
    sqlite_where=LISTED,
    postgresql_where=LISTED,
)

generations = sa.Table(
    "generations",
    metadata,
    sa.Column("agent_id", sa.Text, sa.ForeignKey("agents.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _text("preauth_key_id", nullable=True),
    sa.Column("preauth_key_expired", sa.Boolean, nullable=False),
    _text("node_id", nullable=True),
    _text("node_key", nullable=True),
    _text("machine_key", nullable=True),
    _text("ipv4", nullable=True),
    _text("ipv6", nullable=True),
    _time("joined_at", nullable=True),
    _time("created_at"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("agent_id", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _text("runtime_ref", nullable=True),
    sa.Column("agent_token", sa.LargeBinary),  # sealed
    _text("join_token_sha256", nullable=True),
    _text("busy_token_sha256", nullable=True),
    _time("started_at", nullable=True),
    _time("ready_at", nullable=True),
    _time("ended_at", nullable=True),
    _text("end_reason", nullable=True),
    _time("busy_until", nullable=True),
    sa.ForeignKeyConstraint(["agent_id", "generation"], ["generations.agent_id", "generations.number"]),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    _references("agent_id", "agents.id"),
    _time("at"),
    _text("step"),
    _text("state_from", nullable=True),
    _text("state_to"),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("run", sa.Integer, nullable=False),
    _text("reason"),
    sa.Column("seconds", sa.Double),
    sa.Index("ix_events_of_agent", "agent_id", "sequence"),
)

tokens = sa.Table(
    "api_tokens",
    metadata,
    _id(),
    _references("owner_id", "owners.id"),
    _text("name"),
    sa.Column("scopes", sa.JSON, nullable=False),
    _references("agent_id", "agents.id", nullable=True),
    sa.Column("sha256", sa.Text, nullable=False, unique=True),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
    sa.Column("kind", sa.Text, nullable=False, server_default="api"),
    _text("parent_id", nullable=True),  # may be forgotten before those that were made with it
    sa.Index("ix_api_tokens_of_owner", "owner_id", "created_at"),
    sa.Index("ix_api_tokens_of_agent", "agent_id"),
    sa.Index("ix_api_tokens_of_parent", "parent_id"),
    sa.Index("ix_api_tokens_expires_at", "expires_at"),
)

tickets = sa.Table(
    "tickets",
    metadata,
    _id("sha256"),
    _text("id"),
    _references("agent_id", "agents.id"),
    _text("owner_id"),
    _text("parent_id", nullable=True),
    _time("created_at"),
    _time("expires_at"),
    _time("session_expires_at"),
    _time("redeemed_at", nullable=True),
    sa.Index("ix_tickets_expires_at", "expires_at"),
)

signing_keys = sa.Table(
    "signing_keys",
    metadata,
    _id("kid"),
    _text("purpose"),
    sa.Column("private_jwk", sa.LargeBinary, nullable=False),  # sealed
    _time("signs_from"),
    _time("signs_until"),
    _time("published_until"),
)

leases = sa.Table(
    "leases",
    metadata,
    _id("name"),
    _text("holder", nullable=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    _time("until", nullable=True),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    _text("body_sha256"),
    _text("agent_id"),
    _time("claimed_at"),
    sa.Column("status", sa.Integer),
    sa.Column("answer", sa.LargeBinary),  # sealed: an answer may hold a credential
    sa.Index("ix_idempotency_keys_claimed_at", "claimed_at"),
)

cli_sessions = sa.Table(
    "cli_sessions",
    metadata,
    _id("sha256"),
    sa.Column("user_code", sa.Text, nullable=False, unique=True),
    _text("owner_id", nullable=True),
    _time("created_at"),
    _time("expires_at"),
    _time("approved_at", nullable=True),
    _time("taken_at", nullable=True),
)
