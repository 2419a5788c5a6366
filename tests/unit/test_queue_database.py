"""The file under the queue: two processes, locks, damage, versions, and the settings that make it durable."""

import multiprocessing
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from rvc_batch import __version__
from rvc_batch.config import HookSettings
from rvc_batch.db import engine as engine_module
from rvc_batch.db import migrate, revisions, schema
from rvc_batch.errors import DatabaseUnusable, DiskFull
from rvc_batch.jobs.models import Job, JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.status import read_database
from tests.queue_fakes import EPOCH, FakeClock, claim_all, claimed, error, finished, new_job, open_queue, queued


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(tmp_path, FakeClock())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite3"


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


# --- two processes ---


def test_two_processes_claim_400_jobs_exactly_once(queue: Queue, path: Path) -> None:
    jobs = [queue.submit(new_job(f"{n}.wav")) for n in range(400)]
    queue._db.write(lambda c: c.execute(sa.update(schema.jobs).values(state="queued", run_after=0.0)))
    spawn = multiprocessing.get_context("spawn")
    taken: multiprocessing.Queue[int] = spawn.Queue()
    start = spawn.Barrier(2)
    workers = [spawn.Process(target=claim_all, args=(path, f"w{n}", start, taken)) for n in range(2)]
    for worker in workers:
        worker.start()
    ids: list[int] = []
    for _ in workers:
        while (job_id := taken.get(timeout=60)) != -1:
            ids.append(job_id)
    for worker in workers:
        worker.join(60)
    assert sorted(ids) == [job.id for job in jobs]
    holders = {job.worker_id for job in queue.list(state=JobState.RUNNING)}
    assert holders == {"w0", "w1"}, "one process did all the work, so nothing was contended"


def test_a_writer_waits_while_another_process_holds_the_lock(queue: Queue, path: Path) -> None:
    job = queue.submit(new_job())
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.execute, ("COMMIT",))
        timer.start()
        assert queue.enqueue(job.id).state is JobState.QUEUED
        timer.join()


def test_a_lock_that_outlasts_the_wait_is_waited_for_again(queue: Queue, path: Path) -> None:
    queued(queue)
    job = claimed(queue)
    impatient = engine_module.open_writer(path, checkpoints=False, timeout_s=0.05, waits=100)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.execute, ("COMMIT",))
        timer.start()
        assert finished(Queue(impatient, FakeClock()), job).state is JobState.DONE
        timer.join()


def test_a_lock_that_never_ends_is_reported_as_such(queue: Queue, path: Path) -> None:
    impatient = Queue(engine_module.open_writer(path, checkpoints=False, timeout_s=0.01, waits=2), FakeClock())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnusable, match="locked by another process"):
            impatient.submit(new_job())
        assert Queue.open_readonly(path).counts()[JobState.QUEUED] == 0, "readers are not blocked"


# --- reading only ---


def test_a_reader_sees_what_a_living_writer_committed(queue: Queue, path: Path) -> None:
    reader = Queue.open_readonly(path)
    assert reader.list() == []
    job = queued(queue)
    assert reader.get(job.id) == job


