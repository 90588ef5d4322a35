"""Until when a run's container said that it works: kept, so that no restart and no change of the driver forgets it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("busy_until", sa.DateTime(timezone=True), nullable=True))
