"""Any history of submissions, claims, crashes, cancellations and clock steps keeps the invariants of the job table.

Numbers I1 to I12 are those of the job state machine; I7, I8 and I10 concern files and are tested with the daemon.
"""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rvc_batch.errors import JobStateConflict, LeaseLost, RetryClass
from rvc_batch.jobs.models import ACTIVE, TERMINAL, TRANSITIONS, Job, JobState, Outcome
from rvc_batch.jobs.output_names import output_key
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import LEASE_S, FakeClock, error, new_job, report

WORKERS = ("w1", "w2")
WORDS = ("beat", "rename", "finish", "published", "interrupt", "cancelled", "crash", *RetryClass)
pick = st.integers(0, 3)


class QueueHistory(RuleBasedStateMachine):
    """Two workers, one of which may be a zombie that goes on after losing its lease."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.queue = Queue.open(self.folder / "jobs.sqlite3", clock=self.clock)
        self.held: list[Job] = []  # every claim ever handed out
        self.ended: set[tuple[int, int]] = set()  # claims that have an outcome, so that no later one counts
        self.accepted = 0
        self.checked: dict[int, Job] = {}  # as they were when their history was last replayed
        for name in "ab":
            self.submit(name=name, content="1", voice="anna", then="enqueue")

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
            shutil.rmtree(self.folder)

    # --- what happens ---

    @rule(
        name=st.sampled_from("abc"),
        content=st.sampled_from("12"),
        voice=st.sampled_from(["anna", "tom"]),
        then=st.sampled_from(["enqueue", "enqueue", "enqueue", "reject", "nothing"]),
    )
    def submit(self, name: str, content: str, voice: str, then: str) -> None:
        job = self.queue.submit(new_job(name, content=content, voice=voice, max_attempts=2))
        self.accepted += 1
        if job.state is JobState.INGESTING and then == "enqueue":
            self.queue.enqueue(job.id)
        if job.state is JobState.INGESTING and then == "reject":
            self.queue.reject(job.id, error("E_INPUT_EMPTY"))

    @rule(
        worker=st.sampled_from(WORKERS),
        warm=st.sampled_from([None, "tom"]),
        wait=st.sampled_from([0.0, 31.0, 400.0]),
        words=st.lists(st.tuples(st.sampled_from(WORDS), pick), max_size=3),
    )
    def work(self, worker: str, warm: str | None, wait: float, words: list[tuple[str | RetryClass, int]]) -> None:
        """Claim a job, then report on this or an earlier claim."""
        self.clock.step(wait)
        job = self.queue.claim(worker, pid=1, lease_seconds=LEASE_S, warm_voice=warm)
        if job is not None:
            self.held.append(job)
        for how, which in words if self.held else ():
            self.report(self.some_claim(which), how)

    def some_claim(self, which: int) -> Job:
        """Return one of the latest claims, sometimes one that has long ended."""
        return self.held[0] if which == 3 else self.held[-1 - which % len(self.held)]

    def owns(self, job: Job) -> bool:
        return (job.id, job.claim_no) not in self.ended

    def write(self, job: Job, verb: object) -> None:
        """Write as the holder of a claim: it takes effect exactly if the claim has no outcome yet."""
        if self.owns(job):
            verb()  # type: ignore[operator]
            self.ended.add((job.id, job.claim_no))
            return
        before = (self.queue.get(job.id), self.queue.events(job.id), self.queue.attempts(job.id))
        try:
            verb()  # type: ignore[operator]
        except LeaseLost:
            assert (self.queue.get(job.id), self.queue.events(job.id), self.queue.attempts(job.id)) == before
        else:
            raise AssertionError("a stale claim could write")

    def report(self, job: Job, how: str | RetryClass) -> None:
        if isinstance(how, RetryClass):
            self.write(job, lambda: self.queue.fail(job, error(), retry=how))
        elif how == "beat":
            beat = self.queue.heartbeat(job, lease_seconds=LEASE_S, stage="pitch", progress_done=1.0)
            assert beat.alive == self.owns(job)
        elif how == "rename" and self.owns(job):
            assert self.queue.reserve_another_name(job).output_rel != job.output_rel
        elif how == "crash":
            before = self.queue.get(job.id)
            after = self.queue.crashed(job.id, job.claim_no, signal=9, message="killed")
            assert (after != before) == self.owns(job)
            self.ended.add((job.id, job.claim_no))
        elif how == "interrupt":
            self.write(job, lambda: self.queue.interrupt(job))
        elif how == "cancelled":
            self.write(job, lambda: self.queue.mark_cancelled(job))
        elif how in ("finish", "published"):
            self.write(job, lambda: self.publish(job, how))

    def publish(self, job: Job, how: str) -> None:
        self.queue.record_intent(job, output_sha256="a" * 64, output_size=5)
        if how == "finish":
            self.queue.finish(job, report())
        else:
            self.queue.finish_published(job)

    @rule(what=st.sampled_from(["rescue", "rescue", "rescue", "ingest", "restart", "pause"]))
    def the_daemon(self, what: str) -> None:
        running = self.queue.list(state=JobState.RUNNING)
        if what == "rescue":
            late = {(j.id, j.claim_no) for j in running if (j.lease_until or 0) < self.clock()}
            assert {(j.id, j.claim_no) for j in self.queue.rescue_expired()} == late
            self.ended |= late
        elif what == "ingest":
            for job in self.queue.list(state=JobState.INGESTING):
                self.queue.enqueue(job.id)
        elif what == "restart":
            held = {(j.id, j.claim_no) for j in running}
            assert {(j.id, j.claim_no) for j in self.queue.release_orphans()} == held
            self.ended |= held
            self.queue.close()
            self.queue = Queue.open(self.folder / "jobs.sqlite3", clock=self.clock)
        else:
            self.queue.pause("by hand")
            assert self.queue.claim("w1", pid=1, lease_seconds=LEASE_S) is None
            self.queue.resume()

    @rule(which=pick, verb=st.sampled_from(["cancel", "retry"]))
    def ask(self, which: int, verb: str) -> None:
        jobs = self.queue.list()
        if not jobs:
            return
        job = jobs[which % len(jobs)]
        try:
            getattr(self.queue, verb)(job.id)
        except JobStateConflict:
            assert self.queue.get(job.id) == job
            if verb == "cancel":
                assert job.state in TERMINAL
            elif job.state in (JobState.FAILED, JobState.CANCELLED):
                assert self.queue.active_duplicate(job.dedupe_key) is not None

    @rule(seconds=st.sampled_from([31.0, 3.2e7, -45.0]))
    def step_the_clock(self, seconds: float) -> None:
        self.clock.step(seconds)

    # --- what must hold ---

    @invariant()
    def invariants_hold(self) -> None:
        jobs = self.queue.list()
        assert len(jobs) == self.accepted
        assert sum(self.queue.counts().values()) == self.accepted
        names = [output_key(job.output_rel) for job in jobs if job.state in ACTIVE]
        assert len(names) == len(set(names)), "I6: one owner per output name"
        keys = [job.dedupe_key for job in jobs if job.state in ACTIVE]
        assert len(keys) == len(set(keys)), "I9: one active job per content, voice, settings and name"
        for job in jobs:
            if job != self.checked.get(job.id):
                self.job_is_consistent(job)
                self.checked[job.id] = job

    def job_is_consistent(self, job: Job) -> None:
        is_running = job.state is JobState.RUNNING
        assert is_running == (job.worker_id is not None) == (job.lease_until is not None), "I1"
        assert (job.state in TERMINAL) == (job.finished_at is not None), "I2"
        assert 0 <= job.attempt <= job.max_attempts, "I3"
        attempts = self.queue.attempts(job.id)
        assert [a.claim_no for a in attempts] == list(range(1, job.claim_no + 1)), "I4: one attempt per claim"
        open_attempts = [a.claim_no for a in attempts if a.outcome is None]
        assert open_attempts == ([job.claim_no] if is_running else []), "I4: one outcome, once it has ended"
        assert {(job.id, a.claim_no) for a in attempts if a.outcome} == {e for e in self.ended if e[0] == job.id}
        counted = (Outcome.FAILED, Outcome.CRASHED, Outcome.FENCED, Outcome.DONE)
        assert job.attempt >= sum(a.outcome in counted for a in attempts), "these use up an attempt"
        assert job.attempt <= job.claim_no - sum(a.outcome is Outcome.INTERRUPTED for a in attempts), "these do not"
        assert sum(a.outcome is Outcome.DONE for a in attempts) == (job.state is JobState.DONE), "done at most once"
        if job.state is JobState.DONE:
            assert job.output_sha256 is not None, "I5"
            assert job.output_size is not None, "I5"
        self.journal_replays(job)

    def journal_replays(self, job: Job) -> None:
        state: JobState | None = None
        for event in self.queue.events(job.id):
            assert event.from_state == state, "I12: the journal has no gap"
            allowed = state is None and event.to_state is JobState.INGESTING
            assert allowed or event.to_state == state or (state, event.to_state) in TRANSITIONS, "I12"
            state = event.to_state
        assert state == job.state, "I12: the journal ends where the job is"


TestQueueHistory = QueueHistory.TestCase
TestQueueHistory.settings = settings(
    max_examples=int(os.environ.get("HISTORIES", "25")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
