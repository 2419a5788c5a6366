"""What an interrupted conversion leaves behind so that it can go on: one folder, one small record.

The folder holds the prepared input, its f0, the samples rendered so far and their energies; the record says how far
they are good. It is replaced atomically after the samples are on disk, at every segment border, and what is written
there does not grow with what is done. Going on gives the same bytes as an uninterrupted run, because nothing of a
segment depends on when it was rendered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvc_batch.engine.filters import FLOAT32, FLOAT64
from rvc_batch.engine.loudness import EnergyState
from rvc_batch.engine.provenance import Provenance
from rvc_batch.engine.types import AudioInfo, PitchTrack

RECORD = "record.json"


@dataclass(frozen=True)
class Record:
    """How far a conversion got. `key` is equal only for the same source, voice, settings, backend and version."""

    key: str
    info: AudioInfo
    warnings: tuple[str, ...]
    signal_samples: int  # of the prepared input at 16 kHz
    cuts: tuple[int, ...]
    segments_done: int
    rendered_samples: int
    energy: EnergyState
    auto_key: int  # semitones, 0 until f0 is known


class Workspace:
    """The folder of one conversion."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.decoded = folder / "decoded.f32"
        self.shifted = folder / "shifted.f32"
        self.filtered = folder / "filtered.f64"
        self.signal = folder / "signal.f32"
        self.envelope = folder / "envelope.npy"
        self.levels = folder / "levels.npy"
        self.sides = folder / "sides.f32"
        self.pitch = folder / "f0.npy"
        self.rendered = folder / "rendered.f32"
        self._energies = folder / "energies.f64"
        self._energies_saved = 0

    def channel(self, number: int) -> Workspace:
        """Return the folder of one channel inside this one."""
        return Workspace(self.folder / f"channel-{number}")

    def load(self, key: str) -> Record | None:
        """Return the record of an interrupted run of the same conversion, else None and an empty folder."""
        try:
            found = self._read(key)
        except (OSError, ValueError, KeyError, TypeError):
            # a record that cannot be used costs rendering again, never a wrong result
            self.remove()
            self.folder.mkdir(parents=True)
            return None
        self._energies_saved = len(found.energy.blocks)
        return found

    def _read(self, key: str) -> Record:
        values = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        if values["key"] != key:
            raise KeyError(key)
        n_blocks = values.pop("energy_blocks")
        energies = np.fromfile(self._energies, FLOAT64, count=n_blocks)
        found = Record(
            **values
            | {
                "info": AudioInfo(**values["info"]),
                "warnings": tuple(values["warnings"]),
                "cuts": tuple(values["cuts"]),
                "energy": EnergyState(**values["energy"] | {"blocks": tuple(energies.tolist())}),
            }
        )
        if self.rendered.stat().st_size < FLOAT32.itemsize * found.rendered_samples or energies.size < n_blocks:
            raise KeyError("samples of the record are missing")
        has_measures = self.envelope.is_file() and self.levels.is_file()
        if not has_measures or (found.segments_done <= len(found.cuts) and not self.signal.is_file()):
            raise KeyError("files of the record are missing")
        return found

    def save(self, record: Record) -> None:
        """Put a record on disk, after the samples and energies it speaks of."""
        with self.rendered.open("rb") as file:
            os.fsync(file.fileno())
        blocks = record.energy.blocks
        self._append_energies(blocks[self._energies_saved :])
        light = dataclasses.replace(record, energy=dataclasses.replace(record.energy, blocks=()))
        text = json.dumps(dataclasses.asdict(light) | {"energy_blocks": len(blocks)})
        partial = self.folder / f"{RECORD}.part"
        with partial.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(self.folder / RECORD)

    def _append_energies(self, blocks: Sequence[float]) -> None:
        """Write energies after those that are saved; what an interrupted run left beyond them goes."""
        self._energies.touch()
        os.truncate(self._energies, self._energies_saved * FLOAT64.itemsize)
        with self._energies.open("ab") as out:
            out.write(np.array(blocks, FLOAT64).tobytes())
            out.flush()
            os.fsync(out.fileno())
        self._energies_saved += len(blocks)

    def keep_pitch(self, track: PitchTrack) -> None:
        """Put the f0 of the input beside it."""
        partial = self.folder / "f0.part.npy"
        np.save(partial, track.f0)
        partial.replace(self.pitch)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def conversion_key(provenance: Provenance, rules: str) -> str:
    """Return a hash of everything the samples of a conversion depend on. rules: of the dialect."""
    return hashlib.sha256(f"{provenance.text()}\n{rules}".encode()).hexdigest()
