"""Voice, settings and output path from where a file is dropped and what lies beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import RvcBatchError, SidecarInvalid, VoiceNotChosen, VoiceUnknown
from rvc_batch.jobs.request import Choices, choose_voice, output_rel, read_request

LIBRARY = ("Ärger", "alto", "tenor")


def choices(voices: tuple[str, ...] = LIBRARY, default: str = "") -> Choices:
    return Choices(voices, default, ConversionSettings(transpose=1.0))


@pytest.mark.parametrize(
    ("rel", "voice"),
    [
        ("alto/song.wav", "alto"),
        ("alto/album/cd 1/song.wav", "alto"),
        ("ALTO/song.wav", "alto"),
        ("A\u0308RGER/song.wav", "Ärger"),
    ],
)
def test_first_folder_chooses_the_voice(rel: str, voice: str) -> None:
    assert choose_voice(rel.encode(), choices()) == voice


def test_exact_name_goes_before_one_that_differs_in_case() -> None:
    assert choose_voice(b"Alto/a.wav", choices(("ALTO", "Alto", "alto"))) == "Alto"


def test_name_that_fits_two_voices_is_unknown_and_lists_both() -> None:
    with pytest.raises(VoiceUnknown, match="did you mean ALTO, alto"):
        choose_voice(b"aLTo/a.wav", choices(("ALTO", "alto")))


def test_unknown_folder_lists_near_matches_even_if_there_is_a_default() -> None:
    with pytest.raises(VoiceUnknown, match=r"'altoo'.*did you mean alto"):
        choose_voice(b"altoo/a.wav", choices(default="tenor"))


def test_file_without_folder_gets_the_default_voice() -> None:
    assert choose_voice(b"a.wav", choices(default="tenor")) == "tenor"


def test_file_without_folder_gets_the_only_voice() -> None:
    assert choose_voice(b"a.wav", choices(("tenor",))) == "tenor"


@pytest.mark.parametrize("voices", [(), LIBRARY])
def test_file_that_could_get_any_voice_fails(voices: tuple[str, ...]) -> None:
    with pytest.raises(VoiceNotChosen, match=r"inbox/<voice>/"):
        choose_voice(b"a.wav", choices(voices))


def test_sidecar_changes_settings_and_voice(tmp_path: Path) -> None:
    (tmp_path / "a.wav.toml").write_text('voice = "tenor"\nprotect = 0.2\n')
    request = read_request(tmp_path / "a.wav", b"alto/a.wav", choices())
    assert request.voice == "tenor"
    assert request.settings == ConversionSettings(transpose=1.0, protect=0.2)


def test_without_sidecar_the_defaults_hold(tmp_path: Path) -> None:
    assert read_request(tmp_path / "a.wav", b"alto/a.wav", choices()).settings.transpose == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transpose = 3\nprotect = 7", "a.wav.toml:2: protect is 7"),
        ("transpose = 3\n\nbanana = 1", "a.wav.toml:3: unknown setting 'banana'"),
        ('transpose = "up"', "a.wav.toml:1: transpose is 'up'"),
        ("voice = 3", "a.wav.toml:1: voice is 3"),
        ("transpose = \n", "at line 1"),
        ("x" * 70_000, "more than 65536 bytes"),
    ],
)
def test_bad_sidecar_is_an_error_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.wav.toml").write_text(text)
    with pytest.raises(SidecarInvalid) as caught:
        read_request(tmp_path / "a.wav", b"alto/a.wav", choices())
    assert said in str(caught.value)


def test_sidecar_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.wav.toml").write_bytes(b"transpose = 1\n# \xff\n")
    with pytest.raises(SidecarInvalid, match="toml:2: not UTF-8"):
        read_request(tmp_path / "a.wav", b"alto/a.wav", choices())


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_sidecar_that_is_no_file_is_an_error_and_blocks_nobody(tmp_path: Path, kind: str) -> None:
    sidecar = tmp_path / "a.wav.toml"
    if kind == "link":
        sidecar.symlink_to("/etc/hostname")
    elif kind == "fifo":
        os.mkfifo(sidecar)
    else:
        sidecar.mkdir()
    with pytest.raises(SidecarInvalid):
        read_request(tmp_path / "a.wav", b"alto/a.wav", choices())


def test_unknown_voice_in_the_sidecar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav.toml").write_text('voice = "bass"')
    with pytest.raises(RvcBatchError, match="no voice 'bass'"):
        read_request(tmp_path / "a.wav", b"alto/a.wav", choices())


@pytest.mark.parametrize(
    ("rel", "kind", "expected"),
    [
        (b"a.wav", "flac", b"a.flac"),
        (b"alto/x/a.b.mp3", "wav24", b"alto/x/a.b.wav"),
        (b"bad\xff.WAV", "wav", b"bad\xff.wav"),
        (b"-rf\n.ogg", "mp3", b"-rf\n.mp3"),
    ],
)
def test_output_has_the_path_of_the_source_and_the_suffix_of_its_format(rel: bytes, kind: str, expected: bytes) -> None:
    assert output_rel(rel, ConversionSettings(output_format=kind)) == expected
