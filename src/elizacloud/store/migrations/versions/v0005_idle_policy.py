"""What an owner says about agents that nobody uses."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("owners", sa.Column("idle_policy", sa.JSON(none_as_null=True), nullable=True))
