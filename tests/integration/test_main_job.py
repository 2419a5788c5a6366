"""The main job as a user does it: drop twenty files of all kinds, run, and look into the outbox."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.demo.box import SPEECH
from tests.media_files import write_media

ROOT = Path(__file__).parents[2]
# name, rate, channels, container, subtype
FILES = [
    ("u8.wav", 8_000, 1, "WAV", "PCM_U8"),
    ("s16.wav", 16_000, 1, "WAV", "PCM_16"),
    ("s16 stereo.wav", 44_100, 2, "WAV", "PCM_16"),
    ("s24.wav", 48_000, 1, "WAV", "PCM_24"),
    ("s24 stereo.wav", 96_000, 2, "WAV", "PCM_24"),
    ("s32.wav", 22_050, 1, "WAV", "PCM_32"),
    ("float.wav", 44_100, 1, "WAV", "FLOAT"),
    ("float stereo.wav", 48_000, 2, "WAV", "FLOAT"),
    ("double.wav", 16_000, 1, "WAV", "DOUBLE"),
    ("ulaw.wav", 8_000, 1, "WAV", "ULAW"),
    ("mono.flac", 44_100, 1, "FLAC", "PCM_16"),
    ("stereo.flac", 96_000, 2, "FLAC", "PCM_24"),
    ("mono.mp3", 44_100, 1, "MP3", "MPEG_LAYER_III"),
    ("stereo.mp3", 48_000, 2, "MP3", "MPEG_LAYER_III"),
    ("mono.ogg", 44_100, 1, "OGG", "VORBIS"),
    ("stereo.ogg", 32_000, 2, "OGG", "VORBIS"),
    ("opus.ogg", 48_000, 1, "OGG", "OPUS"),
    ("mono.aiff", 44_100, 1, "AIFF", "PCM_16"),
    ("stereo.aiff", 11_025, 2, "AIFF", "PCM_24"),
    ("müsik 你好.wav", 44_100, 1, "WAV", "PCM_16"),
]


def rvc_batch(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rvc_batch", "--home", str(home), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def answer(home: Path, *arguments: str) -> Any:
    done = rvc_batch(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path: Path, checkpoints: Callable[[str], Path]) -> Path:
    """A home with the synthetic networks and two voices."""
    tiny = checkpoints("tiny")
    root = tmp_path / "box"
    for folder in ("inbox/anna/takes", "models", "voices"):
        (root / folder).mkdir(parents=True)
    for name in ("hubert_base.pt", "rmvpe.pt"):
        shutil.copy(tiny / name, root / "models")
    shutil.copy(tiny / "voices" / "v2_40k_f0_feat48.pth", root / "voices" / "anna.pth")
    shutil.copy(tiny / "voices" / "v1_32k_nof0.pth", root / "voices" / "tom.pth")
    (root / "rvc-batch.toml").write_text("[watch]\nsettle_seconds = 0.2\nrescan_seconds = 0.5\n")
    return root


def test_twenty_files_of_all_kinds_come_out_and_a_text_file_blocks_nothing(home: Path) -> None:
    rng = np.random.default_rng(0)
    for name, rate, channels, container, subtype in FILES:
        wave = 0.2 * rng.standard_normal((rate // 4, channels)).clip(-3, 3)
        sf.write(home / "inbox" / "anna" / "takes" / name, wave, rate, subtype, format=container)
    write_media(home / "inbox" / "anna" / "memo.m4a", "m4a", 0.1 * rng.standard_normal(12_000).clip(-3, 3))
    (home / "inbox" / "anna" / "a letter.wav").write_text("Dear Anna, this is no audio.\n" * 20)
    ran = rvc_batch(home, "run", "--until-idle")
    assert ran.returncode == 0, ran.stderr[-2000:]

    jobs = {job["source_name"]: job for job in answer(home, "jobs", "--limit", "100")["jobs"]}
    assert len(jobs) == len(FILES) + 2
    assert sf.info(home / "outbox" / "anna" / "memo.wav").frames == pytest.approx(10_000, abs=41)
    for name, *_ in FILES:
        job = jobs[f"anna/takes/{name}"]
        assert job["state"] == "done", job["error"]
        details = answer(home, "job", str(job["id"]))
        (attempt,) = details["attempts"]
        assert {"decode", "pitch", "features", "synth", "encode"} <= set(attempt["stage_seconds"])
        info = sf.info(home / "outbox" / "anna" / "takes" / f"{Path(name).stem}{suffix_of(job)}")
        assert info.samplerate == 40_000
        assert info.frames == pytest.approx(10_000, abs=2_000 if "mp3" in name else 3)
    letter = jobs["anna/a letter.wav"]
    assert letter["state"] == "failed"
    assert letter["error"]["code"] == "E_INPUT_NOT_AUDIO"
    error_text = (home / "failed" / "anna" / "a letter.wav.error.txt").read_text()
    assert "it looks like text" in error_text
    assert (home / "failed" / "anna" / "a letter.wav").is_file()
    assert sorted(p.name for p in (home / "inbox").rglob("*") if p.is_file()) == []
    assert len(list((home / "processed" / "anna" / "takes").iterdir())) == len(FILES)

    again = rvc_batch(home, "render-again", str(home / "outbox" / "anna" / "memo.wav"), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["source"] == str(home / "processed" / "anna" / "memo.m4a")
    assert json.loads(again.stdout)["is_identical"] is True


def suffix_of(job: dict[str, Any]) -> str:
    """Names that would collide got a number: a.flac and a.mp3 both become a.wav."""
    return Path(job["output_rel"]).name.removeprefix(Path(job["source_name"]).stem)


def test_convert_and_pitch_work_without_the_queue(home: Path, tmp_path: Path) -> None:
    source = SPEECH / "slt.flac"
    target = tmp_path / "out.flac"
    done = rvc_batch(home, "convert", str(source), str(target), "--voice", "tom", "--seed", "3", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rate_out"] == 32_000
    assert report["samples_out"] == sf.info(target).frames == round(report["samples_in"] * 32_000 / report["rate_in"])
    assert report["seed"] == 3
    assert report["dialect"] == "rvc-2023"
    assert report["realtime_factor"] > 0
    assert set(report["stage_seconds"]) >= {"decode", "features", "synth"}
    again = rvc_batch(home, "convert", str(source), str(target), "--voice", "tom")
    assert again.returncode == 78
    assert again.stderr.startswith("error E_CONFIG: ")
    assert "is there already" in again.stderr
    pitch = rvc_batch(home, "pitch", str(source))
    rows = pitch.stdout.splitlines()
    assert rows[0] == "time_s,f0_hz"
    assert len(rows) == 2 + sf.info(source).frames // 160


def test_unknown_voices_are_named_with_near_matches(home: Path, tmp_path: Path) -> None:
    source = SPEECH / "slt.flac"
    done = rvc_batch(home, "convert", str(source), str(tmp_path / "x.wav"), "--voice", "ana")
    assert done.returncode == 66
    assert "E_VOICE_UNKNOWN" in done.stderr
    assert "anna" in done.stderr
    listed = answer(home, "voices")
    assert {v["name"] for v in listed["voices"]} == {"anna", "tom"}


RENDER = """
import sys
from pathlib import Path
from rvc_batch.config import Settings
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.home import Home
from rvc_batch.jobs.renderer import open_engine

home, source, target = Home(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
renderer = open_engine(home, Settings())
renderer.warm_up()
renderer.render(source, target, voice="anna", settings=ConversionSettings(), progress=lambda _: None)
assert renderer.backend == "mlx"
sys.exit(", ".join(sorted({"torch", "alembic", "sqlalchemy", "watchdog"} & set(sys.modules))) or None)
"""


def test_the_worker_with_mlx_never_imports_torch(
    home: Path, checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    (index,) = (checkpoints("tiny") / "index").glob("*_v2.index")
    shutil.copy(index, home / "voices" / "anna.index")
    source = tmp_path / "take" / "a.flac"
    source.parent.mkdir()
    shutil.copy(SPEECH / "slt.flac", source)
    command = [sys.executable, "-c", RENDER, str(home), str(source), str(tmp_path / "out.wav")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported: {done.stderr[-2000:]}"
    assert sf.info(tmp_path / "out.wav").frames == round(sf.info(source).frames * 40_000 / 16_000)
