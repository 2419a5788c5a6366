"""The text of `rvc-batch status`: one word, the reason, and the facts it rests on, each with its age."""

from __future__ import annotations

from collections.abc import Iterator

from rvc_batch.cli.printing import ago, coloured, columns, length, printable, size, span
from rvc_batch.jobs.daemon_facts import DaemonFacts, WorkerFacts
from rvc_batch.jobs.estimate import median
from rvc_batch.jobs.findings import Level
from rvc_batch.jobs.overview import Day, JobLine, Overview
from rvc_batch.jobs.status import Status, Word, counted, notes

BAR_CELLS = 16
MAX_PERCENT = 99  # 100 is for what is in the outbox


def lines(found: Status) -> Iterator[str]:
    """Yield the lines of the text form."""
    yield f"{coloured(found.word)}   {printable(found.reason)}{_left(found)}"
    if found.command:
        yield f"       → {printable(found.command)}"
    yield ""
    yield columns(_facts(found), indent=" ")
    overview = found.database.overview
    if overview is not None:
        yield from _now(found, overview)
        yield from _next(found, overview)
        yield from _day(found, overview.day)
        yield from _failed(found, overview)
    for number, note in enumerate(notes(found)):
        yield f"{'' if number else chr(10)} NOTE  {printable(note)}"


def _left(found: Status) -> str:
    if found.left_unknown and found.word is Word.BUSY:
        return f" · time left — ({printable(found.left_unknown)})"
    return "" if found.left is None or found.left.high < 1 else f" · about {_range(found)} of work left"


def _facts(found: Status) -> Iterator[tuple[str, str]]:
    daemon, worker, database = found.daemon, found.daemon.worker, found.database
    yield "service", _service(found)
    yield "daemon", _daemon(daemon)
    if worker is not None and daemon.is_alive:
        yield "worker", _worker(worker)
        yield "device", _device(worker)
    elif worker is not None:
        yield "worker", f"gone with the daemon   last heard {span(worker.age_s)} ago"
    rescan = f"rescan {span(daemon.rescan_age_s)} ago" if daemon.is_alive else ""
    trouble = daemon.inbox_error or found.inbox.error
    verdicts = [arrival.verdict for arrival in database.arrivals]
    waiting = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    watching = " + ".join(filter(None, (daemon.inbox_mode, rescan))) if daemon.is_alive else "nobody watches it"
    yield "inbox", "   ".join(filter(None, (found.inbox.path, watching, waiting, trouble)))
    yield "outbox", f"{found.outbox.path}   {found.outbox.error or size(found.outbox.free_bytes) + ' free now'}"
    yield "database", _database(found)
    if daemon.is_alive:
        yield "self-test", _self_test(daemon)


def _service(found: Status) -> str:
    if found.service is None:
        by = found.daemon.started_by
        return f"none installed   started by {by}" if found.daemon.is_alive and by else "none installed"
    whose = f"of the machine, as {found.service.user}" if found.service.is_system else "of this user"
    by = f"   started by {found.daemon.started_by}" if found.daemon.is_alive else "   not running"
    return f"{found.service.manager} {whose}   {found.service.file}{by}"


def _daemon(daemon: DaemonFacts) -> str:
    if not daemon.is_alive:
        return f"not running   last heartbeat {'unknown' if daemon.age_s is None else f'{span(daemon.age_s)} ago'}"
    files = "" if daemon.open_files is None else f"   {daemon.open_files} of {daemon.open_files_limit} files open"
    return f"pid {daemon.pid}   up {span(daemon.uptime_s)}   heartbeat {span(daemon.age_s)} ago{files}"


def _worker(worker: WorkerFacts) -> str:
    warm = ", ".join(worker.warm_voices) or "no voice"
    heard = f"heard {span(worker.age_s)} ago" if worker.age_s is not None else "not heard yet"
    process = "no process" if worker.pid is None else f"pid {worker.pid}   up {span(worker.uptime_s)}"
    facts = [process, worker.state, f"warm: {warm}", heard]
    if worker.restarts:
        last = "" if worker.replaced_s is None else f", last {span(worker.replaced_s)} ago: {worker.replaced_why}"
        facts.append(f"restarts {worker.restarts}{last}")
    return "   ".join(facts)


def _device(worker: WorkerFacts) -> str:
    facts = [worker.device or "–", worker.backend]
    if worker.memory_active is not None:
        facts.append(f"active {size(worker.memory_active)}")
        facts.append(f"cache {size(worker.memory_cache)} (limit {size(worker.memory_cache_limit)})")
    facts.append(f"rss {size(worker.rss)}")
    return "   ".join(facts)


def _database(found: Status) -> str:
    database = found.database
    if database.overview is None:
        return f"{database.path}   {database.error}"
    total = sum(database.overview.counts.values())
    schema = f"schema {database.overview.schema}"
    backup = "no backup yet" if database.backup_age_s is None else f"last backup {span(database.backup_age_s)} ago"
    facts = (
        database.path,
        f"sqlite {database.sqlite_version}",
        counted(total, "job"),
        size(database.size),
        schema,
        backup,
    )
    return "   ".join(facts)


