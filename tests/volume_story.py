"""Inbox and outbox are volumes that come and go while the daemon works; run in a mount namespace of its own.

`unshare --user --map-root-user --mount python -m tests.volume_story HOME`
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rvc_batch.home import Home
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.status import read_status
from tests.daemon_harness import drop, eventually, jobs_of, running
from tests.job_fakes import files_below


def mount(volume: Path, place: Path) -> None:
    """Give the place the volume: the same file system each time, as a disk that is plugged in again."""
    subprocess.run(["mount", "--bind", volume, place], check=True)


def unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", place], check=True)


def states(home: Home) -> list[JobState]:
    return [job.state for job in jobs_of(home)]


def watcher_error(home: Home) -> str:
    try:
        return json.loads((home.state / "daemon.json").read_text())["watcher"]["error"] or ""
    except OSError:
        return ""


def main() -> None:
    home = Home(Path(sys.argv[1]))
    disks = home.root.parent / "disks"
    disks.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disks], check=True)
    home.create()
    places = {home.inbox: disks / "inbox", home.outbox: disks / "outbox"}
    for place, volume in places.items():
        volume.mkdir()
        mount(volume, place)
    with running(home):
        drop(home, "a.wav", seed=1)
        eventually(lambda: states(home) == [JobState.DONE], "the first file is done")

        unmount(home.inbox)
        eventually(lambda: "is not mounted" in watcher_error(home), "the missing inbox is noticed")
        assert "is not mounted" in read_status(home).reason
        assert files_below(home.inbox) == []
        mount(places[home.inbox], home.inbox)
        drop(home, "b.wav", seed=2)
        eventually(lambda: states(home) == [JobState.DONE] * 2, "the second file is done")

        unmount(home.outbox)
        drop(home, "slow-0.3-c.wav", seed=3)
        eventually(lambda: len(jobs_of(home)) == 3 and jobs_of(home)[2].claim_no >= 2, "it was tried twice")
        job = jobs_of(home)[2]
        assert job.attempt <= 1, "no attempt is burnt"
        assert list(home.outbox.iterdir()) == [], "nothing lands on the disk below"
        mount(places[home.outbox], home.outbox)
        eventually(lambda: states(home) == [JobState.DONE] * 3, "the third file is done")

        drop(home, "slow-1.5-d.wav", seed=4)
        eventually(lambda: len(states(home)) == 4 and states(home)[3] is JobState.RUNNING, "the fourth runs")
        unmount(home.outbox)  # pulled out while its result is written
        eventually(lambda: states(home)[3] is JobState.QUEUED, "it is given back")
        assert list(home.outbox.iterdir()) == []
        mount(places[home.outbox], home.outbox)
        eventually(lambda: states(home)[3] is JobState.DONE, "the fourth file is done")
    assert files_below(home.outbox) == ["a.wav", "b.wav", "slow-0.3-c.wav", "slow-1.5-d.wav"]
    assert [job.attempt for job in jobs_of(home)] == [1] * 4
    print("the story ended well")


if __name__ == "__main__":
    main()
