"""What `flask db` runs; as Flask-Migrate makes it, for one database that is online."""

from logging.config import fileConfig

from alembic import context
from flask import current_app

fileConfig(context.config.config_file_name)
extension = current_app.extensions["migrate"]

with extension.db.engine.connect() as connection:
    context.configure(connection=connection, target_metadata=extension.db.metadata)
    with context.begin_transaction():
        context.run_migrations()
