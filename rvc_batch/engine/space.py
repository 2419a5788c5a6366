"""Is there room for what a conversion is about to write? Asked once its length is known, before the networks run.

A volume that fills up in the middle costs the time of a rendering, and some encoders leave a short file that opens as
if it were whole. Estimates are upper bounds; a full disk met later is handled where it is met.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rvc_batch.engine.filters import FLOAT32
from rvc_batch.engine.settings import OUTPUT_FORMATS
from rvc_batch.errors import DiskFull

MARGIN = 1.2
SMALLEST = 1 << 20  # bytes: headers, records, and what others write meanwhile
# Of one encoded sample. FLAC can be a little larger than PCM; the lossy ones stay below 320 kbit/s at 32 kHz.
_WIDTHS = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4, "MPEG_LAYER_III": 2, "VORBIS": 2, "OPUS": 2, "AAC": 2}


def check_space(
    target: Path, scratch: Path, *, seconds: float, rates: tuple[int, int], output_format: str, channels: int = 1
) -> None:
    """Make sure that rendering and result fit.

    Args:
        target: the result; its folder exists.
        scratch: the folder of the conversion's temporary files; the prepared input is in it already.
        seconds: length of the audio, in s.
        rates: of the rendering and of the result, in Hz.
        output_format: as `ConversionSettings.output_format`. channels: of the result.

    Raises:
        DiskFull: it does not fit; names the volume and both numbers.
    """
    rendered = int(seconds * channels * rates[0] * FLOAT32.itemsize)
    encoded = int(seconds * channels * rates[1] * _WIDTHS[OUTPUT_FORMATS[output_format][2]])
    wanted: dict[int, int] = {}
    places: dict[int, Path] = {}
    for folder, size in ((scratch, rendered), (target.parent, encoded)):
        device = folder.stat().st_dev
        wanted[device] = wanted.get(device, 0) + size
        places[device] = folder
    for device, size in wanted.items():
        needed, free = int(size * MARGIN) + SMALLEST, shutil.disk_usage(places[device]).free
        if free < needed:
            raise DiskFull(
                f"{seconds:.0f} s of audio need {needed / 1e6:.0f} MB on the volume of {places[device]}, "
                f"{free / 1e6:.0f} MB are free; free some, work resumes by itself"
            )
