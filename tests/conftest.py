"""Fixtures shared by all tiers: the synthetic checkpoints, generated once into the build folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GENERATOR = ROOT / "tests" / "golden" / "make_checkpoints.py"
CHECKPOINTS = ROOT / "build" / "golden-checkpoints"
FULL_FILES = ("contentvec*", "hubert_base.pt", "rmvpe.pt", "voices/v2_40k_f0.pth", "index/*")


@pytest.fixture(scope="session")
def checkpoints() -> Callable[[str], Path]:
    """Return a function from a size ("tiny", "full") to the folder of its generated checkpoints.

    The published size takes 15 s and about 1 GB: only tests marked `full` ask for it.
    """
    return _generated


def _generated(size: str) -> Path:
    folder = CHECKPOINTS / size
    if folder.is_dir():
        return folder
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKPOINTS) as scratch:
        unfinished = Path(scratch) / size
        only = ["--only", *FULL_FILES] if size == "full" else []
        command = [sys.executable, GENERATOR, unfinished, "--seed", "1", "--size", size, *only]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        try:
            unfinished.replace(folder)
        except OSError:  # another test process was faster
            if not folder.is_dir():
                raise
    return folder
