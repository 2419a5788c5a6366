"""Every step of a job, killed or failed at its Nth system call, N = 1, 2, … until it gets through.

    python -m tests.syscall_faults [--errors | --daemon] [--every K]      `make syscalls` does all three, whole

After each blow a daemon is started on what is left; it must bring the file to exactly one whole result, with its
settings, and leave nothing behind. A step that is told of an error ends as if its process had died. With `--daemon`
the whole daemon and its worker are told of errors, and must get over them without a restart.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import soundfile

from rvc_batch.config import WorkerSettings
from rvc_batch.home import Home
from rvc_batch.jobs import durable, publish
from rvc_batch.jobs.desk import _Running
from rvc_batch.jobs.invariants import check_home
from rvc_batch.jobs.messages import Assignment, Rendered
from rvc_batch.jobs.models import JobState, Outcome
from rvc_batch.jobs.publish import Sealed
from rvc_batch.jobs.queue import Queue
from tests import inline_box, strace
from tests.daemon_harness import daemon, drop, jobs_of, running, short_delays
from tests.job_fakes import files_below, report_like

STEPS = ("ingest", "claim", "convert", "publish", "finish")
SAMPLES, RATE = 1600, 16_000
NAME = "tenor/a.wav"
ERRORS = {"fsync": ("error=EIO",), "fdatasync": ("error=EIO",)}  # a full disk shows at the others
DAEMON_EVERY = 25
DAEMON_CALLS = 30  # of each name and thread
DAEMON_ERRORS = (
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("?link", "EIO"),
    ("linkat", "EIO"),
    ("?rename", "ENOSPC"),
    ("write", "ENOSPC"),
    ("?mkdir", "ENOSPC"),
    ("?unlink", "EIO"),
)


# --- the victim -------------------------------------------------------------------------------------------------------


def perform(step: str, home: Home) -> None:
    """Do one step of the only job there is."""
    with inline_box.opened(home) as box:
        if step == "ingest":
            ((rel, look),) = box.candidates().items()
            box.take(rel, look)
        elif step == "claim":
            assert box.claim() is not None
        else:
            (job,) = box.queue.unfinished()
            temp = publish.temp_path(home.outbox, job)
            box.desk._running = _Running(job, temp)
            if step == "convert":
                source = box.sources.path(job)
                word = box.render(Assignment(job.id, job.claim_no, source, temp, job.voice, job.settings))
                assert isinstance(word, Rendered), word
            elif step == "publish":
                sealed, report = Sealed(*durable.digest(temp)), report_like(samples=SAMPLES, rate=RATE)
                publish.deliver(_Unrecorded(box.queue), home.outbox, job, temp, sealed=sealed, report=report)
            elif step == "finish":
                done = box.queue.finish(job, report_like(samples=SAMPLES, rate=RATE))
                box.sources.settle(done)


class _Unrecorded:
    """The queue as publishing sees it, except that `done` is not recorded: that is the next step."""

    def __init__(self, queue: Queue) -> None:
        self.record_intent, self.reserve_another_name = queue.record_intent, queue.reserve_another_name

    def finish(self, job: object, report: object) -> object:
        return job


# --- before and after -------------------------------------------------------------------------------------------------


def prepared(step: str, folder: Path) -> Home:
    """Return a home in which `step` comes next."""
    home = Home(folder)
    home.create()
    Queue.open(home.database).close()
    home.inbox.joinpath("tenor").mkdir()
    (home.inbox / f"{NAME}.toml").write_text("transpose = 2")
    drop(home, NAME)
    for earlier in STEPS[: STEPS.index(step)]:
        perform(earlier, home)
    return home


def assert_whole(home: Home) -> None:
    """The file came out once, whole, with its settings; nothing is left over; every attempt has an outcome."""
    (job,) = jobs_of(home)
    assert (job.state, job.settings.transpose) == (JobState.DONE, 2.0), job
    assert inline_box.published(home) == [home.outbox / NAME]
    assert soundfile.info(home.outbox / NAME).frames == SAMPLES
    assert publish.is_published(home.outbox, job)
    assert files_below(home.processed) == [NAME, f"{NAME}.toml"], files_below(home.root)
    assert durable.digest(home.processed / NAME)[0] == job.content_sha256
    assert files_below(home.inbox) == files_below(home.failed) == [], "nothing stays behind"
    assert list(home.work.iterdir()) == []
    assert list(home.root.rglob("*.part")) == []
    assert check_home(home, is_live=False) == []
    queue = Queue.open_readonly(home.database)
    outcomes = [attempt.outcome for attempt in queue.attempts(job.id)]
    queue.close()
    assert outcomes.count(Outcome.DONE) == 1, outcomes
    assert None not in outcomes


def restart_daemon(home: Home) -> None:
    """Start a real daemon, which stops when all is done."""
    with running(home, "--until-idle") as process:
        assert process.wait(600) == 0  # on a busy machine, too


# --- the loop ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blow:
    """What is done to a step, and where."""

    call: str
    number: int
    how: str  # signal=KILL or error=…


def all_blows(calls: dict[str, int], *, errors: bool) -> list[Blow]:
    """Return every blow to a step that makes these calls."""
    return [
        Blow(call, number, how)
        for call, total in calls.items()
        for how in (ERRORS.get(call, ("error=EIO", "error=ENOSPC")) if errors else ("signal=KILL",))
        for number in range(1, total + 1)
    ]


def survives(step: str, blow: Blow, template: Home, folder: Path, restart: Callable[[Home], None]) -> int:
    """Strike a copy of the template, start again, check; return how the victim ended."""
    home = Home(shutil.copytree(template.root, folder / "struck"))
    log = folder / "victim.log"
    try:
        ended = strace.strike(partial(perform, step, home), blow.call, blow.number, blow.how, log=log)
        try:
            restart(home)
            assert_whole(home)
        except BaseException as e:
            e.add_note(f"{step} {blow}: the victim ended with {ended}: {log.read_text(errors='replace')[-3000:]}")
            raise
        return ended
    finally:
        shutil.rmtree(home.root)
        log.unlink(missing_ok=True)


def walk(step: str, *, errors: bool, every: int) -> tuple[int, dict[str, int]]:
    """Strike a step at every call, or at every `every`th; return how often, and how many calls there are.

    Most lives after a blow are lived in this process; each 25th is a real daemon's.

    Raises:
        AssertionError: a blow was not survived.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = prepared(step, folder / "template")
        copied = Home(shutil.copytree(template.root, folder / "counted"))
        calls = strace.count(partial(perform, step, copied), folder / "strace")
        blows = all_blows(calls, errors=errors)[::every]
        for index, blow in enumerate(blows):
            restart = restart_daemon if index % DAEMON_EVERY == DAEMON_EVERY - 1 else inline_box.live
            ended = survives(step, blow, template, folder, restart)
            assert errors or ended == -signal.SIGKILL, f"{step}: {blow} did not kill but ended with {ended}"
        if every == 1:
            for call, total in calls.items():
                ended = survives(step, Blow(call, total + 1, "signal=KILL"), template, folder, inline_box.live)
                assert ended == 0, f"the loop over {call} of {step} must end with a clean run, not {ended}"
    return len(blows), calls


