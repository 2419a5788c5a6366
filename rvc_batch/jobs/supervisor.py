"""Keeps one worker at work: spawns it, gives it jobs, watches it, replaces it, and records how every job ends.

It runs in the daemon's main thread, one `tick` after the other. A tick never waits for the worker: what the worker
said is written down, and if the database cannot be written just now, the same words are tried again at the next tick.
A live heartbeat does not hide a hung worker: progress has a deadline of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait

from rvc_batch.config import Settings
from rvc_batch.engine.types import DeviceMemory
from rvc_batch.errors import RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs.desk import Desk
from rvc_batch.jobs.failpoints import CLAIM_ASSIGNED, failpoint
from rvc_batch.jobs.lock import holder_of
from rvc_batch.jobs.machine import SleepWatch
from rvc_batch.jobs.messages import (
    Cancel,
    FromWorker,
    LogLine,
    Progressed,
    Ready,
    Rendered,
    Start,
    StartFailed,
    Stop,
    Warming,
)
from rvc_batch.jobs.models import JobError
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.renderer import DEFAULT_ENGINE
from rvc_batch.jobs.request import Choices
from rvc_batch.jobs.sources import Sources
from rvc_batch.jobs.worker import WORKER_LOCK
from rvc_batch.jobs.worker_process import WorkerProcess

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Times in seconds that are no user's choice; tests choose shorter ones."""

    lease: float = 30.0
    heartbeat: float = 2.0
    idle_heartbeat: float = 10.0  # each is a durable write; an idle box need not wear out its disk
    rescue: float = 15.0
    claim: float = 1.0  # between two looks for work when nobody wakes us
    stop: float = 15.0  # for the present segment when we stop
    respawn: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # after that many starts in a row that failed
    orphan: float = 10.0  # for the worker of a dead daemon to notice


@dataclass(frozen=True)
class WorkerSnapshot:
    """What the heartbeat file says of the worker."""

    pid: int | None
    state: str  # starting, warming, idle, busy, stopped
    device: str
    backend: str
    warm_voices: tuple[str, ...]
    rss: int | None
    job_id: int | None
    updated_at: float
    restarts: int
    last_restart_reason: str
    restart_reasons: dict[str, int]  # by kind: recycled, asked, hung, crashed
    started_at: float | None  # of this process
    replaced_at: float | None  # when the one before it was gone
    memory: DeviceMemory | None


