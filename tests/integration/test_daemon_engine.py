"""The daemon with the real engine and tiny networks: from a drop to converted audio, and no framework in the daemon."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from rvc_batch.config import Settings, WorkerSettings
from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.renderer import open_engine
from tests.daemon_harness import ROOT, drop, jobs_of
from tests.job_fakes import files_below

SERVE = """
import sys
from pathlib import Path
from rvc_batch.config import Settings, WatchSettings, WorkerSettings
from rvc_batch.home import Home
from rvc_batch.jobs.daemon import Daemon, DaemonOptions

watch = WatchSettings(settle_seconds=0.1, rescan_seconds=0.3)
settings = Settings(watch=watch, worker=WorkerSettings(backend=sys.argv[2]))
Daemon(Home(Path(sys.argv[1])), settings, DaemonOptions(until_idle=True)).run()
sys.exit(", ".join(sorted({"mlx", "torch", "faiss"} & set(sys.modules))) or None)
"""


@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_dropped_file_is_converted_and_the_daemon_stays_light(
    tmp_path: Path, checkpoints: Callable[[str], Path], backend: str
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    tiny = checkpoints("tiny")
    for name in ("hubert_base.pt", "rmvpe.pt"):
        shutil.copy(tiny / name, home.models)
    shutil.copy(tiny / "voices" / "v2_40k_f0_feat48.pth", home.voices / "alto.pth")
    (home.voices / "aaa.pth").write_bytes(b"not a voice")  # must not keep the worker from starting
    drop(home, "ALTO/a.wav", seconds=1.0)
    (home.inbox / "ALTO" / "text.wav").write_text("no audio at all " * 100)
    served = subprocess.run(
        [sys.executable, "-c", SERVE, home.root, backend], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert served.returncode == 0, served.stderr[-3000:]
    found = {j.source_name: j for j in jobs_of(home)}
    assert found["ALTO/a.wav"].state is JobState.DONE
    info = soundfile.info(home.outbox / "ALTO" / "a.wav")
    assert (info.samplerate, info.frames) == (40_000, 40_000)
    failed = found["ALTO/text.wav"].error
    assert failed is not None
    assert failed.code == "E_INPUT_NOT_AUDIO"
    assert files_below(home.outbox) == ["ALTO/a.wav"]
    assert list((home.state / "scratch").iterdir()) == []


def test_a_memory_limit_that_cannot_be_kept_keeps_the_worker_from_starting(
    tmp_path: Path, checkpoints: Callable[[str], Path]
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    for name in ("hubert_base.pt", "rmvpe.pt"):
        shutil.copy(checkpoints("tiny") / name, home.models)
    shutil.copy(checkpoints("tiny") / "voices" / "v2_40k_f0_feat48.pth", home.voices / "alto.pth")
    settings = Settings(worker=WorkerSettings(memory_limit="100 MB"))
    with pytest.raises(SettingsInvalid, match=r"memory_limit is 0\.10 GB, but these networks need [\d.]+ GB at least"):
        open_engine(home, settings).warm_up()
