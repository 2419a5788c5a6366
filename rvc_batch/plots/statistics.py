"""The box over time: what it rendered, what waited, and which stages took the time."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from rvc_batch.jobs.statistics import Timeline
from rvc_batch.plots.figure import drawn


def draw_timeline(timeline: Timeline, picture: Path) -> None:
    """Draw throughput, queue length and stage shares over time into a PNG. Times are local.

    Raises:
        ExtraMissing: matplotlib is not installed.
    """
    with drawn(picture, rows=3, height=9) as (figure, (throughput, queue, stages)):
        edges = [_local(at) for at in timeline.edges]
        widths = [(after - before) for before, after in pairwise(edges)]
        bars = {"width": widths, "align": "edge"}
        throughput.bar(edges[:-1], [seconds / 60 for seconds in timeline.audio_seconds], **bars)
        throughput.set(ylabel=f"minutes of audio\nper {_span(timeline.bucket_seconds)}", title="throughput")
        queue.step([_local(at) for at, _ in timeline.queue], [length for _, length in timeline.queue], where="post")
        queue.set(ylabel="jobs", title="queue length", ylim=(0, None))
        low = [0.0] * len(widths)
        totals = [sum(bucket) or 1.0 for bucket in zip(*timeline.stage_seconds.values(), strict=True)]
        for stage, seconds in timeline.stage_seconds.items():
            shares = [100 * part / total for part, total in zip(seconds, totals, strict=True)]
            stages.bar(edges[:-1], shares, bottom=low, label=stage, **bars)
            low = [below + share for below, share in zip(low, shares, strict=True)]
        stages.set(ylabel="% of the work", title="where the time goes", ylim=(0, 100))
        if timeline.stage_seconds:
            stages.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        stages.set_xlim(edges[0], edges[-1])
        figure.autofmt_xdate()


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone()


def _span(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"
