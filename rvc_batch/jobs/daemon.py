"""The daemon: one process that ties watcher, supervisor and database together and survives everything around it.

Main thread: recovery, then one supervisor tick after the other, heartbeat file, signals. Second thread: the watcher.
It loads no framework, holds state/daemon.lock while it lives, and treats a fault of the machine as something to wait
for, never as a reason to exit.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from rvc_batch.config import Settings, load_settings
from rvc_batch.errors import ConfigError, EnvironmentFault, JobNotFound, RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs import publish
from rvc_batch.jobs.awake import Awake
from rvc_batch.jobs.backup import back_up_if_due, remove_left_copies
from rvc_batch.jobs.failpoints import RECOVERY_FINISHED, RECOVERY_RELEASED, failpoint
from rvc_batch.jobs.folders import Folders
from rvc_batch.jobs.heartbeat import HeartbeatFile
from rvc_batch.jobs.hooks import call
from rvc_batch.jobs.ingest import Ingest
from rvc_batch.jobs.lock import FileLock
from rvc_batch.jobs.machine import raise_open_files
from rvc_batch.jobs.machine_probe import probe_machine
from rvc_batch.jobs.models import ACTIVE, Job, JobState
from rvc_batch.jobs.presets import Presets
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.renderer import DEFAULT_ENGINE, voice_names
from rvc_batch.jobs.reporter import Call, Reporter
from rvc_batch.jobs.request import Choices
from rvc_batch.jobs.retention import prune
from rvc_batch.jobs.selftest import Probe, SelfTest
from rvc_batch.jobs.sources import Sources
from rvc_batch.jobs.supervisor import Limits, Supervisor, end_orphan
from rvc_batch.jobs.volumes import refuse_network_state
from rvc_batch.jobs.watcher import Watcher

logger = logging.getLogger(__name__)

DAEMON_LOCK = "daemon.lock"
TICK_SECONDS = 1.0
BEAT_SECONDS = 0.25  # at least, between two heartbeats: short jobs make many ticks
BACKUP_SECONDS = 3600.0
PRUNE_SECONDS = 3600.0
PATIENCE_STARTS = 3  # with `until_idle`: failed starts of the worker after which it is pointless to wait


@dataclass(frozen=True)
class DaemonOptions:
    """How a daemon differs from the usual; tests change most of it."""

    until_idle: bool = False  # exit when inbox and queue are empty
    engine: str = DEFAULT_ENGINE
    voices: Callable[[Home, Settings], tuple[str, ...]] = voice_names
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
    reopen_logs: Callable[[Settings], None] = lambda _: None
    started_by: str = "a terminal"
    probe: Probe = probe_machine
    call_hook: Call = call
    on_beat: Callable[[], None] = lambda: None  # once a second while main loop and watcher live
    adjust: Callable[[Settings], Settings] = lambda settings: settings  # what the command line overrules, on reload


class Daemon:
    """One life of the service of one home."""

    def __init__(self, home: Home, settings: Settings, options: DaemonOptions | None = None) -> None:
        self._home, self._settings = home, settings
        self._options = options or DaemonOptions()
        self._folders = Folders(home)
        self._signals = 0
        self._wants_reload = False
        self._last_error: str | None = None
        self._supervisor: Supervisor | None = None
        self._awake = Awake()
        self._self_test = SelfTest(home, lambda: self._settings, probe=self._options.probe, clock=self._options.clock)

    def run(self) -> None:
        """Serve until stopped by a signal, or until idle if so asked.

        Raises:
            DaemonRunning: another daemon serves this home.
            HomeInvalid, DatabaseUnusable: folders or database cannot be used.
            RvcBatchError: with `until_idle`, the worker cannot start or a person paused the queue.
        """
        self._folders.create()
        if not self._settings.network_state:
            refuse_network_state(self._home)
        raise_open_files()
        with FileLock(self._home.state / DAEMON_LOCK, wait=False), self._signal_handlers():
            queue = Queue.open(self._home.database, clock=self._options.clock)
            try:
                self._serve(queue)
            finally:
                queue.close()

    def _serve(self, queue: Queue) -> None:
        home, options = self._home, self._options
        logger.info("serving %s", home.root)
        end_orphan(home, options.limits.orphan)
        sources = Sources(home, keep_sources=self._settings.keep_sources, check_inbox=self._folders.check_inbox)
        max_attempts = self._settings.worker.max_attempts
        ingest = Ingest(home, queue, sources, choices=self._choices, max_attempts=max_attempts)
        recover(home, queue, ingest, sources)
        supervisor = Supervisor(
            home,
            self._settings,
            queue,
            sources,
            choices=self._choices,
            check_outbox=self._folders.check_outbox,
            engine=options.engine,
            limits=options.limits,
        )
        watcher = Watcher(
            home.inbox,
            lambda: self._settings.watch,
            intake=ingest,
            board=queue,
            check_inbox=self._folders.check_inbox,
            on_taken=supervisor.wake,
        )
        self._supervisor = supervisor
        thread = threading.Thread(target=_survive, args=(watcher,), name="watcher")
        notices = queue.notices()
        reporter = Reporter(home, lambda: self._settings, notices, call=options.call_hook, clock=options.clock)
        heartbeat = HeartbeatFile(home, options.clock(), options.started_by)
        for background in (thread, self._self_test, reporter):
            background.start()
        try:
            self._loop(queue, sources, supervisor, watcher, heartbeat, thread)
        finally:
            self._awake.release()
            self._self_test.stop()
            watcher.stop()
            thread.join()
            self._supervisor = None
            supervisor.stop()
            _await_end(supervisor)
            supervisor.close()
            _clear(home, frozenset)
            heartbeat.remove()
            reporter.stop()
        logger.info("stopped")

    def _loop(
        self,
        queue: Queue,
        sources: Sources,
        supervisor: Supervisor,
        watcher: Watcher,
        heartbeat: HeartbeatFile,
        watching: threading.Thread,
    ) -> None:
        swept, pruned, beat = time.monotonic(), float("-inf"), float("-inf")
        stopping = 0
        while not supervisor.has_stopped:
            error = None
            try:
                if not stopping:
                    queue.check_file()  # before anything is written into a file that was deleted
                supervisor.tick(TICK_SECONDS)
                self._awake.hold(self._settings.prevent_sleep and not supervisor.is_idle)
                if time.monotonic() - swept >= self._settings.watch.rescan_seconds:
                    _sweep(sources, queue)
                    _clear(self._home, queue.at_work)
                    back_up_if_due(self._home, self._options.clock(), BACKUP_SECONDS)
                    swept = time.monotonic()
                    if swept - pruned >= PRUNE_SECONDS:
                        prune(self._home, queue, self._settings.retention, self._options.clock())
                        pruned = swept
                if self._options.until_idle and not stopping and self._is_done(queue, supervisor, watcher):
                    _sweep(sources, queue)  # what could not be moved when its job ended
                    return
            except EnvironmentFault as e:
                error = str(e)
                time.sleep(TICK_SECONDS)
            except OSError as e:
                error = f"unexpected: {e}"
                logger.exception("the daemon goes on after an unexpected error")
                time.sleep(TICK_SECONDS)
            self._note(error or watcher.status().error or _start_trouble(supervisor))
            if time.monotonic() - beat >= BEAT_SECONDS:
                self._beat(heartbeat, queue, supervisor, watcher)
                beat = time.monotonic()
            if watching.is_alive() or stopping:  # a slow look at the inbox is no dead one
                self._options.on_beat()
            if self._signals > stopping:
                stopping = self._signals
                self._stop(supervisor, watcher, stopping)
            if self._wants_reload:
                self._reload(supervisor, sources)

    def _is_done(self, queue: Queue, supervisor: Supervisor, watcher: Watcher) -> bool:
        """With `until_idle`: is there nothing left to do? The watcher first: what it took is in the queue by then."""
        if supervisor.failed_starts >= PATIENCE_STARTS and supervisor.start_error is not None:
            error = supervisor.start_error
            raise RvcBatchError(f"the worker cannot start: {error.code}: {error.message}")
        if watcher.is_expecting or not supervisor.is_idle:
            return False
        counts = queue.counts()
        if not any(counts[state] for state in ACTIVE):
            return True
        paused = queue.paused()
        if paused.paused and not paused.code:
            raise RvcBatchError(
                f"{counts[JobState.QUEUED]} jobs wait, but the queue is paused ({paused.reason}); `rvc-batch resume`"
            )
        return False

    def _choices(self) -> Choices:
        names = self._options.voices(self._home, self._settings)
        presets = Presets(self._home.recipes, self._home.voices)
        return Choices(names, self._settings.default_voice, self._settings.conversion_settings(), presets)

    def _stop(self, supervisor: Supervisor, watcher: Watcher, signals: int) -> None:
        watcher.stop()
        if signals == 1:
            logger.info("stopping after the present segment; signal again to stop at once")
            supervisor.stop()
        else:
            logger.info("stopping at once")
            supervisor.stop_now()

    def _reload(self, supervisor: Supervisor, sources: Sources) -> None:
        """Read the settings again and reopen the log; bad settings change nothing."""
        self._wants_reload = False
        found, complaint = self._settings, None
        try:
            found = self._options.adjust(load_settings(self._home))
        except (ConfigError, OSError) as e:
            complaint = e
        try:
            self._options.reopen_logs(found)
        except OSError as e:
            logger.error("the log goes on where it was: %s", e)
        if complaint is not None:
            logger.error("the settings stay as they were: %s", complaint)
            return
        self._settings = found
        supervisor.reload(self._settings)
        self._self_test.repeat()
        sources.keep_sources = self._settings.keep_sources
        logger.info("settings read again")

    def _beat(self, heartbeat: HeartbeatFile, queue: Queue, supervisor: Supervisor, watcher: Watcher) -> None:
        try:
            heartbeat.write(
                self._options.clock(),
                worker=supervisor.snapshot(),
                watcher=watcher.status(),
                self_test=self._self_test.record,
                database_busy=queue.busy_waits,
                last_error=self._last_error,
            )
        except OSError as e:
            logger.warning("the heartbeat file cannot be written: %s", e)

    def _note(self, error: str | None) -> None:
        if error is not None and error != self._last_error:
            logger.error("%s", error)
        self._last_error = error

    @contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        handlers = {signal.SIGTERM: self._on_stop, signal.SIGINT: self._on_stop, signal.SIGHUP: self._on_hangup}
        old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._supervisor is not None:
            self._supervisor.wake()

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._wants_reload = True
        if self._supervisor is not None:
            self._supervisor.wake()


def recover(home: Home, queue: Queue, ingest: Ingest, sources: Sources) -> None:
    """Bring rows and files together again after whatever ended the last daemon. No worker may be alive.

    Raises:
        EnvironmentFault: the database cannot be used.
    """
    for job in queue.unfinished():
        if job.state is JobState.INGESTING:
            ingest.adopt(job)
        elif _is_published(home, job):
            queue.finish_published(job)
            logger.info("job %d: found published, done", job.id)
    failpoint(RECOVERY_FINISHED)
    removed = publish.sweep(home.outbox)
    for job in queue.release_orphans():
        logger.info("job %d: its daemon died, now %s", job.id, job.state)
    failpoint(RECOVERY_RELEASED)
    _sweep(sources, queue)
    sources.tidy()
    remove_left_copies(home)
    if removed:
        logger.info("%d unfinished results of killed workers removed", removed)


def _is_published(home: Home, job: Job) -> bool:
    try:
        return publish.confirm_published(home.outbox, job)
    except OSError as e:
        logger.warning("job %d: its result cannot be made durable (%s); looked at again at its next claim", job.id, e)
        return False


def _clear(home: Home, at_work: Callable[[], Collection[str]]) -> None:
    """Remove what killed workers left in the outbox, if it is there."""
    with contextlib.suppress(OSError):
        publish.sweep(home.outbox, at_work)


def _sweep(sources: Sources, queue: Queue) -> None:
    """Move the sources of jobs that have ended to where they belong, if they are not there yet."""
    sources.sweep(lambda number: _find(queue, number), at_work=queue.at_work())


def _find(queue: Queue, number: int) -> Job | None:
    try:
        return queue.get(number)
    except JobNotFound:
        return None


def _start_trouble(supervisor: Supervisor) -> str | None:
    error = supervisor.start_error
    return None if error is None else f"the worker cannot start: {error.code}: {error.message}"


def _survive(watcher: Watcher) -> None:
    """Run the watcher; an unexpected error is logged and it goes on."""
    while True:
        try:
            watcher.run()
            return
        except Exception:
            logger.exception("the watcher goes on after an unexpected error")
            time.sleep(TICK_SECONDS)


def _await_end(supervisor: Supervisor) -> None:
    """See a stopping worker out and write down its end; a database that fails three times is left alone."""
    for _ in range(3):
        try:
            while not supervisor.has_stopped:
                supervisor.tick(0.1)
            return
        except EnvironmentFault as e:
            logger.error("%s", e)
            time.sleep(TICK_SECONDS)
