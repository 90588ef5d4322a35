"""The first tables: installation, owners, cells, hosts, agents with generations, runs and events, tokens, claims, logins."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "cells",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cells"),
        sa.UniqueConstraint("name", name="uq_cells_name"),
    )
    op.create_table(
        "cli_sessions",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("user_code", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("approved_at", _TIME, nullable=True),
        sa.Column("taken_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("sha256", name="pk_cli_sessions"),
        sa.UniqueConstraint("user_code", name="uq_cli_sessions_user_code"),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.create_table(
        "hosts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("runtime", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hosts"),
        sa.UniqueConstraint("name", name="uq_hosts_name"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_claimed_at", "idempotency_keys", ["claimed_at"], unique=False)
    op.create_table(
        "installation",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("canary", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("singleton", name="pk_installation"),
    )
    op.create_table(
        "owners",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_owners"),
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("cell_id", sa.Text(), nullable=False),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("external", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("agent_ready", sa.Boolean(), nullable=True),
        sa.Column("failure", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name="fk_agents_cell_id"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name="fk_agents_host_id"),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name="fk_agents_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_agents"),
    )
    op.create_index(
        "ix_agents_listed",
        "agents",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("state != 'gone'"),
        postgresql_where=sa.text("state != 'gone'"),
    )
    op.create_index(
        "ix_agents_of_owner",
        "agents",
        ["owner_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("state != 'gone'"),
        postgresql_where=sa.text("state != 'gone'"),
    )
    op.create_index(
        "uq_agents_name",
        "agents",
        ["owner_id", "name"],
        unique=True,
        sqlite_where=sa.text("wanted != 'deleted'"),
        postgresql_where=sa.text("wanted != 'deleted'"),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=True),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_api_tokens_agent_id"),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name="fk_api_tokens_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("sha256", name="uq_api_tokens_sha256"),
    )
    op.create_index("ix_api_tokens_of_agent", "api_tokens", ["agent_id"], unique=False)
    op.create_index("ix_api_tokens_of_owner", "api_tokens", ["owner_id", "created_at"], unique=False)
    op.create_table(
        "events",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("state_from", sa.Text(), nullable=True),
        sa.Column("state_to", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_events_agent_id"),
        sa.PrimaryKeyConstraint("sequence", name="pk_events"),
    )
    op.create_index("ix_events_of_agent", "events", ["agent_id", "sequence"], unique=False)
    op.create_table(
        "generations",
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("preauth_key_id", sa.Text(), nullable=True),
        sa.Column("preauth_key_expired", sa.Boolean(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=True),
        sa.Column("node_key", sa.Text(), nullable=True),
        sa.Column("machine_key", sa.Text(), nullable=True),
        sa.Column("ipv4", sa.Text(), nullable=True),
        sa.Column("ipv6", sa.Text(), nullable=True),
        sa.Column("joined_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_generations_agent_id"),
        sa.PrimaryKeyConstraint("agent_id", "number", name="pk_generations"),
    )
    op.create_table(
        "runs",
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("runtime_ref", sa.Text(), nullable=True),
        sa.Column("agent_token", sa.LargeBinary(), nullable=True),
        sa.Column("join_token_sha256", sa.Text(), nullable=True),
        sa.Column("busy_token_sha256", sa.Text(), nullable=True),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("ready_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id", "generation"],
            ["generations.agent_id", "generations.number"],
            name="fk_runs_agent_id_generation",
        ),
        sa.PrimaryKeyConstraint("agent_id", "generation", "number", name="pk_runs"),
    )
    counters = sa.table("counters", sa.column("name"), sa.column("value"))
    op.bulk_insert(counters, [{"name": "epoch", "value": 0}, {"name": "events", "value": 0}])
