"""Inbox and outbox on volumes of their own: an unmounted one is noticed, and nothing is put in its place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from stat import ST_DEV
from typing import Any

import pytest

from rvc_batch.errors import FolderGone, HomeInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.folders import INBOX_MARK, RECORD, Folders
from tests.cli_harness import run
from tests.job_fakes import files_below

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def mounted(home: Home, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Return the set of folders that are on a volume of their own."""
    volumes: set[Path] = set()
    stat = Path.stat

    def on_volumes(path: Path, **options: Any) -> Any:
        found = list(stat(path, **options))
        if path in volumes:
            found[ST_DEV] = 4711
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", on_volumes)
    return volumes


def start(home: Home) -> Folders:
    folders = Folders(home)
    folders.create()
    return folders


Check = Callable[[Folders], None]
CHECKS = pytest.mark.parametrize(
    ("name", "check"), [("inbox", Folders.check_inbox), ("outbox", Folders.check_outbox)], ids=["inbox", "outbox"]
)


@CHECKS
def test_a_plain_folder_may_be_deleted_and_made_again(home: Home, name: str, check: Check) -> None:
    folders = start(home)
    shutil.rmtree(home.root / name)
    with pytest.raises(FolderGone, match=f"{name} is missing"):
        check(folders)
    assert not (home.root / name).exists(), "never made while the daemon runs"
    (home.root / name).mkdir()
    check(folders)
    shutil.rmtree(home.root / name)
    check(start(home))


@CHECKS
def test_the_empty_place_of_an_unmounted_volume_is_not_used(
    home: Home, mounted: set[Path], name: str, check: Check
) -> None:
    home.create()
    start(home)
    place = home.root / name
    mounted.add(place)
    folders = start(home)  # in this test the marks it leaves are on the boot disk: even they must not help
    mounted.clear()
    for known in (folders, start(home)):
        with pytest.raises(FolderGone, match=f"the volume of {place} is not mounted"):
            check(known)
    mounted.add(place)
    check(folders)


@CHECKS
def test_another_volume_in_its_place_is_not_used(home: Home, mounted: set[Path], name: str, check: Check) -> None:
    home.create()
    place = home.root / name
    mounted.add(place)
    folders = start(home)
    shutil.rmtree(place)
    place.mkdir()
    with pytest.raises(FolderGone, match="is another volume than it was"):
        check(folders)
    assert files_below(place) == [], "it is left as it is"
    (home.state / RECORD).unlink()
    check(start(home))


@CHECKS
def test_the_place_of_a_volume_is_not_made_again(home: Home, mounted: set[Path], name: str, check: Check) -> None:
    home.create()
    mounted.add(home.root / name)
    start(home)
    shutil.rmtree(home.root / name)
    folders = start(home)
    assert not (home.root / name).is_dir()
    with pytest.raises(FolderGone, match="under the same name as before"):
        check(folders)


@CHECKS
def test_a_link_to_a_volume_that_is_not_there_is_no_reason_not_to_start(home: Home, name: str, check: Check) -> None:
    home.root.mkdir()
    elsewhere = home.root.parent / "Volumes"
    (home.root / name).symlink_to(elsewhere)
    folders = start(home)
    with pytest.raises(FolderGone):
        check(folders)
    assert not elsewhere.exists()
    elsewhere.mkdir()
    check(folders)


def test_a_damaged_record_is_written_anew(home: Home) -> None:
    start(home)
    (home.state / RECORD).write_text("[1]")
    start(home).check_inbox()
    assert json.loads((home.state / RECORD).read_text()) == {"inbox": False, "outbox": False}


def test_a_folder_on_the_volume_of_the_home_carries_no_mark(home: Home, mounted: set[Path]) -> None:
    start(home)
    assert [*home.inbox.iterdir(), *home.outbox.iterdir()] == []
    mounted.update((home.inbox, home.outbox))
    start(home)
    assert [p.name for p in (*home.inbox.iterdir(), *home.outbox.iterdir())] == [INBOX_MARK, ".rvc-batch-tmp"]


@pytest.mark.parametrize(
    ("link", "target"),
    [("inbox", "outbox"), ("outbox", "inbox"), ("inbox", "outbox/deeper"), ("processed", "inbox"), ("outbox", "state")],
)
def test_a_folder_inside_another_is_refused_at_the_start(home: Home, link: str, target: str) -> None:
    home.root.mkdir()
    (home.root / target).mkdir(parents=True)
    (home.root / link).symlink_to(home.root / target)
    with pytest.raises(HomeInvalid, match=r"(is the same folder as|lies inside).*give each a folder of its own"):
        run(home, "run", "--until-idle")
    assert not home.database.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts in a namespace of their own need Linux")
def test_with_real_mounts_the_daemon_waits_and_goes_on(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.volume_story"]
    done = subprocess.run([*command, str(tmp_path / "home")], cwd=ROOT, capture_output=True, text=True, timeout=120)
    if "unshare failed" in done.stderr:
        pytest.skip(f"this machine allows no user namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "the story ended well"