class Supervisor:
    """One worker, one job at a time."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        queue: Queue,
        sources: Sources,
        *,
        choices: Callable[[], Choices],
        check_outbox: Callable[[], None] = lambda: None,
        engine: str = DEFAULT_ENGINE,
        limits: Limits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._home, self._settings, self._queue, self._engine = home, settings, queue, engine
        self._limits = limits or Limits()
        self._desk = Desk(
            home, queue, sources, choices=choices, check_outbox=check_outbox, lease_seconds=self._limits.lease
        )
        self._monotonic, self._wall = monotonic, wall
        self._sleep_watch = SleepWatch(monotonic(), wall())
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

        self._worker: WorkerProcess | None = None
        self._worker_id = ""
        self._state = "stopped"
        self._ready = Ready("", settings.worker.backend, ())
        self._jobs_rendered = 0
        self._rss: int | None = None
        self._memory: DeviceMemory | None = None
        self._started_at: float | None = None
        self._replaced_at: float | None = None
        self._heard_at = 0.0  # monotonic, of the latest word from the worker
        self._retiring = ""  # why the worker is to be replaced; it gets no more jobs
        self._retire_by: float | None = None  # monotonic; set once it was asked to stop

        self._failed_starts = 0
        self._said_error: JobError | None = None  # why the present worker says it cannot start
        self._spawn_after = 0.0
        self._restarts = -1
        self._restart_reason = ""
        self._restart_reasons: Counter[str] = Counter()
        self._next_claim = self._next_beat = self._next_rescue = 0.0
        self._stopping = False
        self.start_error: JobError | None = None  # of the latest start, until one succeeds

    # --- what the daemon calls ---

    def tick(self, seconds: float) -> None:
        """Do what there is to do now; wait at most `seconds` for something to happen.

        Raises:
            EnvironmentFault: the database cannot be written; nothing is lost, call again.
        """
        if self._worker is None:
            self._wait(seconds if self._stopping else self._spawn_or_wait(seconds))
        else:
            for message in self._worker.receive(0 if self._desk.is_ending else seconds, self._wake_read):
                self._hear(message)
            self._drain_wakeup()
            self._write()
            if self._worker.has_ended:
                self._bury()
        self._notice_sleep()
        self._beat()
        self._watch()
        self._assign()

    def wake(self) -> None:
        """End the wait of the present tick, and look for work; can be called from any thread and from a signal."""
        self._next_claim = 0.0
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_write, b"!")

    def stop(self) -> None:
        """Give no more jobs out; the present one stops at its next segment and is given back."""
        if self._worker is not None and not self._stopping:
            self._retire("the service is stopping")
        self._stopping = True
        self.wake()

    def stop_now(self) -> None:
        """End the worker at once; its job is given back."""
        self._stopping = True
        if self._worker is not None:
            self._retiring, self._retire_by = "the service is stopping at once", self._monotonic()
            self._worker.kill()
        self.wake()

    def reload(self, settings: Settings) -> None:
        """Use other settings; the worker is replaced between jobs if they concern it."""
        before, self._settings = self._settings, settings
        is_same = (settings.worker, settings.library) == (before.worker, before.library)
        if not is_same and self._worker is not None:
            self._retiring = self._retiring or "the settings changed"

    @property
    def is_idle(self) -> bool:
        """Has the worker no job, and is nothing left to write down?"""
        return self._desk.is_empty

    @property
    def has_stopped(self) -> bool:
        """After `stop`: is the worker gone and its job written down?"""
        return self._stopping and self._worker is None and self.is_idle

    @property
    def failed_starts(self) -> int:
        """How many starts in a row failed."""
        return self._failed_starts

    def snapshot(self) -> WorkerSnapshot:
        """Return what the heartbeat file says."""
        return WorkerSnapshot(
            pid=self._worker.pid if self._worker else None,
            state=self._state,
            device=self._ready.device,
            backend=self._ready.backend,
            warm_voices=self._ready.warm_voices,
            rss=self._rss,
            job_id=self._desk.job_id,
            updated_at=self._wall() - max(0.0, self._monotonic() - self._heard_at),
            restarts=max(0, self._restarts),
            last_restart_reason=self._restart_reason,
            restart_reasons=dict(self._restart_reasons),
            started_at=self._started_at if self._worker else None,
            replaced_at=self._replaced_at,
            memory=self._memory if self._worker else None,
        )

    def close(self) -> None:
        """Release the wake-up pipe."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    # --- the life of the worker ---

    def _spawn_or_wait(self, seconds: float) -> float:
        """Spawn a worker if it is time; return how long to wait."""
        wait = self._spawn_after - self._monotonic()
        if wait > 0:
            return min(seconds, wait)
        self._home.logs.mkdir(parents=True, exist_ok=True)
        start = Start(self._home.root, self._settings, self._engine, logging.getLogger().getEffectiveLevel())
        self._worker = WorkerProcess(start, self._home.logs / "worker.stderr.log")
        self._worker_id = secrets.token_hex(8)
        self._state, self._retiring, self._retire_by, self._jobs_rendered = "starting", "", None, 0
        self._said_error, self._memory, self._started_at = None, None, self._wall()
        self._heard_at = self._monotonic()
        self._restarts += 1
        logger.info("worker %d started", self._worker.pid)
        self._queue.register_worker(self._worker_id, pid=self._worker.pid, backend=self._settings.worker.backend)
        return 0.0

    def _retire(self, reason: str) -> None:
        """Ask the worker to stop at its next segment."""
        assert self._worker is not None
        self._retiring = reason
        self._retire_by = self._monotonic() + self._limits.stop
        self._worker.send(Stop())

    def _bury(self) -> None:
        """Record the end of a worker, and of the job it had."""
        assert self._worker is not None
        worker, how = self._worker, self._worker.how_it_ended()
        was_asked, was_idle = self._retire_by is not None, self._desk.is_empty
        if was_asked:
            self._desk.worker_stopped()
        else:
            reason = f"{self._retiring}; {how}" if self._retiring else how
            self._desk.worker_crashed(signal=worker.signal, how=reason)
        self._write()
        self._queue.worker_heartbeat(self._worker_id, state="stopped")
        if not was_asked and was_idle and self._jobs_rendered == 0:
            self._start_failed(how)
        reason = self._retiring or how
        logger.log(logging.INFO if was_asked else logging.ERROR, "worker %d is gone: %s", worker.pid, reason)
        self._restart_reason, self._replaced_at = reason.split("\n")[0], self._wall()
        self._restart_reasons[kind_of_end(reason, was_asked=was_asked)] += 1
        worker.close()
        self._worker, self._state, self._rss = None, "stopped", None

    def _start_failed(self, how: str) -> None:
        """Wait longer after each worker that died before its first job, so that a broken set-up does not spin."""
        delays = self._limits.respawn
        delay = delays[min(self._failed_starts, len(delays) - 1)]
        self._failed_starts += 1
        self._spawn_after = self._monotonic() + delay
        self.start_error = self._said_error or JobError(code=RvcBatchError.code, message=how, stage="start")
        logger.error(
            "the worker cannot start (%s: %s); next try in %g s", self.start_error.code, self.start_error.message, delay
        )

    def _watch(self) -> None:
        """Replace a worker that hangs, is too large or has rendered enough."""
        worker, now = self._worker, self._monotonic()
        if worker is None or worker.has_ended:
            return
        is_working = self._state != "idle"
        limit = self._settings.worker.stuck_after_seconds
        if self._retire_by is not None and now > self._retire_by:
            worker.kill()
        elif is_working and not self._desk.is_ending and now - self._heard_at > limit:
            self._retiring = f"{HUNG} for {limit:g} s"
            logger.error("worker %d: %s; it is ended", worker.pid, self._retiring)
            worker.abort()
        elif self._desk.is_empty and self._retire_by is None:
            reason = self._retiring or self._reason_to_recycle()
            if reason and not is_working:
                self._retire(reason)

    def _reason_to_recycle(self) -> str:
        settings = self._settings.worker
        if self._jobs_rendered >= settings.recycle_after_jobs:
            return f"recycled after {self._jobs_rendered} jobs"
        limit = settings.rss_limit_mb * 1_000_000
        if limit and self._rss is not None and self._rss > limit:
            return f"recycled at {self._rss // 1_000_000} MB (limit {settings.rss_limit_mb} MB)"
        return ""

    # --- what the worker says ---

    def _hear(self, message: FromWorker) -> None:
        self._heard_at = self._monotonic()
        if isinstance(message, Ready | Progressed | Rendered):
            self._memory = message.memory or self._memory
        match message:
            case LogLine():
                about = {"job": message.job_id}
                logging.getLogger(message.logger).log(message.level, "%s", message.text, extra=about)
            case Warming():
                self._state = "warming"
            case Ready():
                self._ready, self._state = message, "idle"
                self.start_error = None
                self._next_claim = self._next_beat = 0.0
                logger.info("worker %d is ready: %s on %s", self._pid, message.backend, message.device)
            case StartFailed():
                self._said_error = message.error
            case _:
                self._failed_starts = 0
                if isinstance(message, Rendered):
                    self._jobs_rendered += 1
                    self._rss = self._worker.rss() if self._worker else None  # before it is given another job
                    self._ready = dataclasses.replace(self._ready, warm_voices=message.warm_voices)
                self._desk.hear(message)

    def _write(self) -> None:
        if self._desk.is_ending:
            self._desk.write()
            self._next_claim = 0.0
            if self._state == "busy":
                self._state = "idle"

    # --- what the database hears ---

    def _notice_sleep(self) -> None:
        """After the machine slept, let every worker report before any is taken for dead."""
        gap = self._sleep_watch.gap(self._monotonic(), self._wall())
        if gap:
            logger.info("the machine slept, or its clock was set forward: %.0f s passed unnoticed", gap)
            self._next_rescue = self._monotonic() + self._limits.lease
            self._next_beat = self._next_claim = 0.0

    def _beat(self) -> None:
        now = self._monotonic()
        if self._worker is None or now < self._next_beat:
            return
        self._next_beat = now + (self._limits.idle_heartbeat if self._state == "idle" else self._limits.heartbeat)
        self._rss = self._worker.rss()
        self._worker.trim()
        claim_no = self._desk.beat()
        if claim_no is not None:
            self._worker.send(Cancel(claim_no))
        self._queue.worker_heartbeat(
            self._worker_id,
            state=self._state,
            job_id=self._desk.job_id,
            rss=self._rss,
            warm_voices=self._ready.warm_voices,
            backend=self._ready.backend,
            device=self._ready.device,
        )
        if now >= self._next_rescue:  # after our own heartbeat, so that a box that slept does not rescue from itself
            self._next_rescue = now + self._limits.rescue
            for job in self._queue.rescue_expired():
                logger.warning("job %d: rescued from a worker without heartbeat, now %s", job.id, job.state)

    def _assign(self) -> None:
        """Give an idle worker the next job."""
        now = self._monotonic()
        is_open = self._state == "idle" and self._desk.is_empty and not self._stopping and not self._retiring
        if not is_open or now < self._next_claim or self._worker is None or not self._worker.is_alive:
            return
        self._next_claim = now + self._limits.claim
        warm = self._ready.warm_voices[-1] if self._ready.warm_voices else None
        assignment = self._desk.take(self._worker_id, pid=self._worker.pid, warm_voice=warm)
        if assignment is not None:
            self._heard_at, self._state = now, "busy"
            self._next_beat = min(self._next_beat, now + self._limits.heartbeat)  # the claim itself was a first one
            self._worker.send(assignment)
            failpoint(CLAIM_ASSIGNED)

    # --- waiting ---

    @property
    def _pid(self) -> int:
        return self._worker.pid if self._worker else 0

    def _wait(self, seconds: float) -> None:
        wait([self._wake_read], max(0.0, seconds))
        self._drain_wakeup()

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 1024):
                pass


HUNG = "no progress"


def kind_of_end(reason: str, *, was_asked: bool) -> str:
    """Return a word for why a worker ended, of which there are few."""
    if reason.startswith(HUNG):
        return "hung"
    if not was_asked:
        return "crashed"
    return "recycled" if reason.startswith("recycled") else "asked"


def end_orphan(home: Home, seconds: float) -> None:
    """Wait for the worker of a daemon that died, and end it if it does not notice in time.

    Only while we hold the daemon's lock: then a worker that holds its own lock has no daemon.
    """
    lock = home.state / WORKER_LOCK
    deadline = time.monotonic() + seconds
    while (pid := holder_of(lock)) is not None:
        if time.monotonic() > deadline and pid > 0:
            logger.warning("worker %d of an earlier daemon does not end; it is killed", pid)
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + seconds
        time.sleep(0.05)
