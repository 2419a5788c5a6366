"""Network volumes get no trust: no events, no database, no names that their server refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rvc_batch.config import Settings, WatchSettings
from rvc_batch.errors import HomeInvalid
from rvc_batch.home import Home
from rvc_batch.jobs import volumes
from rvc_batch.jobs.daemon import Daemon
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.watcher import NETWORK_SETTLE_SECONDS, POLLING, Hints, Watcher
from tests import inline_box
from tests.daemon_harness import drop, jobs_of
from tests.job_fakes import files_below

NETWORK = ["nfs", "nfs4", "cifs", "smbfs", "smb3", "afpfs", "webdav", "9p", "fuse.sshfs", "macfuse"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def mounted(monkeypatch: pytest.MonkeyPatch, **kinds: Path) -> None:
    """Let the mount table say that these folders are volumes of these kinds."""
    found = [SimpleNamespace(mountpoint="/", fstype="ext4")]
    found += [SimpleNamespace(mountpoint=str(place), fstype=kind) for kind, place in kinds.items()]
    monkeypatch.setattr(volumes.psutil, "disk_partitions", lambda all: found)


@pytest.mark.parametrize("kind", NETWORK)
def test_inbox_on_a_share_is_looked_at_in_intervals_and_settles_longer(
    home: Home, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounted(monkeypatch, **{kind: home.inbox})
    hints = Hints(home.inbox)
    hints.ensure()
    assert hints.mode == POLLING
    assert hints._observer is None, "no thread waits for events that never come"
    watcher = Watcher(home.inbox, lambda: WatchSettings(settle_seconds=3.0), intake=None, board=None)  # type: ignore[arg-type]
    assert watcher._rule().settle_seconds == NETWORK_SETTLE_SECONDS
    assert watcher.status().mode == POLLING


@pytest.mark.parametrize("kind", NETWORK)
def test_database_on_a_share_is_refused_at_the_start(home: Home, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounted(monkeypatch, **{kind: home.root})
    with pytest.raises(HomeInvalid, match=f"network volume .{kind}"):
        Daemon(home, Settings()).run()
    assert not home.database.exists()


def test_database_on_a_share_can_be_insisted_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch, nfs4=home.root)

    class Served(Exception):
        pass

    def serve(*_: object) -> None:
        raise Served

    monkeypatch.setattr(Daemon, "_serve", serve)
    with pytest.raises(Served):
        Daemon(home, Settings(network_state=True)).run()


def test_inbox_and_outbox_on_shares_are_no_reason_to_refuse(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch, nfs=home.inbox, cifs=home.outbox)
    volumes.refuse_network_state(home)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"tenor/a.wav", b"tenor/a.wav"),
        (b'a:b?c*d"e<f>g|h\\i.wav', b"a_b_c_d_e_f_g_h_i.wav"),
        (b"end. /song.wav", b"end__/song.wav"),
        (b"new\nline.wav", b"new_line.wav"),
        (b"bad\xff.wav", b"bad_.wav"),
        ("日本 é.wav".encode(), "日本 é.wav".encode()),
    ],
)
def test_names_are_made_acceptable(name: bytes, kept: bytes) -> None:
    assert volumes.acceptable(name) == kept


def test_results_on_a_share_have_names_it_takes_and_stay_apart(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch, cifs=home.outbox)
    for seed, name in enumerate(["what?.wav", "what*.wav", "plain.wav"]):
        drop(home, name, seed=seed)
    inline_box.live(home)
    assert {job.state for job in jobs_of(home)} == {JobState.DONE}
    assert files_below(home.outbox) == ["plain.wav", "what_ (2).wav", "what_.wav"]
    assert files_below(home.processed) == ["plain.wav", "what*.wav", "what?.wav"], "that is a disk of our own"