def test_readers_without_a_gap_do_not_make_the_log_grow(
    queue: Queue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RESTART_EVERY_S", 0.1)
    ended = threading.Event()

    def read_again_and_again(offset: float) -> None:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as connection:
            while not ended.wait(offset):
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM jobs").fetchall()
                ended.wait(0.05)
                connection.execute("COMMIT")

    readers = [threading.Thread(target=read_again_and_again, args=(n / 1e3,)) for n in range(3)]
    for reader in readers:
        reader.start()
    written = longest = 0
    log = path.with_name(path.name + "-wal")
    while written < 100 << 20:
        queue._db.write(lambda c: c.execute(sa.text("CREATE TABLE large AS SELECT zeroblob(4000000) AS x")))
        queue._db.write(lambda c: c.execute(sa.text("DROP TABLE large")))
        written += 4_000_000
        longest = max(longest, log.stat().st_size)
    ended.set()
    for reader in readers:
        reader.join()
    assert longest < 64 << 20


def test_a_reader_that_never_ends_costs_a_wait_now_and_then_and_no_write(
    queue: Queue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LONG_LOG_BYTES", 0)
    monkeypatch.setattr(engine_module, "RESTART_WAIT_S", 0.05)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchall()
        assert [queue.submit(new_job(f"{n}.wav")).id for n in range(3)] == [1, 2, 3]
        assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_reader_leaves_the_folder_as_it_is(queue: Queue, path: Path) -> None:
    queued(queue)
    queue.close()
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    assert Queue.open_readonly(path).counts()[JobState.QUEUED] == 1
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_a_reader_cannot_write(queue: Queue, path: Path) -> None:
    job = queue.submit(new_job())
    reader = Queue.open_readonly(path)
    assert isinstance(reader, Queue)
    with pytest.raises(DatabaseUnusable, match="readonly"):
        reader.enqueue(job.id)


def test_a_missing_database_is_not_created_by_reading_or_by_commands(path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="there is no job database"):
        Queue.open_readonly(path)
    with pytest.raises(DatabaseUnusable, match="there is no job database"):
        Queue.open(path, owner=False)
    assert not path.exists()


# --- durable settings ---


def test_the_writer_is_durable_and_enforces_references(queue: Queue) -> None:
    def pragma(name: str) -> object:
        return queue._db.read(lambda c: c.exec_driver_sql(f"PRAGMA {name}").scalar())

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("foreign_keys") == 1
    assert pragma("busy_timeout") == 10_000
    assert pragma("mmap_size") in (0, None)
    assert pragma("wal_autocheckpoint") == 1000


def test_only_the_owner_checkpoints(queue: Queue, path: Path) -> None:
    other = Queue.open(path, owner=False)
    assert other._db.read(lambda c: c.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar()) == 0


def test_a_write_takes_the_lock_before_it_reads(queue: Queue, path: Path) -> None:
    """A transaction that has read and then writes would fail at once instead of waiting."""

    def body(c: sa.Connection) -> None:
        c.execute(sa.select(schema.jobs.c.id)).all()
        refused = pytest.raises(sqlite3.OperationalError, match="locked")
        with closing(sqlite3.connect(path, timeout=0)) as other, refused:
            other.execute("DELETE FROM meta")

    queue._db.write(body)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET state = 'running'",
        "UPDATE jobs SET worker_id = 'w1'",
        "UPDATE jobs SET state = 'done', finished_at = 1, output_key = NULL",
        "UPDATE jobs SET finished_at = 1",
        "UPDATE jobs SET attempt = 4, claim_no = 4",
        "UPDATE jobs SET attempt = 3, claim_no = 3",
        "UPDATE jobs SET attempt = 1",
        "UPDATE jobs SET state = 'lost'",
        "UPDATE jobs SET output_key = NULL",
        "UPDATE jobs SET duplicate_of = 1",
        "INSERT INTO attempts (job_id, claim_no, worker_id, host, pid, started_at) VALUES (99, 1, 'w', 'h', 1, 1)",
    ],
)
def test_the_database_itself_refuses_rows_that_break_an_invariant(queue: Queue, change: str) -> None:
    queued(queue)
    with pytest.raises(sa.exc.IntegrityError):
        queue._db.write(lambda c: c.exec_driver_sql(change))


def test_an_error_inside_a_verb_changes_nothing(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queued(queue)
    job = claimed(queue)
    queue.record_intent(job, output_sha256="a" * 64, output_size=1)
    before = (queue.get(job.id), queue.attempts(job.id), queue.events(job.id))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rvc_batch.jobs.queue.move", broken)  # after the attempt was ended
    with pytest.raises(ZeroDivisionError):
        queue.finish_published(job)
    assert (queue.get(job.id), queue.attempts(job.id), queue.events(job.id)) == before


def test_a_full_volume_is_reported_with_its_cause(queue: Queue) -> None:
    with queue._db._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    stored: list[Job] = []

    def fill() -> None:
        while len(stored) < 200:
            stored.append(queue.submit(new_job(f"{len(stored)}.wav")))

    with pytest.raises(DiskFull, match="database or disk is full"):
        fill()
    assert queue.list()[::-1] == stored


# --- damage ---


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"this is certainly not a database" * 100)
    with pytest.raises(DatabaseUnusable, match="is not a job database"):
        Queue.open(path)
    with pytest.raises(DatabaseUnusable, match="is not a job database"):
        Queue.open_readonly(path).counts()


def test_a_damaged_page_is_found_at_the_start(queue: Queue, path: Path) -> None:
    for n in range(50):
        queued(queue, f"{n}.wav")
    queue.close()
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\x7f" * 64)
    with pytest.raises(DatabaseUnusable, match="is damaged"):
        Queue.open(path)


def test_tables_of_another_program_are_left_alone(path: Path) -> None:
    execute(path, "CREATE TABLE songs (id INTEGER)")
    with pytest.raises(DatabaseUnusable, match="'songs' and other tables that are not ours"):
        Queue.open(path)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_deleted_or_replaced_under_us_is_noticed(queue: Queue, path: Path, replaced: bool) -> None:
    queue.check_file()
    path.rename(path.with_name("aside"))
    if replaced:
        path.write_bytes(b"")
    with pytest.raises(DatabaseUnusable, match="deleted or replaced"):
        queue.check_file()


# --- versions ---


def test_the_first_script_builds_the_schema_of_the_code(queue: Queue) -> None:
    plain = sa.create_engine("sqlite://")
    schema.metadata.create_all(plain)

    def tables(engine: sa.Engine) -> dict[str, list[str]]:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
            return {row.name: _normalised(row.sql) for row in rows if row.name != "alembic_version"}

    assert tables(queue._db._engine) == tables(plain)


def _normalised(sql: str) -> list[str]:
    """Split a CREATE statement; constraints come in any order."""
    head, _, body = " ".join(sql.split()).partition("(")
    return [head, *sorted(part.strip(" ,)") for part in body.split(", "))]


