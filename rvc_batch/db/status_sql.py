"""What `status` asks of the database, as SQLite's text; parameters are named.

Written by tools/compile_statements.py from rvc_batch/db/statements.py. Change it there and run
`python tools/compile_statements.py`; a test compares the two.
"""

COUNTS = """
SELECT jobs.state, count(*) AS count_1 FROM jobs GROUP BY jobs.state
"""

REVISION = """
SELECT version_num FROM alembic_version
"""

RUNNING_LINES = """
SELECT jobs.id, jobs.public_id, jobs.state, jobs.source_name, jobs.voice, jobs.seconds_in, jobs.stage,
jobs.progress_done, jobs.progress_total, jobs.attempt, jobs.max_attempts, jobs.cancel_requested, jobs.run_after,
jobs.lease_until, jobs.started_at, jobs.finished_at, jobs.error_code, jobs.error_message, jobs.error_stage FROM jobs
WHERE jobs.state = 'running' ORDER BY jobs.id
"""

NEXT_LINES = """
SELECT jobs.id, jobs.public_id, jobs.state, jobs.source_name, jobs.voice, jobs.seconds_in, jobs.stage,
jobs.progress_done, jobs.progress_total, jobs.attempt, jobs.max_attempts, jobs.cancel_requested, jobs.run_after,
jobs.lease_until, jobs.started_at, jobs.finished_at, jobs.error_code, jobs.error_message, jobs.error_stage FROM jobs
WHERE jobs.state = 'queued' ORDER BY jobs.run_after > :now ASC, jobs.priority DESC, jobs.id ASC LIMIT :limit OFFSET 0
"""

FAILED_LINES = """
SELECT jobs.id, jobs.public_id, jobs.state, jobs.source_name, jobs.voice, jobs.seconds_in, jobs.stage,
jobs.progress_done, jobs.progress_total, jobs.attempt, jobs.max_attempts, jobs.cancel_requested, jobs.run_after,
jobs.lease_until, jobs.started_at, jobs.finished_at, jobs.error_code, jobs.error_message, jobs.error_stage FROM jobs
WHERE jobs.state = 'failed' ORDER BY jobs.finished_at DESC LIMIT :limit OFFSET 0
"""

UNFINISHED_AUDIO = """
SELECT jobs.voice, count(*) AS jobs, sum(CASE WHEN (jobs.seconds_in IS NULL) THEN 1 ELSE 0 END) AS unknown, sum(CASE
WHEN (CASE WHEN (jobs.state = 'running') THEN jobs.seconds_in - jobs.progress_done ELSE jobs.seconds_in END > 0) THEN
CASE WHEN (jobs.state = 'running') THEN jobs.seconds_in - jobs.progress_done ELSE jobs.seconds_in END ELSE 0.0 END) AS
seconds FROM jobs WHERE jobs.state IN ('queued', 'running') GROUP BY jobs.voice
"""

RECENT_SPEEDS = """
SELECT jobs.seconds_in / (jobs.wall_seconds + 0.0) AS speed FROM jobs WHERE jobs.state = 'done' AND jobs.voice =
:voice AND jobs.wall_seconds > 0 AND jobs.seconds_in IS NOT NULL ORDER BY jobs.finished_at DESC LIMIT :limit OFFSET 0
"""

FINISHED_SINCE = """
SELECT jobs.state, jobs.started_at - jobs.created_at AS wait, CASE WHEN (jobs.wall_seconds > 0) THEN jobs.seconds_in /
(jobs.wall_seconds + 0.0) END AS speed FROM jobs WHERE jobs.finished_at >= :since
"""

STAGE_SECONDS_SINCE = """
SELECT stage_timings.stage, sum(stage_timings.seconds) AS sum_1 FROM stage_timings JOIN attempts ON attempts.id =
stage_timings.attempt_id WHERE attempts.ended_at >= :since GROUP BY stage_timings.stage
"""

META_VALUE = """
SELECT meta.value FROM meta WHERE meta."key" = :key
"""

ALL_ARRIVALS = """
SELECT arrivals.path, arrivals.first_seen, arrivals.last_change, arrivals.size, arrivals.verdict, arrivals.reason FROM
arrivals ORDER BY arrivals.path
"""

HOOKS_BEHIND = """
SELECT deliveries.hook, count(*) AS events, sum(CASE WHEN (deliveries.dropped_at IS NOT NULL) THEN 1 ELSE 0 END) AS
given_up, max(deliveries.last_error) AS error FROM deliveries WHERE deliveries.tries > 0 GROUP BY deliveries.hook
ORDER BY deliveries.hook
"""
