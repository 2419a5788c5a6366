"""rvc-batch: a voice-conversion render box.

`convert` and `pitch` are the engine as function calls; `rvc_batch.errors` holds everything they raise. Importing this
package loads no framework.
"""

from __future__ import annotations

from rvc_batch import errors

__version__ = "0.1.0"
__all__ = ["__version__", "convert", "errors", "pitch"]

from rvc_batch.api import convert, pitch
