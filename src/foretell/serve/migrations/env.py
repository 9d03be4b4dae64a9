"""What Alembic runs to migrate: in the transaction that `upgrade` has begun."""

from __future__ import annotations

from alembic import context

from foretell.serve.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
