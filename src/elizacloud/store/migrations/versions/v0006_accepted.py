"""What an operator took for right, for all control planes: until now each kept it in a file of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("installation", sa.Column("headscale_key", sa.Text(), nullable=True))
    op.add_column("installation", sa.Column("relays", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("installation", sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True))
