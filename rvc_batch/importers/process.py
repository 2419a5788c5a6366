"""The helper process that reads one foreign checkpoint: `python -m rvc_batch.importers.process`.

It exists to be short-lived and expendable: whatever a damaged file makes it do ends here, under a memory limit, and
leaves at most an unfinished temporary file. It loads numpy and safetensors, never torch. `isolation` starts it.

Arguments: source, target, SHA-256 of the source, memory limit in bytes (0 = none); to blend two voices also the second
and the weight of the first. Standard output: one JSON object, `{"kind": …}` or `{"error": class name, "message": …}`.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError

from rvc_batch.engine.checkpoints import CheckpointHeader, write_checkpoint
from rvc_batch.errors import DiskFull, FolderGone, ModelCorrupt, RvcBatchError
from rvc_batch.importers.identify import CanonicalNetwork, read_network
from rvc_batch.importers.mixing import mixed_voice
from rvc_batch.importers.pickled_data import shown


def main(arguments: Sequence[str]) -> int:
    """Import one file and report on standard output; the exit code is 0 when a report was written."""
    source, target, sha256, memory, *second = arguments
    _limit_memory(int(memory))
    try:
        network = mixed_voice(Path(source), Path(second[0]), float(second[1])) if second else read_network(Path(source))
        _write(Path(target), Path(source), sha256, network)
        report = {"kind": network.kind.value}
    except RvcBatchError as e:
        report = {"error": type(e).__name__, "message": str(e)}
    except MemoryError:
        corrupt = ModelCorrupt(f"{source} asks for more than {memory} bytes of memory; no RVC model of its size does")
        report = {"error": type(corrupt).__name__, "message": str(corrupt)}
    sys.stdout.write(json.dumps(report))
    return 0


def _limit_memory(limit: int) -> None:
    # macOS accepts the limit but does not enforce it; the size checks of torch_file hold there too
    if limit and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(target: Path, source: Path, sha256: str, network: CanonicalNetwork) -> None:
    header = CheckpointHeader(network.kind, network.config, shown(source.name), sha256, network.extra)
    try:
        write_checkpoint(target, header, network.tensors)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as e:
        if getattr(e, "errno", None) == errno.ENOSPC or "No space left" in str(e):
            raise DiskFull(f"no space left for {target.parent} while importing {source.name}; free some") from e
        raise FolderGone(f"cannot write {target}: {e}; check the folder and its permissions") from e


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
