"""systemd hears READY once and WATCHDOG in time, from the main loop only."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch.jobs.notify import Notifier
from tests.queue_fakes import FakeClock


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def said(heard: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(heard.recv(1000).decode())
        except BlockingIOError:
            return messages


def test_ready_comes_once_and_the_watchdog_is_fed_four_times_per_period(systemd: socket.socket) -> None:
    clock = FakeClock()
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "120000000"}, clock)
    notifier.beat()
    assert said(systemd) == ["READY=1", "WATCHDOG=1"]
    for _ in range(29):
        clock.step(1)
        notifier.beat()
    assert said(systemd) == []
    clock.step(1)
    notifier.beat()
    assert said(systemd) == ["WATCHDOG=1"]


def test_watchdog_of_another_process_is_left_alone(systemd: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid() + 1)}
    Notifier(environment).beat()
    assert said(systemd) == ["READY=1"]


def test_abstract_socket_is_found() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0rvc-batch-test-{os.getpid()}")
        heard.setblocking(False)
        Notifier({"NOTIFY_SOCKET": f"@rvc-batch-test-{os.getpid()}"}).beat()
        assert said(heard) == ["READY=1"]


def test_without_systemd_nothing_is_sent_and_a_dead_one_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({}).beat()
    assert not caplog.records
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).beat()
    assert "cannot be told READY=1" in caplog.text
