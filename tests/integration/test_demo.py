"""`rvc-batch demo` as a newcomer runs it: each voice comes out as the other, with pictures; a broken box is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.demo import main_job
from rvc_batch.demo.box import SPEECH
from rvc_batch.errors import OutputInvalid


def test_demo_renders_each_voice_as_the_other_and_draws_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rvc_batch"]
    done = subprocess.run([*command, "demo", "box"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("done: the daemon has stopped")
    for speaker, voice in (("rms", "slt"), ("slt", "rms")):
        wave, rate = sf.read(tmp_path / "box" / "outbox" / voice / f"{speaker}.wav")
        before = sf.info(SPEECH / f"{speaker}.flac")
        assert (rate, wave.size) == (16_000, before.frames)
        assert np.sqrt(np.mean(wave**2)) > 0.02
        assert (tmp_path / "box" / f"{speaker}.png").read_bytes()[:4] == b"\x89PNG"
    jobs = subprocess.run(
        [*command, "--home", "box", "jobs", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [job["state"] for job in json.loads(jobs.stdout)["jobs"]] == ["done", "done"]


def test_demo_says_that_its_daemon_could_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_box = main_job.make_box

    def broken(home: main_job.Home) -> None:
        make_box(home)
        config = home.root / "rvc-batch.toml"
        config.write_text(config.read_text() + "nonsense = 1\n")

    monkeypatch.setattr(main_job, "make_box", broken)
    with pytest.raises(OutputInvalid, match=r"the daemon ended early with 78; .*daemon.log says why"):
        main_job.show(tmp_path / "box", print)