def test_the_list_of_revisions_is_that_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == revisions.REVISIONS


def test_opening_again_changes_nothing_and_loads_no_migration_code(queue: Queue, path: Path) -> None:
    queue.close()
    code = (
        "import sys; from pathlib import Path; from rvc_batch.jobs.queue import Queue\n"
        f"Queue.open(Path({str(path)!r})).close(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_two_processes_that_open_a_new_database_at_once_both_succeed(path: Path) -> None:
    code = f"from pathlib import Path; from rvc_batch.jobs.queue import Queue; Queue.open(Path({str(path)!r})).counts()"
    root = Path(__file__).parents[2]
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr.decode()


def test_a_database_of_a_newer_version_is_refused_by_name_but_readable(queue: Queue, path: Path) -> None:
    job = queued(queue)
    queue.close()
    execute(path, "UPDATE alembic_version SET version_num = '0999'")
    execute(path, "UPDATE meta SET value = '7.1.0' WHERE key = 'version'")
    for owner in (True, False):
        with pytest.raises(DatabaseUnusable, match=rf"made by rvc-batch 7\.1\.0 .* this is {__version__}"):
            Queue.open(path, owner=owner)
    assert Queue.open_readonly(path).get(job.id) == job


def test_an_older_database_is_copied_then_upgraded_with_its_jobs(
    queue: Queue, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queued(queue)
    queue.close()
    scripts = tmp_path / "scripts"
    (scripts / "versions").mkdir(parents=True)
    for script in (migrate.SCRIPTS / "env.py", *(migrate.SCRIPTS / "versions").glob("v*.py")):
        (scripts / script.relative_to(migrate.SCRIPTS)).write_bytes(script.read_bytes())
    (scripts / "versions" / "v9000_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '9000'\n"
        f"down_revision = '{revisions.HEAD_REVISION}'\n"
        "def upgrade():\n    with op.batch_alter_table('workers') as table:\n"
        "        table.add_column(sa.Column('hat', sa.Text))\n"
    )
    monkeypatch.setattr(migrate, "SCRIPTS", scripts)
    monkeypatch.setattr(migrate, "HEAD_REVISION", "9000")
    monkeypatch.setattr(migrate, "REVISIONS", (*revisions.REVISIONS, "9000"))
    with pytest.raises(DatabaseUnusable, match="made by an older version"):
        Queue.open(path, owner=False)
    upgraded = Queue.open(path)
    assert upgraded.get(job.id) == job
    assert upgraded._db.read(lambda c: c.exec_driver_sql("SELECT count(hat) FROM workers").scalar()) == 0
    backup = path.with_name("jobs.sqlite3.before-9000")
    assert Queue.open_readonly(backup).get(job.id) == job
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (revisions.HEAD_REVISION,)


def test_a_database_of_the_first_schema_is_read_by_status_and_upgraded_with_its_jobs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "scripts"
    (scripts / "versions").mkdir(parents=True)
    for name in ("env.py", "versions/v0001_initial.py"):
        (scripts / name).write_bytes((migrate.SCRIPTS / name).read_bytes())
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "SCRIPTS", scripts)
        patched.setattr(migrate, "HEAD_REVISION", "0001")
        patched.setattr(migrate, "REVISIONS", ("0001",))
        old = Queue.open(path)
        job = queued(old)
        old.close()
    facts = read_database(path, EPOCH)
    assert facts.overview is not None
    assert (facts.error, facts.overview.schema) == ("", "0001")
    upgraded = Queue.open(path)
    assert upgraded.get(job.id) == job
    upgraded.notices().collect([HookSettings(command=("/bin/true",))])
    assert upgraded.notices().due() == []


def test_a_failed_upgrade_leaves_the_old_tables(
    queue: Queue, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(queue)
    queue.close()
    scripts = tmp_path / "scripts"
    (scripts / "versions").mkdir(parents=True)
    for script in (migrate.SCRIPTS / "env.py", *(migrate.SCRIPTS / "versions").glob("v*.py")):
        (scripts / script.relative_to(migrate.SCRIPTS)).write_bytes(script.read_bytes())
    (scripts / "versions" / "v9000_next.py").write_text(
        "from alembic import op\nrevision = '9000'\n"
        f"down_revision = '{revisions.HEAD_REVISION}'\n"
        "def upgrade():\n    op.drop_table('meta')\n    raise RuntimeError('half way')\n"
    )
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "SCRIPTS", scripts)
        patched.setattr(migrate, "HEAD_REVISION", "9000")
        patched.setattr(migrate, "REVISIONS", (*revisions.REVISIONS, "9000"))
        with pytest.raises(RuntimeError, match="half way"):
            Queue.open(path)
    assert Queue.open(path).version() == __version__


def test_errors_of_the_database_do_not_end_the_connection(queue: Queue, path: Path) -> None:
    job = queue.submit(new_job())
    with pytest.raises(sa.exc.IntegrityError):
        queue._db.write(lambda c: c.exec_driver_sql("UPDATE jobs SET state = 'lost'"))
    assert queue.reject(job.id, error()).state is JobState.FAILED
