"""Everything a render box rests on, checked one by one, each with what to do about it: `rvc-batch doctor`.

It works whatever is broken: a check that cannot be made is a finding, never an exception. Apart from two hidden files
per folder, which it removes again, it changes nothing; frameworks are asked in a process of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

from rvc_batch.config import Settings, load_settings
from rvc_batch.db.engine import open_reader
from rvc_batch.db.migrate import require_current
from rvc_batch.errors import ConfigError, DatabaseUnusable, RvcBatchError
from rvc_batch.home import Home
from rvc_batch.importers.store import HUBERT_FILE, HUBERT_FOLDER, RMVPE_FILE, ModelStore
from rvc_batch.jobs.backup import backups
from rvc_batch.jobs.daemon_facts import DaemonFacts, SelfTestFacts, read_daemon, rounded
from rvc_batch.jobs.findings import Finding, Level
from rvc_batch.jobs.invariants import check_home
from rvc_batch.jobs.machine_probe import MachineFacts, probe_machine
from rvc_batch.jobs.presets import Presets
from rvc_batch.jobs.selftest import self_test

BACKUP_AGE_S = 86_400.0


def examine(
    home: Home,
    *,
    deep: bool = False,
    probe: Callable[[str], MachineFacts] = probe_machine,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Finding]:
    """Yield what every check finds, in the order in which a person would mend things."""
    settings, finding = _settings(home)
    yield finding
    yield from self_test(home, settings, probe=probe)
    yield from _models(home)
    yield from _voices(home, settings)
    yield from _presets(home)
    daemon = read_daemon(home, clock())
    yield _daemon(daemon)
    if daemon.is_alive:
        yield from _service_self_test(daemon.self_test)
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
    store = ModelStore.of(home, settings.library.folders(home))
    for fault in store.root_faults():
        yield Finding("voices", Level.WARNING, fault, "its voices are missing until then")
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


def _presets(home: Home) -> Iterator[Finding]:
    """Recipes and settings files of voices: those that cannot be used fail every job they apply to."""
    presets, faults = Presets(home.recipes, home.voices), list[str]()
    names = presets.recipe_names()
    of_voices = Presets(home.voices).recipe_names()
    for read, each in [*((presets.recipe, name) for name in names), *((presets.of_voice, name) for name in of_voices)]:
        try:
            read(each)
        except ConfigError as e:
            faults.append(str(e))
    for fault in faults:
        yield Finding("recipes", Level.WARNING, fault, "correct that line; its jobs fail until then")
    if not faults and (names or of_voices):
        yield Finding("recipes", Level.OK, f"{len(names)} recipes, {len(of_voices)} voices with settings")


def _daemon(daemon: DaemonFacts) -> Finding:
    if not daemon.is_alive:
        return Finding("daemon", Level.WARNING, daemon.trouble, "rvc-batch run")
    trouble = daemon.trouble or daemon.inbox_error or daemon.last_error
    if trouble:
        return Finding("daemon", Level.FAULT, trouble, "see state/logs/ and `rvc-batch status`")
    return Finding("daemon", Level.OK, f"pid {daemon.pid}, version {daemon.version}")


def _service_self_test(found: SelfTestFacts | None) -> Iterator[Finding]:
    """Say what the daemon found where it runs, which is not where this command runs."""
    check = "in service"
    if found is None:
        yield Finding(check, Level.WARNING, "the daemon has not tested itself yet", "ask again in a minute")
        return
    since = rounded(found.age_s)
    if found.is_running:
        yield Finding(check, Level.OK, f"the daemon has been testing itself for {since}")
    else:
        yield Finding(check, Level.OK, f"the daemon tested itself {since} ago: {len(found.findings)} checks")
    hanging = () if found.trouble is None or found.trouble in found.findings else (found.trouble,)
    for finding in (*hanging, *found.findings):
        if finding.level is not Level.OK:
            yield replace(finding, check=f"{check}: {finding.check}")


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
