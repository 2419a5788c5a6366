"""The signals of one file on their way through the networks: the mean of its channels, or each of two.

Every lane has a workspace of its own, in which it can be interrupted; that of the mean holds those of the channels, and
the cut points and f0 that they share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.engine.checkpointing import Record, Workspace
from rvc_batch.engine.decoding import Pick, left, mono, right
from rvc_batch.engine.dialect import Dialect
from rvc_batch.engine.finishing import Rendering
from rvc_batch.engine.formants import FormantShift
from rvc_batch.engine.preparation import Prepared, prepare, reopen
from rvc_batch.engine.types import AudioInfo, StageClock


@dataclass(frozen=True)
class Lane:
    """One signal. done: how many of its segments are in the rendering. auto_key: see `Record`."""

    workspace: Workspace
    prepared: Prepared
    rendering: Rendering
    done: int
    auto_key: int = 0

    def save(self, key: str, segments_done: int, auto_key: int) -> None:
        """Put on disk how far it is."""
        self.workspace.save(
            Record(
                key=key,
                info=self.prepared.info,
                warnings=self.prepared.warnings,
                signal_samples=self.prepared.signal.samples,
                cuts=self.prepared.cuts,
                segments_done=segments_done,
                rendered_samples=self.rendering.samples,
                energy=self.rendering.energy,
                auto_key=auto_key,
            )
        )


@dataclass(frozen=True)
class Lanes:
    """Opens the lanes of a file, or takes them up where an interrupted run was.

    key: see `checkpointing`. rate: of the rendering, in Hz. check: is told what the file is before anything is rendered
    of it; what it raises ends the conversion. formants: of the input, in every lane alike. progress: see `prepare`.
    """

    source: Path
    key: str
    rate: int
    rules: Dialect
    clock: StageClock
    check: Callable[[AudioInfo], None]
    formants: FormantShift
    progress: Callable[[float, float], None]

    def whole(self, workspace: Workspace) -> Lane:
        """Return the lane of the mean of all channels.

        Raises:
            InputError, DiskFull: see `prepare`; whatever `check` raises.
        """
        return self._open(workspace, mono, None)

    def channels(self, whole: Lane) -> list[Lane]:
        """Return the lanes of two channels, with the cuts and the gain of their mean."""
        picks = enumerate((left, right))
        return [self._open(whole.workspace.channel(number), pick, whole.prepared) for number, pick in picks]

    def _open(self, workspace: Workspace, pick: Pick, guide: Prepared | None) -> Lane:
        record = workspace.load(self.key)
        if record is not None:
            rendering = Rendering.resume(workspace.rendered, self.rate, record.rendered_samples, record.energy)
            return Lane(workspace, reopen(record, workspace), rendering, record.segments_done, record.auto_key)
        prepared = prepare(
            self.source,
            workspace,
            self.rules,
            self.clock,
            pick=pick,
            formants=self.formants,
            guide=guide,
            progress=self.progress,
        )
        self.check(prepared.info)
        lane = Lane(workspace, prepared, Rendering.start(workspace.rendered, self.rate), 0)
        lane.save(self.key, 0, 0)
        return lane
