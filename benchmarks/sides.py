"""What a child process of a benchmark does before it loads a backend: threads, BLAS, and saying which.

MLX and torch are never loaded into one process here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["be_ready", "environment"]


def environment(threads: int) -> dict[str, str]:
    """Return the variables that both sides are started with."""
    return {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def be_ready(backend: str, threads: int, which_blas: str) -> dict[str, Any]:
    """Set the threads of this process, load the BLAS that MLX will use, and return what both are.

    Args:
        backend: "mlx" or "torch".
        threads: of torch; MLX works on as many cores as the process may use, which are cut down to this number.
        which_blas: "auto" for what the product would take, "faiss" for the one inside the faiss wheel.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            raise SystemExit(f"{threads} threads wanted, {len(cores)} cores there; use --threads {len(cores)}")
        os.sched_setaffinity(0, cores[:threads])
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
        return {"backend": backend, "threads": torch.get_num_threads(), "mode": "eager"}
    from rvc_batch.engine import blas

    for name in environment(threads):  # the product chooses them; the cores are counted out above
        os.environ.pop(name, None)
    if which_blas == "faiss":
        blas.load_system_openblas = lambda: None
    library = blas.prepare_process()
    return {
        "backend": backend,
        "threads": threads,
        "blas": str(library.source),
        "blas_file": Path(library.path or "").name,
    }
