"""Which schema this version knows. It stands apart from the tables so that `status` need not load SQLAlchemy."""

REVISIONS = ("0001", "0002")  # the scripts in migrations/versions, oldest first
HEAD_REVISION = REVISIONS[-1]
