"""Everything a render box rests on, checked one by one, each with what to do about it: `rvc-batch doctor`.

It works whatever is broken: a check that cannot be made is a finding, never an exception. Apart from two hidden files
per folder, which it removes again, it changes nothing; frameworks are asked in a process of their own.
"""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rvc_batch.config import Settings, load_settings
from rvc_batch.db.engine import open_reader
from rvc_batch.db.migrate import require_current
from rvc_batch.errors import ConfigError, DatabaseUnusable, FolderGone, RvcBatchError
from rvc_batch.home import Home
from rvc_batch.importers.store import HUBERT_FILE, HUBERT_FOLDER, RMVPE_FILE, ModelStore
from rvc_batch.jobs import durable
from rvc_batch.jobs.backup import backups
from rvc_batch.jobs.daemon_facts import DaemonFacts, read_daemon
from rvc_batch.jobs.folders import Folders
from rvc_batch.jobs.invariants import check_home
from rvc_batch.jobs.machine_probe import MachineFacts, probe_machine

SAFE_SQLITE = (3, 51, 3)  # before: two connections that checkpoint at once can corrupt the file (sqlite.org/wal.html)
DESCRIPTORS = 1024
LOW_SPACE, NO_SPACE = 2 << 30, 200 << 20  # bytes: an hour of audio takes about a gigabyte while it is rendered
NEEDED_CODECS = ("WAV", "FLAC", "AIFF", "OGG", "MP3")
BACKUP_AGE_S = 86_400.0


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"

    @property
    def severity(self) -> int:
        """0, 1 or 2: the exit code of the command."""
        return list(Level).index(self)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    level: Level
    what: str
    remedy: str = ""


Probe = Callable[[str], MachineFacts]


def examine(
    home: Home,
    *,
    deep: bool = False,
    probe: Probe = probe_machine,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Finding]:
    """Yield what every check finds, in the order in which a person would mend things."""
    settings, finding = _settings(home)
    yield finding
    folders = Folders(home, marks=False)
    checks = {home.inbox: folders.check_inbox, home.outbox: folders.check_outbox}
    for folder in (home.inbox, home.outbox, home.processed, home.failed, home.work, home.logs):
        yield _folder(folder, checks.get(folder))
    yield from _space(home)
    yield from _machine(probe(settings.worker.backend), settings.worker.backend)
    yield _descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield _sqlite(sqlite3.sqlite_version_info)
    yield from _models(home)
    yield from _voices(home, settings)
    daemon = read_daemon(home, clock())
    yield _daemon(daemon)
    database = _database(home)
    yield database
    if database.level is Level.OK and home.database.is_file():
        yield _backup(home, clock())
        if deep:
            yield from _deep(home, is_live=daemon.is_alive, sleep=sleep)


def _settings(home: Home) -> tuple[Settings, Finding]:
    try:
        settings = load_settings(home)
    except (ConfigError, OSError, UnicodeDecodeError) as e:
        return Settings(), Finding(
            "settings", Level.FAULT, str(e), "correct that line; the rest of this report uses defaults"
        )
    where = str(home.config_file) if home.config_file.is_file() else "defaults"
    return settings, Finding("settings", Level.OK, where)


def _folder(folder: Path, check_volume: Callable[[], None] | None) -> Finding:
    check = f"{folder.name}/"
    if not folder.is_dir():
        what = f"{folder} is {'not a folder' if folder.exists() else 'missing'}"
        return Finding(check, Level.FAULT, what, "`rvc-batch run` creates it; if it is on a volume, mount that")
    try:
        if check_volume is not None:
            check_volume()
    except FolderGone as e:
        return Finding(check, Level.FAULT, str(e), "mount the volume")
    trouble = why_not_durable(folder)
    if trouble:
        remedy = "make it writable for this user; results and sources are written and renamed there"
        return Finding(check, Level.FAULT, f"{folder} cannot take a file: {trouble}", remedy)
    return Finding(check, Level.OK, f"{folder} takes files: written, synced, renamed")


