"""What must be true of the job database at every moment, as queries for what is not.

Most of it stands in the schema as constraints, too; these queries find rows that a damaged file, a hand edit or a bug
of an earlier version brought in. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

CLOCK_SLACK_S = 1.0  # stage times are monotonic, attempt times come from the wall clock


@dataclass(frozen=True)
class Violation:
    """One rule that one job breaks."""

    rule: str  # I1 to I12
    job_id: int | None
    what: str


_RULES = (
    (
        "I1",
        "is {state}, but only a running job has a worker and a lease",
        """SELECT id, state FROM jobs
           WHERE CASE WHEN state = 'running' THEN worker_id IS NULL OR lease_until IS NULL
                      ELSE worker_id IS NOT NULL OR lease_until IS NOT NULL END""",
    ),
    (
        "I2",
        "is {state}, but only a job that has ended has the time of its end",
        """SELECT id, state FROM jobs
           WHERE CASE WHEN state IN ('done', 'failed', 'cancelled', 'duplicate') THEN finished_at IS NULL
                      ELSE finished_at IS NOT NULL END""",
    ),
    (
        "I3",
        "has used more attempts than it had",
        "SELECT id, state FROM jobs WHERE attempt > max_attempts OR attempt < 0",
    ),
    (
        "I4",
        "does not have one attempt per claim, each ended except that of a running job",
        """SELECT id, state FROM jobs j
           WHERE claim_no <> (SELECT COUNT(*) FROM attempts a WHERE a.job_id = j.id)
              OR (SELECT COUNT(*) FROM attempts a WHERE a.job_id = j.id AND a.outcome IS NULL)
                 <> CASE WHEN state = 'running' THEN 1 ELSE 0 END
              OR EXISTS (SELECT 1 FROM attempts a
                         WHERE a.job_id = j.id AND a.outcome IS NULL AND a.claim_no <> j.claim_no)""",
    ),
    (
        "I5",
        "is done without hash and size of its output",
        "SELECT id, state FROM jobs WHERE state = 'done' AND (output_sha256 IS NULL OR output_size IS NULL)",
    ),
    (
        "I6",
        "shares its reserved output name with another job",
        """SELECT id, state FROM jobs
           WHERE output_key IN (SELECT output_key FROM jobs WHERE output_key IS NOT NULL
                                GROUP BY output_key HAVING COUNT(*) > 1)""",
    ),
    (
        "I9",
        "is at work on the same file, voice and settings as another job",
        """SELECT id, state FROM jobs
           WHERE state IN ('ingesting', 'queued', 'running')
             AND dedupe_key IN (SELECT dedupe_key FROM jobs WHERE state IN ('ingesting', 'queued', 'running')
                                GROUP BY dedupe_key HAVING COUNT(*) > 1)""",
    ),
    (
        "I10",
        "was not accepted exactly once, by the journal",
        """SELECT id, state FROM jobs j
           WHERE (SELECT COUNT(*) FROM events e WHERE e.job_id = j.id AND e.from_state IS NULL) <> 1""",
    ),
    (
        "I11",
        "has stages that together took longer than their attempt",
        """SELECT j.id, j.state FROM jobs j JOIN attempts a ON a.job_id = j.id
           WHERE a.ended_at >= a.started_at
             AND (SELECT SUM(seconds) FROM stage_timings t WHERE t.attempt_id = a.id)
                 > (a.ended_at - a.started_at) * 1.01 + :slack""",
    ),
)


def table_violations(c: Connection) -> Iterator[Violation]:
    """Yield what breaks the rules I1 to I6 and I9 to I11."""
    for rule, text, query in _RULES:
        values = {"slack": CLOCK_SLACK_S} if ":slack" in query else {}
        for row in c.execute(sa.text(query), values):
            yield Violation(rule, row.id, text.format(state=row.state))


def journal_steps(c: Connection) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Yield (job, its state, from, to) for every entry of the journal, in order; once with None for a job without."""
    yield from (
        tuple(row)
        for row in c.execute(
            sa.text(
                """SELECT j.id, j.state, e.from_state, e.to_state FROM jobs j LEFT JOIN events e ON e.job_id = j.id
                   ORDER BY j.id, e.id"""
            )
        )
    )
