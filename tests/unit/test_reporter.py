"""The thread that tells others: at least once, never in the way, and never the end of it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch.config import HookSettings, MetricsSettings, Settings
from rvc_batch.errors import DatabaseUnusable, HookFailed
from rvc_batch.home import Home
from rvc_batch.jobs.notices import RETRY_SECONDS, Batch
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.reporter import Reporter
from tests.queue_fakes import FakeClock, claimed, finished, queued

HOOK = HookSettings(command=("/bin/true",), name="h", on=("done",))


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


class Phone:
    """What is called."""

    def __init__(self) -> None:
        self.heard: list[Batch] = []
        self.is_dead = False

    def __call__(self, hook: HookSettings, batch: Batch, home: Home) -> None:
        if self.is_dead:
            raise HookFailed("nobody answers")
        self.heard.append(batch)


def reporter(home: Home, queue: Queue, clock: FakeClock, phone: Phone, **settings: object) -> Reporter:
    chosen = Settings(**{"hooks": (HOOK,)} | settings)  # type: ignore[arg-type]
    made = Reporter(home, lambda: chosen, queue.notices(), call=phone, clock=clock, monotonic=clock)
    made.report()
    return made


def test_dead_hook_is_told_later_and_nothing_is_lost(
    home: Home, queue: Queue, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    phone = Phone()
    box = reporter(home, queue, clock, phone)
    phone.is_dead = True
    for name in ("a.wav", "b.wav"):
        queued(queue, name)
        finished(queue, claimed(queue))
    with caplog.at_level(logging.WARNING):
        box.report()
    assert "hook h: nobody answers" in caplog.text
    phone.is_dead = False
    box.report()
    assert phone.heard == [], "it rests"
    clock.step(RETRY_SECONDS[0] + 1)
    box.report()
    box.report()
    assert [[body["source"] for body in batch.bodies] for batch in phone.heard] == [["anna/a.wav", "anna/b.wav"]]


def test_call_whose_success_was_not_written_down_is_made_again(
    home: Home, queue: Queue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Phone()
    box = reporter(home, queue, clock, phone)
    queued(queue)
    finished(queue, claimed(queue))

    def crash(_: Batch) -> None:
        raise DatabaseUnusable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(box._notices, "told", crash)
        box.report()
    box.report()
    assert len(phone.heard) == 2, "at least once"


def test_nothing_that_goes_wrong_ends_it(
    home: Home, queue: Queue, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    phone = Phone()
    box = reporter(home, queue, clock, phone, metrics=MetricsSettings(textfile=str(home.root / "no" / "m.prom")))
    assert "hooks and metrics wait" in caplog.text

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    box._notices.collect = bug  # type: ignore[method-assign, assignment]
    box.report()
    assert "go on after an unexpected error" in caplog.text


def test_end_of_the_daemon_is_not_held_up_and_the_rest_is_told_after_the_next_start(
    home: Home, queue: Queue, clock: FakeClock
) -> None:
    heard: list[str] = []

    def slow(hook: HookSettings, batch: Batch, home: Home) -> None:
        heard.append(hook.key)
        clock.step(10)

    hooks = tuple(HookSettings(command=("/bin/true",), name=name, on=("done",)) for name in ("a", "b", "c"))
    first = Reporter(home, lambda: Settings(hooks=hooks), queue.notices(), call=slow, clock=clock, monotonic=clock)
    first.report()
    queued(queue)
    finished(queue, claimed(queue))
    first._thread.run = lambda: None  # type: ignore[method-assign]
    first.start()
    first.stop()
    first.report()
    assert heard == ["a"]
    second = Reporter(home, lambda: Settings(hooks=hooks), queue.notices(), call=slow, clock=clock, monotonic=clock)
    second.report()
    assert heard == ["a", "b", "c"]


def test_metrics_file_is_written_whole_and_as_often_as_asked(home: Home, queue: Queue, clock: FakeClock) -> None:
    file = home.root / "rvcb.prom"
    settings = MetricsSettings(textfile=str(file), every_seconds=30)
    box = reporter(home, queue, clock, Phone(), hooks=(), metrics=settings)
    assert file.read_text().startswith("# HELP rvcb_up ")
    file.unlink()
    clock.step(29)
    box.report()
    assert not file.exists()
    clock.step(2)
    box.report()
    assert file.exists()
    assert sorted(path.name for path in home.root.glob("*prom*")) == ["rvcb.prom"]
