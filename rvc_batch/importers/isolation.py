"""Start the helper process for one import and turn its report into a result or an error.

The process that calls this never opens the foreign file's pickle. The helper gets no shell, a time limit and, on
Linux, a memory limit in proportion to the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from rvc_batch import errors
from rvc_batch.engine.checkpoints import NetworkKind
from rvc_batch.errors import ModelCorrupt, RvcBatchError
from rvc_batch.importers.sources import source_files, source_sha256

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 300.0  # the largest network takes 3 s on a slow machine
MEMORY_BASE_BYTES = 2 * 2**30  # interpreter, numpy and their reserved address space
MEMORY_PER_SOURCE_BYTE = 8  # half precision becomes float32, held twice while it is written


def import_isolated(source: Path, target: Path, *, sha256: str, time_limit_s: float = TIME_LIMIT_S) -> NetworkKind:
    """Import `source` (file or Hugging Face folder) into the canonical checkpoint `target`, in a helper process.

    Raises:
        RvcBatchError: what the helper reported. ModelCorrupt: it died or took too long.
    """
    return _run(source.absolute(), target, sha256, time_limit_s=time_limit_s)


def blend_isolated(one: Path, other: Path, target: Path, *, weight: float) -> None:
    """Mix two voices into the canonical checkpoint `target`, in a helper process (see `mixing`).

    Raises:
        as `import_isolated`.
    """
    made_of = f"{source_sha256(one)} {source_sha256(other)} {weight!r}"
    sha256 = hashlib.sha256(made_of.encode()).hexdigest()
    _run(one.absolute(), target, sha256, str(other.absolute()), repr(weight), time_limit_s=TIME_LIMIT_S)


def _run(source: Path, target: Path, sha256: str, *second: str, time_limit_s: float) -> NetworkKind:
    size = sum(path.stat().st_size for path in (*source_files(source), *map(Path, second[:1])))
    memory = MEMORY_BASE_BYTES + MEMORY_PER_SOURCE_BYTE * size
    arguments = [str(source), str(target.absolute()), sha256, str(memory), *second]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rvc_batch.importers.process", *arguments],
            cwd=Path(__file__).resolve().parents[2],  # so that -m finds this very package
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise ModelCorrupt(
            f"{source} ({size} bytes) was not imported within {time_limit_s:g} s and the import was stopped; "
            "check the file and the load of the machine, then try again"
        ) from e
    return _result(source, size, done)


def _result(source: Path, size: int, done: subprocess.CompletedProcess[bytes]) -> NetworkKind:
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = None
    if done.returncode != 0 or not isinstance(report, dict):
        logger.debug("import helper: %s", done.stderr.decode(errors="replace"))
        raise ModelCorrupt(
            f"{source} ({size} bytes) could not be imported: the helper process {_ending(done.returncode)}; "
            "copy or download the file again"
        )
    if "error" in report:
        kind = getattr(errors, report["error"], None)
        assert isinstance(kind, type)
        assert issubclass(kind, RvcBatchError)
        raise kind(report["message"])
    return NetworkKind(report["kind"])


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
