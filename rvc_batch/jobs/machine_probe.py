"""What the libraries say of this machine, asked in a short-lived process of its own.

Frameworks, BLAS and codecs are loaded there and nowhere else, so a broken driver that takes its process down becomes a
fact instead of a crash. It opens no model and prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

PROBE_SECONDS = 120.0  # the first look at a GPU compiles kernels
REPEATS = 3  # the best of so many products: a neighbour may have the machine for one


@dataclass(frozen=True)
class MachineFacts:
    """What was found. `trouble` says why the backend cannot be used; the other facts may be there all the same."""

    device: str = ""
    gflops: float | None = None  # of a matrix product on that device: proof that it computes; None without it
    blas: str = ""  # a `engine.blas.BlasSource`
    blas_path: str = ""
    codecs: tuple[str, ...] = ()  # containers libsndfile can decode
    trouble: str = ""


def probe_machine(backend: str, starting: Callable[[subprocess.Popen[bytes]], None] = lambda _: None) -> MachineFacts:
    """Ask a process of its own, which `starting` may want to end; never raises for what is wrong with the machine."""
    path = os.pathsep.join(p for p in sys.path if p)  # the child finds what this process finds
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "rvc_batch.jobs.machine_probe", backend],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError as e:
        return MachineFacts(trouble=f"no process could be started ({e.strerror})")
    with process:
        starting(process)
        try:
            said, complaint = process.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return MachineFacts(trouble=f"{backend} did not answer within {PROBE_SECONDS:g} s")
    if process.returncode < 0:
        return MachineFacts(trouble=f"loading {backend} was ended by {signal.Signals(-process.returncode).name}")
    try:
        found = json.loads(said)
        return MachineFacts(**(found | {"codecs": tuple(found["codecs"])}))
    except (ValueError, TypeError, KeyError):
        last = complaint.decode(errors="replace").strip().splitlines()
        return MachineFacts(trouble=last[-1] if last else f"exit status {process.returncode}")


def look_around(backend: str) -> MachineFacts:
    """Load the backend and the codecs into this process and say what was found."""
    from rvc_batch.engine.blas import prepare_process

    library = prepare_process()
    device, gflops, trouble, codecs = "", None, "", tuple[str, ...]()
    try:
        if backend == "mlx":
            from rvc_batch.engine.mlx_nets import backend as mlx_backend

            device = mlx_backend.device_name()
            gflops = max(mlx_backend.matmul_gflops() for _ in range(REPEATS))
        else:
            from rvc_batch.engine.torch_nets import backend as torch_backend

            device = torch_backend.TorchBackend.device
            gflops = max(torch_backend.matmul_gflops() for _ in range(REPEATS))
    except Exception as e:
        trouble = f"{backend} cannot be used: {type(e).__name__}: {e}"
    try:
        import soundfile

        codecs = tuple(sorted(soundfile.available_formats()))
    except (ImportError, OSError) as e:
        trouble = trouble or f"libsndfile cannot be loaded: {e}"
    return MachineFacts(device, gflops, str(library.source), library.path or "", codecs, trouble)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(look_around(sys.argv[1]))))
