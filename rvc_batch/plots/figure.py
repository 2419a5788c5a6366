"""A figure that becomes a PNG, whole or not at all, on a machine without a screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rvc_batch.errors import ExtraMissing, SettingsInvalid

DOTS_PER_INCH = 110


def require_matplotlib() -> None:
    """Make sure that pictures can be drawn, before the work that they need.

    Raises:
        ExtraMissing: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as e:
        raise ExtraMissing(
            f"pictures need matplotlib, which cannot be imported ({e}); pip install matplotlib, "
            "or install rvc-batch with its extra: pip install '.[plot]'"
        ) from e


@contextmanager
def drawn(picture: Path, *, rows: int, height: float) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and `rows` axes that share the horizontal one; write the PNG when the block ends well.

    Raises:
        ExtraMissing: matplotlib is not installed. SettingsInvalid: the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure, figure.subplots(rows, 1, sharex=True)
    part = picture.with_name(f".{picture.name}.part")
    try:
        figure.savefig(part, dpi=DOTS_PER_INCH, format="png")
        part.replace(picture)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise SettingsInvalid(f"{picture} cannot be written ({e.strerror}); name another file") from e