def why_not_durable(folder: Path) -> str:
    """Write, sync and rename a hidden file in a folder; say what went wrong, or return an empty string."""
    part, whole = folder / ".rvc-batch-doctor.part", folder / ".rvc-batch-doctor.tmp"
    try:
        with part.open("wb") as file:
            file.write(b"rvc-batch doctor\n")
            file.flush()
            durable.sync_file(file.fileno())
        part.rename(whole)
        durable.sync_folder(folder)
        whole.unlink()
    except OSError as e:
        part.unlink(missing_ok=True)
        return e.strerror or str(e)
    return ""


def _space(home: Home) -> Iterator[Finding]:
    """One finding per volume."""
    seen: dict[int, list[Path]] = {}
    for folder in (home.state, home.outbox, home.inbox):
        if folder.is_dir():
            seen.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in seen.values():
        free = shutil.disk_usage(folders[0]).free
        level = Level.FAULT if free < NO_SPACE else Level.WARNING if free < LOW_SPACE else Level.OK
        remedy = "" if level is Level.OK else "free some space; the queue waits when there is none"
        names = ", ".join(f"{folder.name}/" for folder in folders)
        yield Finding("free space", level, f"{free / 1e9:.1f} GB on the volume of {names}", remedy)


def _machine(facts: MachineFacts, backend: str) -> Iterator[Finding]:
    if facts.trouble:
        yield Finding("device", Level.FAULT, facts.trouble, f"reinstall {backend}, or set worker.backend")
    else:
        speed = "" if facts.gflops is None else f", {facts.gflops:.0f} GFLOP/s in a matrix product"
        yield Finding("device", Level.OK, f"{backend} on {facts.device}{speed}")
    if facts.blas == "reference":
        remedy = "install libopenblas0-pthread (Debian, Ubuntu), openblas-threads (Fedora) or the faiss-cpu wheel"
        yield Finding("BLAS", Level.WARNING, "reference: about sixty times slower on a CPU", remedy)
    elif facts.blas:
        yield Finding("BLAS", Level.OK, f"{facts.blas} {facts.blas_path}".strip())
    missing = [name for name in NEEDED_CODECS if name not in facts.codecs]
    if missing:
        what = f"libsndfile cannot decode {', '.join(missing)}"
        yield Finding("codecs", Level.FAULT, what, "install the soundfile wheel, which brings a whole libsndfile")
    else:
        yield Finding("codecs", Level.OK, f"{len(facts.codecs)} containers, {', '.join(NEEDED_CODECS)} among them")


def _descriptors(limit: int) -> Finding:
    if limit == resource.RLIM_INFINITY or limit >= DESCRIPTORS:
        return Finding("open files", Level.OK, f"limit {'none' if limit == resource.RLIM_INFINITY else limit}")
    return Finding(
        "open files", Level.WARNING, f"limit {limit}", "the daemon raises its own; `ulimit -n 8192` for commands"
    )


