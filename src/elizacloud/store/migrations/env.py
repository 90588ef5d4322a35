"""Alembic's entry: uses the connection that it is handed, inside the caller's transaction, and touches no logging."""

from alembic import context

from elizacloud.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
