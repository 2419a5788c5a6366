"""The order in which a result becomes visible, and what a crash in between leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rvc_batch.errors import DatabaseUnusable, OutputInvalid
from rvc_batch.jobs import durable, publish
from rvc_batch.jobs.models import Job
from rvc_batch.jobs.publish import Sealed, deliver, is_published, is_taken, prepare, seal, sweep, temp_path
from tests.job_fakes import job_like, report_like

SAMPLES, RATE = 1000, 16_000


class Ledger:
    """Records what the queue is told, with everything else that happens."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record_intent(self, job: Job, *, output_sha256: str, output_size: int) -> None:
        self.log.append("intent")

    def reserve_another_name(self, job: Job, *, taken: Callable[[bytes], bool]) -> Job:
        names = (b"alto/song (%d).wav" % n for n in range(2, 99))
        return replace(job, output_rel=next(n for n in names if not taken(n)))

    def finish(self, job: Job, report: object) -> Job:
        self.log.append("commit")
        return job


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    folder = tmp_path / "outbox"
    folder.mkdir()
    return folder


@pytest.fixture
def job(outbox: Path) -> Job:
    job = job_like(output_rel=b"alto/song.wav")
    prepare(outbox, job)
    return job


def rendered(outbox: Path, job: Job, *, samples: int = SAMPLES) -> Path:
    temp = temp_path(outbox, job)
    soundfile.write(temp, np.linspace(-0.5, 0.5, samples), RATE, format="WAV", subtype="PCM_16")
    return temp


def published(outbox: Path, job: Job, log: list[str] | None = None) -> Job:
    temp = rendered(outbox, job)
    report = report_like(samples=SAMPLES, rate=RATE)
    sealed = seal(temp, report)
    return deliver(Ledger([] if log is None else log), outbox, job, temp, sealed=sealed, report=report)


