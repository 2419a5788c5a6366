"""What is said to be durable reaches the operating system's fsync, in the order that survives power loss."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.jobs import durable


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record every sync and rename, by the inode it concerns."""
    found: list[str] = []
    sync, replace = durable.os.fsync, Path.replace

    def record_sync(fd: int) -> None:
        found.append(f"sync {os.fstat(fd).st_ino}")
        sync(fd)

    def record_replace(path: Path, target: Any) -> Path:
        found.append(f"replace {path.stat().st_ino}")
        return replace(path, target)

    monkeypatch.setattr(durable.fcntl, "F_FULLFSYNC", None, raising=False)
    monkeypatch.setattr(durable.os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    return found


def test_folder_and_file_are_synced_themselves(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"x")
    durable.sync_folder(tmp_path)
    durable.sync_path(tmp_path / "a")
    assert calls == [f"sync {tmp_path.stat().st_ino}", f"sync {(tmp_path / 'a').stat().st_ino}"]


def test_file_is_replaced_only_when_its_new_content_is_durable(tmp_path: Path, calls: list[str]) -> None:
    durable.write_whole(tmp_path / "a", b"new", durable=True)
    inode = (tmp_path / "a").stat().st_ino
    assert calls == [f"sync {inode}", f"replace {inode}", f"sync {tmp_path.stat().st_ino}"]


def test_new_folders_are_durable_one_by_one(tmp_path: Path, calls: list[str]) -> None:
    durable.make_folders(tmp_path, Path("a/b"))
    assert calls == [f"sync {folder.stat().st_ino}" for folder in (tmp_path, tmp_path / "a")]


def test_copy_gets_its_name_only_when_it_is_durable(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    link = durable.link_exclusively

    def other_volume(source: Path, target: Path) -> None:
        if source.name == "a":
            raise OSError(18, "Invalid cross-device link")
        calls.append(f"link {source.stat().st_ino}")
        link(source, target)

    monkeypatch.setattr(durable, "link_exclusively", other_volume)
    durable.link_or_copy(tmp_path / "a", tmp_path / "b")
    inode = (tmp_path / "b").stat().st_ino
    assert calls == [f"sync {inode}", f"link {inode}"]


@pytest.mark.skipif(sys.platform == "darwin", reason="the call is the real one there")
def test_macos_syncs_beyond_the_cache_of_the_drive(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(durable.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(durable.fcntl, "fcntl", lambda fd, command: asked.append(command))
    durable.sync_folder(tmp_path)
    assert (asked, calls) == ([51], [])
