"""Metrics are what the database and the heartbeat say, in a format that another parser would read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch.errors import RetryClass
from rvc_batch.home import Home
from rvc_batch.jobs.metrics import Metric, Sample, metrics_text, read_metrics
from rvc_batch.jobs.queue import Queue
from tests.cli_harness import run
from tests.queue_fakes import EPOCH, FakeClock, claimed, error, finished, queued
from tests.status_fakes import beat

LINE = re.compile(r'^[a-z_]+(\{([a-z]+="(\\.|[^"\\\n])*",?)*\})? -?[0-9.e+-]+$')


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(home: Home, clock: FakeClock) -> Iterator[Queue]:
    opened = Queue.open(home.database, clock=clock)
    yield opened
    opened.close()


def values(home: Home, queue: Queue, now: float) -> dict[str, str]:
    text = metrics_text(read_metrics(home, queue, now=now))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.match(line) for line in lines), lines
    return dict(line.rsplit(" ", 1) for line in lines)


def test_box_at_work(home: Home, queue: Queue, clock: FakeClock) -> None:
    for number in range(2):
        queued(queue, f"{number}.wav")
        finished(queue, claimed(queue), seconds_in=60, wall_seconds=6)
    queued(queue, "bad.wav")
    queue.fail(claimed(queue), error("E_INPUT_EMPTY"), retry=RetryClass.NEVER)
    queued(queue, "waits.wav", seconds_in=90)
    clock.step(30)
    beat(home, at=clock.now, database_busy=3)
    found = values(home, queue, clock.now)
    assert found["rvcb_up"] == found["rvcb_worker_up"] == "1"
    assert (found['rvcb_jobs{state="done"}'], found['rvcb_jobs{state="cancelled"}']) == ("2", "0")
    assert (found["rvcb_queue_audio_seconds"], found["rvcb_oldest_wait_seconds"]) == ("90", "30")
    assert found['rvcb_failures_total{code="E_INPUT_EMPTY"}'] == "1"
    assert found['rvcb_realtime_factor{voice="anna"}'] == "10"
    assert found["rvcb_last_success_timestamp"] == f"{EPOCH:.0f}"
    assert found["rvcb_db_busy_total"] == "3"
    assert found['rvcb_memory_bytes{kind="rss"}'] == "4000000000"
    synth = 'voice="anna",stage="synth"'
    assert found[f"rvcb_job_seconds_count{{{synth}}}"] == "2"
    assert found[f"rvcb_job_seconds_sum{{{synth}}}"] == "6"
    assert [found[f'rvcb_job_seconds_bucket{{{synth},le="{le}"}}'] for le in ("2", "5", "3600", "+Inf")] == list("0222")


def test_box_that_is_down_and_paused(home: Home, queue: Queue, clock: FakeClock) -> None:
    queue.pause("disk swap")
    found = values(home, queue, clock.now)
    assert (found["rvcb_up"], found["rvcb_worker_up"]) == ("0", "0")
    assert found['rvcb_paused{reason="by hand"}'] == "1"
    assert found["rvcb_last_success_timestamp"] == "0"


def test_restarts_are_counted_by_kind(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home, worker={"state": "idle", "restart_reasons": {"recycled": 2, "crashed": 1}})
    found = values(home, queue, clock.now)
    assert found['rvcb_worker_restarts_total{reason="recycled"}'] == "2"


def test_labels_cannot_break_the_format() -> None:
    metric = Metric("rvcb_x", "gauge", "X.", (Sample(0.25, {"voice": 'a"b\\c\nd'}),))
    assert metrics_text([metric]).splitlines()[-1] == 'rvcb_x{voice="a\\"b\\\\c\\nd"} 0.25'


def test_command_prints_text_or_json(home: Home, queue: Queue) -> None:
    text = run(home, "metrics").stdout
    assert "# TYPE rvcb_job_seconds histogram" in text
    assert text.endswith("\n")
    assert json.loads(run(home, "metrics", "--json").stdout)["metrics"][0]["name"] == "rvcb_up"