# --- the whole daemon -------------------------------------------------------------------------------------------------


def serve(home: Home) -> None:
    """Live as a daemon with a worker process until all is done."""
    with short_delays():
        daemon(home, WorkerSettings(), until_idle=True).run()


def get_over(*, every: int) -> tuple[int, int]:
    """Let every Nth call of the threads of daemon and worker fail; return how many, and after how many it gave up.

    It may give up at its start, when the database cannot be opened; then it is started once more.
    """
    tried = gave_up = 0
    for call, how in DAEMON_ERRORS:
        for number in range(1, DAEMON_CALLS, every):
            with tempfile.TemporaryDirectory() as folder:
                home = prepared("ingest", Path(folder) / "home")
                log = Path(folder) / "log"
                ended = strace.strike(partial(serve, home), call, number, f"error={how}", "-f", log=log)
                try:
                    if ended != 0:
                        gave_up += 1
                        inline_box.live(home)
                    assert_whole(home)
                except BaseException as e:
                    e.add_note(f"{call} {number} {how}: ended with {ended}: {log.read_text(errors='replace')[-4000:]}")
                    raise
                tried += 1
    return tried, gave_up


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--errors", action="store_true", help="fail the calls instead of killing at them")
    parser.add_argument("--daemon", action="store_true", help="fail calls of the whole daemon")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="only every Kth blow")
    parser.add_argument("--only", choices=STEPS)
    options = parser.parse_args()
    if options.daemon:
        tried, gave_up = get_over(every=options.every)
        print(f"daemon   errors survived: {tried}, {gave_up} of them with a second start")
        return
    total = 0
    for step in (options.only,) if options.only else STEPS:
        survived, calls = walk(step, errors=options.errors, every=options.every)
        total += survived
        told = ", ".join(f"{call} {number}" for call, number in calls.items())
        print(f"{step:8} {'errors' if options.errors else 'kills'} survived: {survived:4}   ({told})", flush=True)
    print(f"{'all':8} {'errors' if options.errors else 'kills'} survived: {total:4}", flush=True)


if __name__ == "__main__":
    main()
