"""The bar of `convert`: seconds of audio, what is going on, and the time that is left."""

import io
from contextlib import redirect_stderr

from rvc_batch.cli.convert import _ProgressBar
from rvc_batch.engine.converter import Progress


def test_the_bar_shows_stage_share_and_time_left() -> None:
    shown = io.StringIO()
    with redirect_stderr(shown), _ProgressBar(is_shown=True) as bar:
        bar.update(Progress("pitch", 0.0, 90.0, 0.4))
        assert bar._bar.desc == "pitch 40%: "
        assert (bar._bar.n, bar._bar.total) == (0, 90.0)
        bar.update(Progress("synth", 38.0, 90.0, 38 / 90))
        assert bar._bar.desc == "synth: "
        assert bar._bar.n == 38.0
        text = str(bar._bar)
    assert "38.0/90.0" in text
    assert "<" in text  # elapsed < left
    assert "?" not in text.split("<")[1].split(",")[0]


def test_no_bar_is_drawn_where_there_is_no_terminal() -> None:
    shown = io.StringIO()
    with redirect_stderr(shown), _ProgressBar(is_shown=False) as bar:
        bar.update(Progress("synth", 38.0, 90.0, 0.4))
    assert shown.getvalue() == ""
