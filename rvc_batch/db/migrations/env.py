"""What Alembic runs: apply the scripts on the connection that `rvc_batch.db.migrate` hands over."""

from __future__ import annotations

from alembic import context

from rvc_batch.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
