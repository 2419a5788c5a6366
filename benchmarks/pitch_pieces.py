#!/usr/bin/env python3
"""How much harvest and pm in pieces differ from the whole at once.

    python benchmarks/pitch_pieces.py [--minutes 2]

Needs the extra `pitch`. Speech is the 100 s of tests/golden/inputs repeated to length, each time at another level, so
that the pieces do not all have the same loudest moment. Writes cents and voicing decisions to
benchmarks/results/pitch-pieces.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile as sf
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from rvc_batch.engine.pitch_libraries import LIBRARY_PIECES, harvest, praat  # noqa: E402
from rvc_batch.engine.pitch_methods import METHODS  # noqa: E402
from rvc_batch.engine.pitch_pieces import f0_in_pieces  # noqa: E402

SPEECH = ROOT / "tests" / "golden" / "inputs" / "long_100s.flac"
LEVELS = (1.0, 0.5, 0.25)


class ArraySignal:
    """A signal in memory."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave, self.samples = wave, wave.size

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.wave[start:stop]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "pitch-pieces.json")
    options = parser.parse_args()
    speech, rate = sf.read(SPEECH)
    samples = round(options.minutes * 60 * rate)
    wave = np.resize(np.concatenate([level * speech for level in LEVELS]), samples)
    threshold = METHODS["pm"].threshold
    assert threshold is not None
    rows = []
    for method, estimate in (("harvest", harvest), ("pm", lambda w: praat(w, threshold))):
        pieces = np.concatenate(list(tqdm(f0_in_pieces(ArraySignal(wave), estimate, LIBRARY_PIECES), desc=method)))
        whole = estimate(wave)
        both = (pieces > 0) & (whole > 0)
        cents = 1_200 * np.abs(np.log2(pieces[both] / whole[both]))
        rows.append(
            {
                "method": method,
                "voiced_frames": int((whole > 0).sum()),
                "median_cents": round(float(np.median(cents)), 6),
                "frames_beyond_1_cent": int((cents > 1).sum()),
                "voicing_decisions_that_differ": int(((pieces > 0) != (whole > 0)).sum()),
            }
        )
        tqdm.write(json.dumps(rows[-1]))
    result = {
        "minutes": options.minutes,
        "frames": 1 + samples // 160,
        "kept_frames": LIBRARY_PIECES.kept,
        "context_frames": LIBRARY_PIECES.context,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
