"""What a process must look like before `mlx.core` is imported: an optimised BLAS on Linux, full float32 everywhere.

The mlx wheel for Linux CPUs links a reference BLAS that is some sixty times slower than the machine. An optimised
OpenBLAS loaded globally beforehand takes its place symbol by symbol. A pthread build of the system is preferred; the
OpenMP build inside the faiss-cpu wheel is the fallback that is always installed. Nothing happens at import, and
neither faiss nor mlx is imported here.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

logger = logging.getLogger(__name__)

# Debian and Ubuntu by architecture, then Fedora's name for the pthread build.
PTHREAD_BUILDS = (
    *(Path(f"/usr/lib/{arch}-linux-gnu/openblas-pthread/libopenblas.so.0") for arch in ("x86_64", "aarch64")),
    Path("/usr/lib64/libopenblasp.so.0"),
)
# What the OpenBLAS of the faiss wheel needs, in the order in which it must be there.
FAISS_WHEEL_ORDER = ("libquadmath", "libgfortran", "libgomp", "libopenblas")

OPENBLAS_PTHREADS = 1  # openblas_get_parallel: 0 sequential, 1 pthreads, 2 OpenMP


class BlasSource(StrEnum):
    """Where the BLAS that MLX will use comes from."""

    PLATFORM = "platform"  # not Linux: MLX brings Accelerate
    SYSTEM = "system"
    FAISS_WHEEL = "faiss wheel"
    REFERENCE = "reference"  # nothing better was found
    TOO_LATE = "too late"  # mlx.core was imported before


@dataclass(frozen=True)
class BlasLibrary:
    """What `prepare_process` found. `path` is None unless a library was loaded."""

    source: BlasSource
    path: str | None = None


def prepare_process() -> BlasLibrary:
    """Switch reduced-precision matrix products off and load an optimised BLAS for MLX. Call before importing mlx.

    Calling again returns the first answer. Finding no BLAS is a logged warning, not an error: everything works, slowly.
    """
    os.environ["MLX_ENABLE_TF32"] = "0"  # float32 products would be TF32 on newer GPUs
    return _load_once()


@functools.cache
def _load_once() -> BlasLibrary:
    if not sys.platform.startswith("linux"):
        return BlasLibrary(BlasSource.PLATFORM)
    if "mlx.core" in sys.modules:
        logger.warning("mlx was imported before its BLAS could be chosen; matrix products on the CPU may be slow")
        return BlasLibrary(BlasSource.TOO_LATE)
    library = load_system_openblas() or load_faiss_openblas()
    if library is None:
        logger.warning(
            "no optimised BLAS found: matrix products on the CPU will be about sixty times slower; "
            "install libopenblas0-pthread (Debian, Ubuntu) or openblas-threads (Fedora), or the faiss-cpu wheel"
        )
        return BlasLibrary(BlasSource.REFERENCE)
    logger.info("BLAS for MLX: %s (%s)", library.path, library.source)
    return library


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let every matrix product inside the block use `count` threads, where the BLAS is an OpenBLAS of pthreads."""
    library = _pthread_openblas()
    if library is None:
        yield
        return
    before = library.openblas_get_num_threads()
    library.openblas_set_num_threads(count)
    try:
        yield
    finally:
        library.openblas_set_num_threads(before)


def threads_are_ours() -> bool:
    """Say whether the caller decides how many threads a product uses: any number, or one in the build of faiss."""
    is_single = _load_once().source is BlasSource.FAISS_WHEEL and os.environ.get("OMP_NUM_THREADS") == "1"
    return is_single or _pthread_openblas() is not None


@functools.cache
def _pthread_openblas() -> ctypes.CDLL | None:
    """Return the BLAS of MLX if its threads can be counted from outside: an OpenMP build counts per calling thread."""
    library = _load_once()
    if library.source is not BlasSource.SYSTEM or library.path is None:
        return None
    loaded = ctypes.CDLL(library.path)
    return loaded if loaded.openblas_get_parallel() == OPENBLAS_PTHREADS else None


def load_system_openblas() -> BlasLibrary | None:
    """Load the system's OpenBLAS globally, a pthread build first; return None if there is none."""
    names = [str(p) for p in PTHREAD_BUILDS if p.is_file()]
    found = ctypes.util.find_library("openblas")
    for name in (*names, *([found] if found else [])):
        if _load_globally(name):
            return BlasLibrary(BlasSource.SYSTEM, name)
    return None


def load_faiss_openblas() -> BlasLibrary | None:
    """Load the OpenBLAS that lies beside faiss globally, without importing faiss; return None if there is none."""
    spec = importlib.util.find_spec("faiss")
    if spec is None or spec.origin is None:
        return None
    # An OpenMP build counts threads per calling thread, so it cannot be told later: the layers share out the work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(spec.origin).parent.parent / "faiss_cpu.libs"
    loaded = None
    for prefix in FAISS_WHEEL_ORDER:
        for path in sorted(folder.glob(f"{prefix}*.so*")):
            if _load_globally(str(path)):
                loaded = path
    if loaded is None or not loaded.name.startswith("libopenblas"):
        return None
    return BlasLibrary(BlasSource.FAISS_WHEEL, str(loaded))


def _load_globally(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as e:
        logger.info("%s cannot be loaded: %s", name, e)
        return False
    return True
