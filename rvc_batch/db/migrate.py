"""Bring a job database to the schema of this version, in process and in one transaction.

Alembic is imported only when there is something to do. A database that a newer version made is refused, never changed;
an older one is copied first.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.db.engine import Database, back_up
from rvc_batch.db.revisions import HEAD_REVISION, REVISIONS
from rvc_batch.db.schema import meta
from rvc_batch.errors import DatabaseUnusable
from rvc_batch.version import __version__

SCRIPTS = Path(__file__).with_name("migrations")


def bring_up_to_date(database: Database) -> None:
    """Create the tables, or upgrade those of an older version after a backup.

    Raises:
        DatabaseUnusable: a newer version made the database, or it belongs to another program.
    """
    found = database.read(revision)
    if found == HEAD_REVISION:
        return
    _refuse_unknown(database, found)
    if found is not None:
        back_up(database.path, database.path.with_name(f"{database.path.name}.before-{HEAD_REVISION}"))
    database.write(_upgrade)


def require_current(database: Database) -> None:
    """Make sure that the tables are those of this version, without changing them.

    Raises:
        DatabaseUnusable: they are older or newer.
    """
    found = database.read(revision)
    if found == HEAD_REVISION:
        return
    _refuse_unknown(database, found)
    raise DatabaseUnusable(
        f"{database.path} was made by an older version; `rvc-batch run` of {__version__} upgrades it"
    )


def revision(connection: Connection) -> str | None:
    """Return the revision of the tables; none in an empty database.

    Raises:
        DatabaseUnusable: the file holds tables of another program.
    """
    tables = sa.inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return str(connection.execute(statements.revision()).scalar_one())
    if tables:
        raise DatabaseUnusable(
            f"the database holds {tables[0]!r} and other tables that are not ours; name another file"
        )
    return None


def _refuse_unknown(database: Database, found: str | None) -> None:
    if found is None or found in REVISIONS:
        return
    maker = database.read(lambda c: c.execute(statements.meta_value("version")).scalar())
    raise DatabaseUnusable(
        f"{database.path} was made by rvc-batch {maker or 'of a later version'} (schema {found}), "
        f"this is {__version__} (schema {HEAD_REVISION}); install that version or start with another --home"
    )


def _upgrade(connection: Connection) -> None:
    if revision(connection) == HEAD_REVISION:
        return  # another process was faster
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.execute(meta.delete().where(meta.c.key == "version"))
    connection.execute(meta.insert().values(key="version", value=__version__))
