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
from dataclasses import asdict, dataclass

PROBE_SECONDS = 120.0  # the first look at a GPU compiles kernels


@dataclass(frozen=True)
class MachineFacts:
    """What was found. `trouble` says why the backend cannot be used; the other facts may be there all the same."""

    device: str = ""
    gflops: float | None = None  # of a matrix product on that device; None where it is not measured
    blas: str = ""  # a `engine.blas.BlasSource`
    blas_path: str = ""
    codecs: tuple[str, ...] = ()  # containers libsndfile can decode
    trouble: str = ""


def probe_machine(backend: str) -> MachineFacts:
    """Ask a process of its own; never raises for what is wrong with the machine."""
    path = os.pathsep.join(p for p in sys.path if p)  # the child finds what this process finds
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rvc_batch.jobs.machine_probe", backend],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path},
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return MachineFacts(trouble=f"{backend} did not answer within {PROBE_SECONDS:g} s")
    except OSError as e:
        return MachineFacts(trouble=f"no process could be started ({e.strerror})")
    if done.returncode < 0:
        return MachineFacts(trouble=f"loading {backend} was ended by {signal.Signals(-done.returncode).name}")
    try:
        found = json.loads(done.stdout)
        return MachineFacts(**(found | {"codecs": tuple(found["codecs"])}))
    except (ValueError, TypeError, KeyError):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return MachineFacts(trouble=f"{said[-1] if said else f'exit status {done.returncode}'}")


def look_around(backend: str) -> MachineFacts:
    """Load the backend and the codecs into this process and say what was found."""
    from rvc_batch.engine.blas import prepare_process

    library = prepare_process()
    device, gflops, trouble, codecs = "", None, "", tuple[str, ...]()
    try:
        if backend == "mlx":
            from rvc_batch.engine.mlx_nets.backend import device_name, matmul_gflops

            device, gflops = device_name(), matmul_gflops()
        else:
            from rvc_batch.engine.torch_nets.backend import TorchBackend

            device = TorchBackend.device
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
