"""Install, start, stop, restart and remove the service, and believe none of it until the daemon itself says so.

Ready means: the process that the system started has written its heartbeat, which it does once its database is open and
its inbox is watched, and it has tested itself. What the self-test found, or a worker that cannot start, is reported and
no reason to roll back: the daemon stays up and waits for what is missing, and a model can be added later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rvc_batch.errors import ServiceFailed
from rvc_batch.jobs.daemon import DAEMON_LOCK
from rvc_batch.jobs.daemon_facts import DaemonFacts, SelfTestFacts, read_daemon
from rvc_batch.jobs.findings import Level
from rvc_batch.jobs.lock import holder_of
from rvc_batch.jobs.starts import read_last_start
from rvc_batch.logs import FILE_NAME as LOG_NAME
from rvc_batch.service.control import Clock, Control
from rvc_batch.service.machine import Machine
from rvc_batch.service.tail import tail

READY_SECONDS = 60.0
POLL_SECONDS = 0.25
LOG_LINES = 20
WORKING = ("idle", "busy")


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """What `service status` shows. `trouble` is empty when all is well."""

    control: str
    file: str
    is_installed: bool
    is_current: bool
    is_registered: bool
    domain: str
    pid: int | None
    program: str
    trouble: str


class Installation:
    """The verbs of `rvc-batch service` for one service."""

    def __init__(
        self, control: Control, machine: Machine, say: Callable[[str], None], clock: Clock | None = None
    ) -> None:
        self._control, self._machine, self._say = control, machine, say
        self._home = control.definition.home
        self._clock = clock or Clock()

    def install(self) -> None:
        """Install and start the service, or refresh it; does nothing if it is there and ready.

        Raises:
            ServiceFailed: it does not become ready; what was there before is there again.
        """
        control, new, old = self._control, self._control.content(), self._installed()
        found = control.registration()
        if new == old and found.pid is not None and self._daemon().pid == found.pid and not self._machine.is_dry:
            self._say(f"installed and running already (pid {found.pid}); `rvc-batch service restart` starts it anew")
            return
        self._refuse_other_daemon(found.pid)
        for folder in (self._home.root, self._home.state, self._home.logs):
            self._machine.make_folder(folder, control.definition.account)
        control.unload()
        try:
            control.place(new)
            self._bring_up(control.load)
        except BaseException:
            self._roll_back(old)
            raise
        self._done(f"{'installed' if old is None else 'refreshed'}: {control.file}")

    def uninstall(self) -> None:
        """Stop and remove the service; the home stays as it is."""
        self._control.unload()
        self._control.forget()
        self._done(f"removed; {self._home.root} with its jobs, models and results is untouched")

    def start(self) -> None:
        """Start the service and wait until it is ready."""
        self._require_file()
        self._refuse_other_daemon(self._control.registration().pid)
        self._bring_up(self._control.start)

    def stop(self) -> None:
        """Stop the service until the next boot, login or start."""
        self._require_file()
        self._control.stop()
        self._done("stopped; it starts again at the next boot or login, or with `rvc-batch service start`")

    def restart(self) -> None:
        """Stop the service, start it, and wait until it is ready."""
        self._require_file()
        pid = self._control.registration().pid
        self._refuse_other_daemon(pid)
        self._bring_up(self._control.restart, not_pid=pid)

    def status(self) -> ServiceStatus:
        """Compare file, system and daemon."""
        control, content, found = self._control, self._installed(), self._control.registration()
        program, daemon = control.definition.program, self._daemon()
        last = None if daemon.is_alive else read_last_start(self._home)
        if content is None:
            trouble = "not installed; `rvc-batch service install`"
        elif not found.is_registered:
            trouble = f"{control.file} is there, but {control.name} does not know it; `rvc-batch service start`"
        elif found.pid is None:
            reason = last.sentence() if last is not None else found.failure or "not running"
            trouble = f"{reason}; `rvc-batch service start`"
        elif daemon.pid != found.pid:
            trouble = f"pid {found.pid} runs, but says nothing: {daemon.trouble or f'the daemon is pid {daemon.pid}'}"
        elif content != control.content():
            trouble = f"{control.file} is not what this version would write; `rvc-batch service install` refreshes it"
        else:
            trouble = ""
        return ServiceStatus(
            control=control.name,
            file=str(control.file),
            is_installed=content is not None,
            is_current=content == control.content(),
            is_registered=found.is_registered,
            domain=found.domain,
            pid=found.pid,
            program=str(program),
            trouble=trouble,
        )

    def log_lines(self, count: int) -> list[str]:
        """Return the end of what was said outside the log, then the end of the log."""
        log = self._home.logs / LOG_NAME
        lines = self._control.crash_lines(count)
        head = [f"--- outside the log ({self._control.name}) ---", *lines] if lines else []
        return [*head, f"--- {log} ---", *tail(log, count)]

    def _bring_up(self, start: Callable[[], None], *, not_pid: int | None = None) -> None:
        """Start the service and wait until it is ready.

        Raises:
            ServiceFailed: it does not; with the last lines of the logs.
        """
        began = self._clock.wall()
        start()
        if self._machine.is_dry:
            return
        try:
            daemon = self._await_ready(began, not_pid)
        except ServiceFailed as e:
            raise ServiceFailed("\n".join([str(e), *self.log_lines(LOG_LINES)])) from e
        worker = daemon.worker
        state = "" if worker is None else f", worker {worker.state}"
        self._say(f"ready: pid {daemon.pid}{state}")
        if daemon.last_error:
            self._say(f"warning: the service is up, but {daemon.last_error}")
        self._say_self_test(daemon.self_test)

    def _say_self_test(self, found: SelfTestFacts | None) -> None:
        if found is None or found.is_running:
            self._say("warning: the self-test has not ended yet; `rvc-batch status` shows it")
            return
        for finding in found.findings:
            if finding.level is not Level.OK:
                self._say(f"{finding.level}: {finding.check}: {finding.what}; {finding.remedy}")

    def _await_ready(self, began: float, not_pid: int | None) -> DaemonFacts:
        deadline = self._clock.monotonic() + READY_SECONDS
        while True:
            found, daemon = self._control.registration(), self._daemon()
            is_ours = found.pid is not None and found.pid != not_pid and daemon.pid == found.pid
            is_up = is_ours and daemon.is_alive and not daemon.trouble
            is_working = (daemon.worker is not None and daemon.worker.state in WORKING) or daemon.last_error
            is_settled = is_working and daemon.self_test is not None and not daemon.self_test.is_running
            is_late = self._clock.monotonic() >= deadline
            if is_up and (is_settled or is_late):
                return daemon
            last = read_last_start(self._home)
            if last is not None and last.started_at >= began and last.message:
                raise ServiceFailed(last.sentence())
            if found.failure and found.pid is None and self._control.name == "systemd":
                raise ServiceFailed(f"systemd says: {found.failure}")
            if is_late:
                raise ServiceFailed(
                    f"not ready within {READY_SECONDS:g} s ({found.failure or daemon.trouble or 'no reason is known'})"
                )
            self._clock.sleep(POLL_SECONDS)

    def _roll_back(self, old: bytes | None) -> None:
        self._say("it did not work; what was there before is restored")
        try:
            self._control.unload()
            if old is None:
                self._control.forget()
            else:
                self._control.place(old)
                self._control.load()
        except ServiceFailed as e:  # the first error is the one to know
            self._say(f"warning: that failed, too: {e}")

    def _refuse_other_daemon(self, pid: int | None) -> None:
        holder = holder_of(self._home.state / DAEMON_LOCK) if self._home.state.is_dir() else None
        if holder not in (None, pid) and not self._machine.is_dry:
            raise ServiceFailed(
                f"a daemon that is not this service serves {self._home.root} (pid {holder}); stop it first"
            )

    def _done(self, what: str) -> None:
        if not self._machine.is_dry:
            self._say(what)

    def _require_file(self) -> None:
        if self._installed() is None:
            raise ServiceFailed(f"{self._control.file} is missing; `rvc-batch service install` first")

    def _installed(self) -> bytes | None:
        try:
            return self._control.file.read_bytes()
        except FileNotFoundError:
            return None

    def _daemon(self) -> DaemonFacts:
        return read_daemon(self._home, self._clock.wall())