def _sqlite(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if version >= SAFE_SQLITE:
        return Finding("SQLite", Level.OK, text)
    remedy = "do not open the database with other programs while the daemon runs; a newer Python brings a newer SQLite"
    return Finding(
        "SQLite", Level.WARNING, f"{text}, before 3.51.3 two checkpoints at once can damage a database", remedy
    )


def _models(home: Home) -> Iterator[Finding]:
    networks = {"content network": (HUBERT_FILE, HUBERT_FOLDER), "pitch network": (RMVPE_FILE,)}
    for check, names in networks.items():
        found = next((home.models / name for name in names if (home.models / name).exists()), None)
        if found is None:
            remedy = f"put {' or '.join(names)} into {home.models}, or `rvc-batch import FILE`"
            yield Finding(check, Level.FAULT, f"missing in {home.models}", remedy)
        else:
            yield Finding(check, Level.OK, str(found))


def _voices(home: Home, settings: Settings) -> Iterator[Finding]:
    store = ModelStore(models=home.models, voices=home.voices, cache=home.cache)
    try:
        listing = store.listing()
    except (RvcBatchError, OSError) as e:
        yield Finding("voices", Level.FAULT, str(e), f"make {home.voices} a readable folder of voices")
        return
    broken = [voice for voice in listing if voice.error]
    for voice in broken:
        yield Finding(
            "voices", Level.WARNING, f"{voice.name}: {voice.error}", "its jobs fail; replace or remove the file"
        )
    usable = [voice.name for voice in listing if not voice.error]
    if not usable:
        yield Finding("voices", Level.FAULT, f"no usable voice in {home.voices}", "`rvc-batch import VOICE.pth`")
    elif settings.default_voice and settings.default_voice not in usable:
        what = f"default_voice is {settings.default_voice!r}, usable are {', '.join(usable)}"
        yield Finding("voices", Level.WARNING, what, "name one of those in rvc-batch.toml")
    else:
        yield Finding("voices", Level.OK, f"{len(usable)} usable: {', '.join(usable)}")


def _daemon(daemon: DaemonFacts) -> Finding:
    if not daemon.is_alive:
        return Finding("daemon", Level.WARNING, daemon.trouble, "rvc-batch run")
    trouble = daemon.trouble or daemon.inbox_error or daemon.last_error
    if trouble:
        return Finding("daemon", Level.FAULT, trouble, "see state/logs/ and `rvc-batch status`")
    return Finding("daemon", Level.OK, f"pid {daemon.pid}, version {daemon.version}")


def _database(home: Home) -> Finding:
    if not home.database.is_file():
        return Finding("database", Level.OK, "none yet; `rvc-batch run` creates it")
    try:
        with closing(open_reader(home.database)) as database:
            require_current(database)
            verdict = database.read(lambda c: str(c.exec_driver_sql("PRAGMA quick_check(1)").scalar()))
    except DatabaseUnusable as e:
        return Finding("database", Level.FAULT, str(e), f"backups are in {home.backups}")
    if verdict != "ok":
        remedy = f"stop the daemon and put back the newest file of {home.backups}"
        return Finding("database", Level.FAULT, f"{home.database} is damaged: {verdict}", remedy)
    return Finding("database", Level.OK, str(home.database))


def _backup(home: Home, now: float) -> Finding:
    made = backups(home)
    if made and now - made[-1].stat().st_mtime < BACKUP_AGE_S:
        return Finding("backup", Level.OK, str(made[-1]))
    what = f"the newest is {made[-1].name}, more than a day old" if made else "none was made yet"
    return Finding("backup", Level.WARNING, what, "a running daemon makes one an hour; or `rvc-batch backup`")


def _deep(home: Home, *, is_live: bool, sleep: Callable[[float], None]) -> Iterator[Finding]:
    try:
        with closing(open_reader(home.database)) as database:
            pages = database.read(lambda c: [str(r[0]) for r in c.exec_driver_sql("PRAGMA integrity_check(20)")])
        found = check_home(home, is_live=is_live, sleep=sleep)
    except (RvcBatchError, OSError, json.JSONDecodeError) as e:
        yield Finding("invariants", Level.FAULT, f"cannot be checked: {e}", f"backups are in {home.backups}")
        return
    for line in pages if pages != ["ok"] else ():
        yield Finding("integrity", Level.FAULT, line, f"stop the daemon and put back the newest file of {home.backups}")
    for violation in found:
        is_output = violation.rule == "I8" and violation.job_id is not None
        where = "" if violation.job_id is None else f"job {violation.job_id} "
        remedy = "if you did not change it, drop its source again" if is_output else "please report it with this line"
        level = Level.WARNING if is_output else Level.FAULT
        yield Finding(violation.rule, level, where + violation.what, remedy)
    if not found and pages == ["ok"]:
        yield Finding("invariants", Level.OK, "I1 to I12 hold; every page of the database is sound")
