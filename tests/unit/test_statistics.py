"""`stats` sums up what the journal and the timings say, and draws it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.cli.stats import start_of
from rvc_batch.errors import ExtraMissing, RetryClass, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.statistics import BUCKETS, Statistics, read_statistics
from rvc_batch.plots import statistics as plot
from tests.cli_harness import run
from tests.queue_fakes import EPOCH, FakeClock, claimed, error, finished, queued

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@pytest.fixture
def queue(home: Home, clock: FakeClock) -> Iterator[Queue]:
    opened = Queue.open(home.database, clock=clock)
    yield opened
    opened.close()


def hour_of_work(queue: Queue, clock: FakeClock) -> Statistics:
    """Before the hour: one job. In it: three for anna at 10x, one for tom at 5x that waited, a failure, one left."""
    queued(queue, "old.wav")
    finished(queue, claimed(queue))
    clock.now = EPOCH + 3600
    for number in range(3):
        queued(queue, f"{number}.wav")
        clock.step(600)
        finished(queue, claimed(queue), seconds_in=60, wall_seconds=6)
    queued(queue, "slow.wav", voice="tom")
    queued(queue, "bad.wav", voice="tom")
    clock.step(600)
    finished(queue, claimed(queue), seconds_in=100, wall_seconds=20)
    queue.fail(claimed(queue), error("E_INPUT_EMPTY"), retry=RetryClass.NEVER)
    queued(queue, "waits.wav")
    clock.now = EPOCH + 7200
    return read_statistics(queue, since=EPOCH + 3600, until=clock.now)


def test_work_is_summed_up_per_voice(queue: Queue, clock: FakeClock) -> None:
    found = hour_of_work(queue, clock)
    assert (found.all.done, found.all.failed, found.all.audio_seconds, found.all.work_seconds) == (4, 1, 280.0, 38.0)
    assert found.realtime_factor == pytest.approx(280 / 38)
    assert list(found.voices) == ["anna", "tom"]
    assert found.voices["anna"].realtime_factor == 10.0
    assert found.voices["anna"].speed is not None
    assert (found.voices["tom"].done, found.voices["tom"].failed, found.voices["tom"].speed) == (1, 1, None)
    assert found.failures == {"E_INPUT_EMPTY": 1}
    assert found.median_wait_seconds == 600.0
    assert found.stage_seconds == {"synth": 12.0, "features": 8.0, "decode": 2.0}


def test_queue_length_is_counted_back_from_now(queue: Queue, clock: FakeClock) -> None:
    steps = hour_of_work(queue, clock).timeline.queue
    began = EPOCH + 3600
    assert steps[0] == (began, 0)
    lengths = {}
    for at, length in steps:
        lengths[at - began] = length
    assert lengths == {0: 1, 600: 1, 1200: 1, 1800: 2, 2400: 1, 3600: 1}


def test_buckets_hold_everything_once(queue: Queue, clock: FakeClock) -> None:
    timeline = hour_of_work(queue, clock).timeline
    assert len(timeline.edges) == BUCKETS + 1
    assert (timeline.edges[0], timeline.edges[-1]) == (EPOCH + 3600, EPOCH + 7200)
    assert (sum(timeline.done), sum(timeline.audio_seconds)) == (4, 280.0)
    assert timeline.audio_seconds[600 // 75] == 60.0
    assert {stage: sum(seconds) for stage, seconds in timeline.stage_seconds.items()} == {
        "decode": 2.0,
        "features": 8.0,
        "synth": 12.0,
    }


@pytest.mark.parametrize(
    ("text", "ago"), [("90m", 5400), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600), ("1.5h", 5400)]
)
def test_since_is_a_span(text: str, ago: float) -> None:
    assert start_of(text, EPOCH) == EPOCH - ago


def test_since_is_a_date() -> None:
    assert start_of("2027-01-14T08:00:00+00:00", EPOCH) == EPOCH - 86_400


@pytest.mark.parametrize("text", ["", "yesterday", "24", "-1h", "0h", "2999-01-01"])
def test_since_that_means_no_time_in_the_past_is_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="--since is"):
        start_of(text, EPOCH)


# --- the command ---


def test_command_prints_and_draws(home: Home, queue: Queue, tmp_path: Path) -> None:
    import time

    clock = FakeClock()
    clock.now = time.time() - 7300
    with_now = Queue.open(home.database, owner=False, clock=clock)
    queued(with_now)
    finished(with_now, claimed(with_now), seconds_in=60, wall_seconds=6)
    with_now.close()
    picture = tmp_path / "p.png"
    shown = run(home, "stats", "--since", "3h", "--plot", str(picture)).stdout
    assert "all voices  1     0       0          1:00   0:06  10.0x" in shown
    assert "synth     54.5 %  0:03" in shown
    assert picture.read_bytes().startswith(SIGNATURE)
    assert [path.name for path in tmp_path.glob("*.part")] == []
    found = json.loads(run(home, "stats", "--json").stdout)
    assert (found["version"], found["stats"]["all"]["done"], found["stats"]["realtime_factor"]) == (1, 1, 10.0)


def test_empty_box_has_statistics_and_a_picture(home: Home, queue: Queue, tmp_path: Path) -> None:
    assert "all voices  0     0" in run(home, "stats", "--plot", str(tmp_path / "p.png")).stdout
    assert (tmp_path / "p.png").read_bytes().startswith(SIGNATURE)


def test_picture_without_matplotlib_says_what_to_install(
    home: Home, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExtraMissing, match="pip install matplotlib"):
        run(home, "stats", "--plot", str(tmp_path / "p.png"))
    assert run(home, "stats").stdout
    assert list(tmp_path.glob("*.png")) == []


def test_picture_that_cannot_be_written_is_one_sentence(home: Home, queue: Queue, tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be written"):
        run(home, "stats", "--plot", str(tmp_path / "no folder" / "p.png"))


def test_picture_shows_the_numbers(queue: Queue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    axes: list[Any] = []

    @contextmanager
    def keep(_: Path, *, rows: int, height: float) -> Iterator[tuple[Any, Any]]:
        figure = Figure()
        axes.extend(figure.subplots(rows, 1, sharex=True))
        yield figure, axes

    monkeypatch.setattr(plot, "drawn", keep)
    found = hour_of_work(queue, clock)
    plot.draw_timeline(found.timeline, Path("unused.png"))
    throughput, length, stages = axes
    assert sum(bar.get_height() for bar in throughput.patches) == pytest.approx(280 / 60)
    assert [int(y) for y in length.lines[0].get_ydata()] == [n for _, n in found.timeline.queue]
    full = [bar.get_height() for bar in stages.patches if bar.get_height() > 0]
    assert sum(full) == pytest.approx(400), "four buckets hold work, each adds up to 100 %"
