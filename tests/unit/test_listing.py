"""What a look at the inbox takes, and what it leaves alone and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvc_batch.jobs.listing import Listing, list_inbox


def listed(inbox: Path, depth: int = 8) -> Listing:
    return list_inbox(inbox, depth=depth)


def reasons(listing: Listing) -> dict[bytes, str]:
    return {p.rel: p.reason for p in listing.passed}


def test_audio_in_folders_is_found_with_its_path_below_the_inbox(tmp_path: Path) -> None:
    (tmp_path / "alto" / "x").mkdir(parents=True)
    (tmp_path / "alto" / "x" / "b.flac").write_bytes(b"12345")
    (tmp_path / "a.wav").touch()
    found = listed(tmp_path).candidates
    assert list(found) == [b"a.wav", b"alto/x/b.flac"]
    assert found[b"alto/x/b.flac"].size == 5


@pytest.mark.timeout(5)
def test_links_fifos_and_sockets_are_never_candidates(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "r.wav").touch()
    (tmp_path / "link.wav").symlink_to(tmp_path / "real" / "r.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "fifo.wav")
    listing = listed(tmp_path)
    assert list(listing.candidates) == [b"real/r.wav"]
    assert reasons(listing) == {
        b"link.wav": "symbolic link",
        b"dangling.wav": "symbolic link",
        b"loop": "symbolic link",
        b"fifo.wav": "not a regular file",
    }


def test_temporary_names_and_other_extensions_are_shown_with_the_reason(tmp_path: Path) -> None:
    for name in ("a.wav.part", "notes.txt", ".hidden.wav", "._a.wav", "stray.wav.toml"):
        (tmp_path / name).touch()
    listing = listed(tmp_path)
    assert not listing.candidates
    found = reasons(listing)
    assert set(found) == {b"a.wav.part", b"notes.txt", b"stray.wav.toml"}
    assert found[b"notes.txt"] == "extension"
    assert "stray.wav is not beside it" in found[b"stray.wav.toml"]


def test_system_folders_and_deep_folders_are_not_entered(tmp_path: Path) -> None:
    for folder in ("@eaDir", ".stfolder", "x.download", "1/2/3"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.wav").touch()
    listing = listed(tmp_path, depth=2)
    assert not listing.candidates
    assert reasons(listing)[b"1/2/3"] == "folder too deep"
    assert list(listed(tmp_path, depth=3).candidates) == [b"1/2/3/a.wav"]


def test_download_in_progress_and_settings_are_part_of_the_look(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "b.wav.crdownload", "c.wav", "c.wav.toml"):
        (tmp_path / name).touch()
    found = listed(tmp_path).candidates
    assert [found[n].sibling for n in (b"a.wav", b"b.wav", b"c.wav")] == [None, b"b.wav.crdownload", None]
    assert [found[n].sidecar is None for n in (b"a.wav", b"b.wav", b"c.wav")] == [True, True, False]


def test_undecodable_and_odd_names_are_files_like_any_other(tmp_path: Path) -> None:
    names = [b"bad\xff.wav", b"-rf.wav", b" lead.wav", b"new\nline.wav", "e\u0301.wav".encode(), "é.wav".encode()]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    assert sorted(listed(tmp_path).candidates) == sorted(names)


def test_missing_inbox_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listed(tmp_path / "gone")