def test_steps_happen_in_the_order_that_survives_power_loss(
    outbox: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def recorded(name: str) -> None:
        original = getattr(durable, name)

        def call(*arguments: Path) -> None:
            log.append(f"{name} {arguments[-1].name}")
            original(*arguments)

        monkeypatch.setattr(durable, name, call)

    for name in ("sync_path", "link_exclusively", "sync_folder"):
        recorded(name)
    published(outbox, job, log)
    temp = temp_path(outbox, job).name
    assert log == [
        f"sync_path {temp}",
        "intent",
        "sync_folder outbox",  # the new folder `alto` is durable before something is in it
        "link_exclusively song.wav",
        "sync_folder alto",
        "commit",
    ]


def test_result_is_whole_and_nothing_else_is_left(outbox: Path, job: Job) -> None:
    published(outbox, job)
    assert soundfile.info(outbox / "alto" / "song.wav").frames == SAMPLES
    assert [p.name for p in outbox.rglob("*") if p.is_file()] == ["song.wav"]


def test_file_of_the_user_is_never_overwritten(outbox: Path, job: Job) -> None:
    own = outbox / "alto" / "song.wav"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    done = published(outbox, job)
    assert own.read_bytes() == b"mine"
    assert done.output_rel == b"alto/song (2).wav"
    assert soundfile.info(outbox / "alto" / "song (2).wav").frames == SAMPLES


@pytest.mark.parametrize("kind", ["broken link", "folder"])
def test_anything_of_that_name_counts_as_taken(outbox: Path, job: Job, kind: str) -> None:
    own = outbox / "alto" / "song.wav"
    own.parent.mkdir()
    if kind == "folder":
        own.mkdir()
    else:
        own.symlink_to(outbox / "nowhere")
    assert is_taken(outbox, b"alto/song.wav")
    assert published(outbox, job).output_rel == b"alto/song (2).wav"


def test_delivery_can_be_repeated_after_every_step(outbox: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    temp, report = rendered(outbox, job), report_like(samples=SAMPLES, rate=RATE)
    sealed = seal(temp, report)
    points = (publish.PUBLISH_INTENDED, publish.PUBLISH_LINKED, publish.PUBLISH_SYNCED)
    for broken in points:

        def fail(name: str, broken: str = broken) -> None:
            if name == broken:
                raise DatabaseUnusable("locked")

        monkeypatch.setattr(publish, "failpoint", fail)
        with pytest.raises(DatabaseUnusable):
            deliver(Ledger([]), outbox, job, temp, sealed=sealed, report=report)
    monkeypatch.undo()
    done = deliver(Ledger([]), outbox, job, temp, sealed=sealed, report=report)
    assert done.output_rel == b"alto/song.wav"
    assert [p.name for p in outbox.rglob("*") if p.is_file()] == ["song.wav"]


def test_name_that_cannot_be_made_durable_is_taken_back(
    outbox: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        if name == publish.PUBLISH_LINKED:
            raise OSError(5, "broken")

    monkeypatch.setattr(publish, "failpoint", broken)
    with pytest.raises(OSError, match="broken"):
        published(outbox, job)
    assert not (outbox / "alto" / "song.wav").exists()


def test_missing_outbox_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        prepare(tmp_path / "unmounted", job_like())
    assert not (tmp_path / "unmounted").exists()


def test_volume_without_links_gets_the_file_by_exclusive_rename(
    outbox: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", unsupported)
    (outbox / "alto").mkdir()
    (outbox / "alto" / "song.wav").write_bytes(b"mine")
    assert published(outbox, job).output_rel == b"alto/song (2).wav"
    assert (outbox / "alto" / "song.wav").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (report_like(samples=SAMPLES + 1, rate=RATE), "holds 1000 samples"),
        (report_like(samples=SAMPLES, rate=48_000), "at 16000 Hz"),
    ],
)
def test_result_of_wrong_length_or_rate_is_refused(outbox: Path, job: Job, report: object, said: str) -> None:
    with pytest.raises(OutputInvalid, match=said):
        seal(rendered(outbox, job), report)  # type: ignore[arg-type]


def test_result_that_is_not_finite_is_refused(outbox: Path, job: Job) -> None:
    temp = temp_path(outbox, job)
    soundfile.write(temp, np.array([0.0, np.nan], np.float32), RATE, format="WAV", subtype="FLOAT")
    with pytest.raises(OutputInvalid, match="not finite"):
        seal(temp, report_like(samples=2, rate=RATE))


def test_result_that_is_no_audio_is_refused(outbox: Path, job: Job) -> None:
    temp_path(outbox, job).write_bytes(b"half of a result")
    with pytest.raises(OutputInvalid, match="cannot be read back"):
        seal(temp_path(outbox, job), report_like(samples=2, rate=RATE))


@pytest.mark.parametrize("kind", ["MP3", "OGG", "FLAC"])
def test_lengths_of_all_formats_are_verified_exactly(outbox: Path, job: Job, kind: str) -> None:
    temp = temp_path(outbox, job)
    soundfile.write(temp, np.zeros(SAMPLES), RATE, format=kind)
    seal(temp, report_like(samples=SAMPLES, rate=RATE))
    with pytest.raises(OutputInvalid):
        seal(temp, report_like(samples=SAMPLES - 1, rate=RATE))


def test_published_result_is_recognised_by_what_was_recorded(outbox: Path, job: Job) -> None:
    published(outbox, job)
    sha256, size = durable.digest(outbox / "alto" / "song.wav")
    recorded = replace(job, output_sha256=sha256, output_size=size)
    assert is_published(outbox, recorded)
    assert not is_published(outbox, job)
    assert not is_published(outbox, replace(recorded, output_sha256="0" * 64))
    (outbox / "alto" / "song.wav").unlink()
    assert not is_published(outbox, recorded)


def test_sweep_removes_what_killed_workers_left(outbox: Path, job: Job) -> None:
    temp_path(outbox, job).write_bytes(b"half")
    (outbox / "mine.part").write_bytes(b"mine")
    assert sweep(outbox) == 1
    assert [p.name for p in outbox.rglob("*") if p.is_file()] == ["mine.part"]


def test_sweep_spares_jobs_at_work_and_what_is_made_meanwhile(outbox: Path, job: Job) -> None:
    ended = replace(job, public_id="0" * 12)
    kept, late = rendered(outbox, job), temp_path(outbox, replace(job, public_id="1" * 12))
    gone = rendered(outbox, ended)

    def at_work() -> set[str]:
        late.touch()  # claimed after the look
        return {job.public_id}

    assert sweep(outbox, at_work) == 1
    assert (kept.exists(), gone.exists(), late.exists()) == (True, False, True)


def test_sealed_hash_and_size_are_those_of_the_file(outbox: Path, job: Job) -> None:
    temp = rendered(outbox, job)
    assert seal(temp, report_like(samples=SAMPLES, rate=RATE)) == Sealed(*durable.digest(temp))
