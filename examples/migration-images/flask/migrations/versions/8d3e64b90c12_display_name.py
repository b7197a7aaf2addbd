"""display name"""

import sqlalchemy as sa
from alembic import op

revision = "8d3e64b90c12"
down_revision = "1f0c5a7e2b31"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("profile", sa.Column("display_name", sa.String(100)))


def downgrade():
    op.drop_column("profile", "display_name")
