"""Write what `status` asks of the database as SQLite's text: rvc_batch/db/status_sql.py.

    python tools/compile_statements.py

The statements themselves are in rvc_batch/db/statements.py. `status` runs their text because loading SQLAlchemy would
take longer than everything else it does. Run this after a change there, or after an upgrade of SQLAlchemy that words
them differently; a test compares.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import sqlalchemy as sa  # noqa: E402
from sqlalchemy.dialects import sqlite  # noqa: E402
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler  # noqa: E402

from rvc_batch.db import statements  # noqa: E402

TARGET = ROOT / "rvc_batch" / "db" / "status_sql.py"
COLUMNS = 118
HEADER = '''"""What `status` asks of the database, as SQLite's text; parameters are named.

Written by tools/compile_statements.py from rvc_batch/db/statements.py. Change it there and run
`python tools/compile_statements.py`; a test compares the two.
"""
'''


def main() -> None:
    """Write the module."""
    TARGET.write_text(module(), encoding="utf-8")


def module() -> str:
    """Return the source of the module."""
    parts = (f'{name.upper()} = """\n{compiled(statement)}\n"""\n' for name, statement in asked().items())
    return "\n".join((HEADER, *parts))


def asked() -> dict[str, statements.Statement]:
    """Return the statements by name, what changes from call to call as named parameters."""
    now, since, limit, voice, key = map(_parameter, ("now", "since", "limit", "voice", "key"))
    return {
        "counts": statements.counts(),
        "revision": statements.revision(),
        "running_lines": statements.running_lines(),
        "next_lines": statements.next_lines(now, limit),
        "failed_lines": statements.failed_lines(limit),
        "unfinished_audio": statements.unfinished_audio(),
        "recent_speeds": statements.recent_speeds(voice, limit),
        "finished_since": statements.finished_since(since),
        "stage_seconds_since": statements.stage_seconds_since(since),
        "meta_value": statements.meta_value(key),
        "all_arrivals": statements.all_arrivals(),
        "hooks_behind": statements.hooks_behind(),
    }


def compiled(statement: statements.Statement) -> str:
    """Return the text for SQLite, wrapped between words; constants are written out."""
    dialect = sqlite.dialect(paramstyle="named")
    dialect.statement_compiler = _ConstantsWrittenOut
    words = str(statement.compile(dialect=dialect)).split()
    return textwrap.fill(" ".join(words), COLUMNS, break_long_words=False, break_on_hyphens=False)


class _ConstantsWrittenOut(SQLiteCompiler):
    """Leaves only those parameters whose value is not known yet."""

    def visit_bindparam(self, bindparam: sa.BindParameter[Any], **options: Any) -> str:
        return super().visit_bindparam(bindparam, **options | {"literal_binds": not bindparam.required})


def _parameter(name: str) -> Any:
    return sa.bindparam(name)


if __name__ == "__main__":
    main()
