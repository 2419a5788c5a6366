"""Provenance: what a result was made from, written into its own tags, so that it can be rendered again.

It is one line of ASCII JSON in the comment of the file, where every container has room for it and libsndfile writes it
before the first sample: nothing is rewritten. It holds nothing that differs between equal renderings (no time, no job
number), so equal renderings stay equal bytes. Readers of WAV stop at 2 kB, and so does the record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rvc_batch.engine.precision import Precision
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.tiling import WorkSizes
from rvc_batch.errors import CannotRenderAgain, InputUnreadable, SourceGone, TagsMissing
from rvc_batch.version import __version__

COMMENT_LIMIT = 2_045  # libsndfile reads no longer string of a WAV (wavlike.c: buffer [2048], a zero, an even length)
PRODUCT = "rvc-batch"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file a result was made from: its name, and what tells it from any other of that name."""

    name: str
    size: int  # bytes
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> Self:
        """Read a file; `name` stands in for its own, which may be one it only has here.

        Raises:
            SourceGone, InputUnreadable: it cannot be read.
        """
        try:
            return cls(name=path.name if name is None else name, size=path.stat().st_size, sha256=digest(path))
        except FileNotFoundError as e:
            raise SourceGone(f"{path} is not there any more") from e
        except OSError as e:
            raise InputUnreadable(f"{path} cannot be read: {e.strerror}; check its permissions") from e


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything the bytes of a result depend on, apart from the machine and the versions of its libraries.

    voice_sha256: of the source `.pth` · index_sha256: "" = nothing was retrieved · networks_sha256: as
    `Backend.networks_sha256` · pitch_sha256: of networks that measured f0 besides · f0_sha256: of a curve that was laid
    over the measured one, "" = none · sizes: change what comes out by rounding, hence the bytes.
    """

    voice: str
    voice_sha256: str
    index_sha256: str
    networks_sha256: str
    pitch_sha256: str
    f0_sha256: str
    source: Source
    settings: ConversionSettings
    backend: str
    precision: Precision
    sizes: WorkSizes

    def comment(self) -> str:
        """Return the record as one line of ASCII JSON; a name for which there is no room loses its beginning."""
        found = self
        while len(found.text()) > COMMENT_LIMIT and found.source.name:
            found = dataclasses.replace(found, source=dataclasses.replace(found.source, name=found.source.name[1:]))
        return found.text()

    def text(self) -> str:
        """Return the whole record as one line of ASCII JSON."""
        values = dataclasses.asdict(self)
        values["settings"] = json.loads(self.settings.to_json())
        return json.dumps({PRODUCT: __version__, **values}, separators=(",", ":"))

    @classmethod
    def read(cls, comment: str, file: str) -> Self:
        """Read what `comment` returned. file: whose tags these are, for the sentence in the error.

        Raises:
            TagsMissing: this is no such record. CannotRenderAgain: another version wrote it.
        """
        try:
            values: dict[str, Any] = json.loads(comment)
            version = values.pop(PRODUCT)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise TagsMissing(
                f"{file} carries no tags of {PRODUCT}: it was not made by it, or a program that edits tags removed them"
            ) from e
        if version != __version__:
            raise CannotRenderAgain(
                f"{file} was made by {PRODUCT} {version}, this is {__version__}, and versions may differ in what they "
                f"render; install {PRODUCT} {version} for it"
            )
        try:
            return cls(
                **values
                | {
                    "source": Source(**values["source"]),
                    "settings": ConversionSettings.from_json(json.dumps(values["settings"])),
                    "precision": Precision(**values["precision"]),
                    "sizes": WorkSizes(**values["sizes"]),
                }
            )
        except (KeyError, TypeError) as e:
            raise TagsMissing(f"the tags of {file} are damaged ({e}); a program that edits tags changed them") from e


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
