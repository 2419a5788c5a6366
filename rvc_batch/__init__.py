"""rvc-batch: a voice-conversion render box.

`convert`, `pitch` and `render_again` are the engine as function calls; `rvc_batch.errors` holds everything they raise.
Importing this package loads no framework.
"""

from __future__ import annotations

from rvc_batch import errors
from rvc_batch.api import convert, pitch, render_again
from rvc_batch.version import __version__

__all__ = ["__version__", "convert", "errors", "pitch", "render_again"]
