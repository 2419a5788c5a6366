"""The BLAS that MLX gets on Linux, and that faiss still works beside it. Each loading happens in its own process."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys

import pytest

from rvc_batch.engine import blas
from rvc_batch.engine.blas import BlasLibrary, BlasSource

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems bring their own BLAS")

OWNER_OF_SGEMM = """
import ctypes
def owner_of_sgemm():
    address = ctypes.cast(ctypes.CDLL(None).cblas_sgemm, ctypes.c_void_p).value
    for line in open("/proc/self/maps"):
        low, high = (int(x, 16) for x in line.split()[0].split("-"))
        if low <= address < high:
            return line.split()[-1]
"""


def run(program: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", OWNER_OF_SGEMM + program], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `prepare_process` decide anew for one test: forgotten for good, it would be too late for all that follow."""
    monkeypatch.setattr(blas, "_load_once", functools.cache(blas._load_once.__wrapped__))


@linux_only
def test_blas_of_the_faiss_wheel_takes_the_place_of_the_reference_one_and_faiss_still_works() -> None:
    output = run("""
import sys
from rvc_batch.engine import blas
blas.PTHREAD_BUILDS, blas.ctypes.util.find_library = (), lambda name: None
library = blas.prepare_process()
assert library.source == "faiss wheel", library
assert "faiss" not in sys.modules and "mlx.core" not in sys.modules
assert owner_of_sgemm() == library.path, (owner_of_sgemm(), library.path)

import numpy as np
import mlx.core as mx
a = np.random.default_rng(0).standard_normal((300, 300), dtype=np.float32)
np.testing.assert_allclose(np.asarray(mx.array(a) @ mx.array(a)), a @ a, atol=1e-3)

import faiss
faiss.omp_set_num_threads(1)
index = faiss.IndexFlatL2(300)
index.add(a)
_, found = index.search(a + 0.01, 1)
assert (found[:, 0] == np.arange(300)).all()
b = np.asarray(mx.array(a) @ mx.array(a))
np.testing.assert_allclose(b, a @ a, atol=1e-3)
print("done")
""")
    assert output == "done\n"


@linux_only
@pytest.mark.parametrize(("variables", "threads"), [({}, 2), ({"OMP_NUM_THREADS": "2"}, 1)])
def test_layers_share_out_the_work_over_the_blas_of_the_faiss_wheel(variables: dict[str, str], threads: int) -> None:
    output = run(f"""
import os
os.environ.pop("OMP_NUM_THREADS", None)
os.environ.update({variables})
from rvc_batch.engine import blas
blas.PTHREAD_BUILDS, blas.ctypes.util.find_library = (), lambda name: None
assert blas.prepare_process().source == "faiss wheel"
os.sched_getaffinity = lambda pid: {{0, 1}}
import numpy as np
import mlx.core as mx
from rvc_batch.engine.mlx_nets import cpu_products
x, weight = (np.random.default_rng(i).standard_normal((200, 300), dtype=np.float32) for i in range(2))
for _ in range(20):
    y = cpu_products.linear(mx.array(x), mx.array(weight), None)
    np.testing.assert_allclose(y, x @ weight.T, atol=1e-3)
print(cpu_products.threads())
""")
    assert output == f"{threads}\n"


@linux_only
def test_some_optimised_blas_is_found_and_answers_for_mlx() -> None:
    output = run("""
from rvc_batch.engine.blas import prepare_process
library = prepare_process()
import os, mlx.core
assert os.environ["MLX_ENABLE_TF32"] == "0"
assert prepare_process() is library
print(library.source, "openblas" in owner_of_sgemm())
""")
    assert output in ("system True\n", "faiss wheel True\n")


@linux_only
def test_loading_after_mlx_is_reported_not_pretended() -> None:
    output = run("""
import mlx.core
from rvc_batch.engine.blas import prepare_process
print(prepare_process().source)
""")
    assert output == "too late\n"


@linux_only
def test_system_library_is_preferred(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    library = BlasLibrary(BlasSource.SYSTEM, "/usr/lib/libopenblas.so.0")
    monkeypatch.setattr(blas, "load_system_openblas", lambda: library)
    monkeypatch.setattr(blas, "load_faiss_openblas", lambda: pytest.fail("not needed"))
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "mlx.core"})
    assert blas.prepare_process() is library


@linux_only
def test_missing_blas_is_a_warning_that_says_what_to_install(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blas, "PTHREAD_BUILDS", ())
    monkeypatch.setattr(blas.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(blas.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "mlx.core"})
    with caplog.at_level(logging.WARNING):
        assert blas.prepare_process() == BlasLibrary(BlasSource.REFERENCE)
    assert "libopenblas0-pthread" in caplog.text


def test_nothing_is_loaded_where_mlx_brings_its_own(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert blas.prepare_process() == BlasLibrary(BlasSource.PLATFORM)


def test_library_that_cannot_be_loaded_counts_as_absent() -> None:
    assert not blas._load_globally("libthere-is-no-such-library.so.0")