def _self_test(daemon: DaemonFacts) -> str:
    test = daemon.self_test
    if test is None:
        return "not made yet"
    if test.is_running:
        return f"running for {span(test.age_s)}{f', at {test.checking}' if test.checking else ''}"
    counts = {level: sum(finding.level is level for finding in test.findings) for level in Level}
    amiss = "".join(f", {counted(count, level)}" for level, count in counts.items() if count and level is not Level.OK)
    return f"{counts[Level.OK]} of {len(test.findings)} checks fine{amiss}   {span(test.age_s)} ago"


def _now(found: Status, overview: Overview) -> Iterator[str]:
    for number, job in enumerate(overview.running):
        share = job.progress_done / job.progress_total if job.progress_total > 0 else 0.0
        percent = min(int(100 * share), MAX_PERCENT)
        filled = percent * BAR_CELLS // 100
        bar = "█" * filled + "░" * (BAR_CELLS - filled)
        yield ""
        head = " NOW  " if number == 0 else "      "
        yield f"{head} {_named(job)}   [{bar}] {percent} %   {job.stage or 'starting'}"
        yield f"       {_progress(found, job)}"


def _progress(found: Status, job: JobLine) -> str:
    elapsed = max(found.at - (job.started_at or found.at), 0.0)
    facts = [f"{length(job.seconds_in)} audio"]
    if job.progress_done > 0 and elapsed > 0 and found.daemon.is_alive:
        speed = job.progress_done / elapsed
        facts.append(f"at {speed:.1f}x realtime")
        facts.append(f"{length(elapsed)} elapsed")
        facts.append(f"{length(max(job.progress_total - job.progress_done, 0.0) / speed)} left")
    else:
        facts.append(f"{length(elapsed)} elapsed")
    facts.append(f"attempt {job.attempt}/{job.max_attempts}")
    if job.cancel_requested:
        facts.append("to be cancelled at the next segment")
    if job.lease_until is not None and job.lease_until < found.at:
        facts.append(f"nobody has worked on it for {span(found.at - job.lease_until)}")
    return "   ".join(facts)


def _next(found: Status, overview: Overview) -> Iterator[str]:
    for number, job in enumerate(overview.next):
        later = f"   in {span(job.run_after - found.at)}" if job.run_after > found.at else ""
        why = f"   after {job.error_code}, attempt {job.attempt + 1}/{job.max_attempts}" if job.error_code else ""
        head = "\n NEXT " if number == 0 else "      "
        yield f"{head} {_named(job)}   {length(job.seconds_in)}{later}{why}"
    if overview.more_queued > 0:
        audio = length(sum(part.seconds for part in overview.backlog))
        unknown = sum(part.unknown for part in overview.backlog)
        rest = f", {unknown} of unknown length" if unknown else ""
        yield f"       … {overview.more_queued} more ({audio} of audio in all{rest})"


def _day(found: Status, day: Day) -> Iterator[str]:
    if not day.done and not day.failed:
        return
    speed = "" if found.speed is None else f"   speed {found.speed.median:.1f}x (p10 {found.speed.p10:.1f}x)"
    wait = "" if not day.waits else f"   wait median {span(median(day.waits))}"
    yield f"\n LAST 24 h   done {day.done}   failed {day.failed}{speed}{wait}"
    total = sum(day.stage_seconds.values())
    if total > 0:
        shares = sorted(day.stage_seconds.items(), key=lambda item: -item[1])
        yield f"   where the time goes   {'   '.join(f'{stage} {100 * s / total:.0f} %' for stage, s in shares)}"


def _failed(found: Status, overview: Overview) -> Iterator[str]:
    if not overview.failed:
        return
    yield ""
    rows = [
        (
            " FAILED" if number == 0 else "",
            f"#{job.id} {job.source_name}",
            job.error_code or "",
            job.error_stage or "",
            f"attempt {job.attempt}/{job.max_attempts}, {ago(job.finished_at, found.at)}",
            job.error_message or "",
        )
        for number, job in enumerate(overview.failed)
    ]
    yield columns(rows)
    if overview.more_failed > 0:
        yield f"         … {overview.more_failed} more: rvc-batch jobs --state failed"
    first = overview.failed[0]
    yield f"         → rvc-batch job {first.id} for everything, rvc-batch retry {first.id} to try again"
    codes = [job.error_code for job in overview.failed]
    if first.error_code and codes.count(first.error_code) > 1:
        yield f"         → rvc-batch retry --error {first.error_code} for all of these"


def _named(job: JobLine) -> str:
    return f"#{job.id} {printable(job.source_name)} → {printable(job.voice)}"


def _range(found: Status) -> str:
    assert found.left is not None
    low, high = found.left.low, found.left.high
    if high < 120:
        return f"{high:.0f} s" if round(low) == round(high) else f"{low:.0f}–{high:.0f} s"
    unit, scale = ("min", 60) if high < 7200 else ("h", 3600)
    low_text, high_text = (f"{value / scale:.0f}" for value in (low, high))
    return f"{high_text} {unit}" if low_text == high_text else f"{low_text}–{high_text} {unit}"
