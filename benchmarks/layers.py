#!/usr/bin/env python3
"""Every layer as the product computes it in MLX, against torch and against MLX's own operations.

    python benchmarks/layers.py [--only NAME …] [--runs 9] [--device cpu] [--threads 2] [--blas auto|faiss]

Three processes answer in turn: `mlx` (the formulation for this device), `plain` (MLX's own operation, what a GPU runs)
and `torch`. All have the same weights and inputs, of the sizes of the published networks for 5 s of audio. `max_abs` is
the distance to torch relative to the largest value. Writes benchmarks/results/layers-DEVICE[-BLAS].json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
sys.path[:] = [p for p in sys.path if p != str(ROOT / "benchmarks")]  # its queue.py is not Python's own

from benchmarks.measuring import Side, alternate, compare, machine_facts, serve, write_result  # noqa: E402
from benchmarks.sides import be_ready, environment  # noqa: E402

SIDES = ("torch", "mlx", "plain")


@dataclass(frozen=True)
class Case:
    """One row: a layer with its sizes and options, or a function without weights, and the shape it is given."""

    layer: str
    shape: tuple[int, ...]  # [T, C], [T, M, C] or [H, T, D]
    sizes: tuple[int, ...] = ()
    options: dict[str, int | bool] = field(default_factory=dict)
    inputs: int = 1
    has_norm: bool = False  # a convolution with norm and ReLU


CASES = {
    "linear 768 > 3072": Case("Linear", (249, 768), (768, 3072)),
    "layer norm 768": Case("LayerNorm", (249, 768), (768,)),
    "group norm 512": Case("GroupNorm", (15999, 512), (512, 512)),
    "GELU": Case("gelu", (15999, 512)),
    "attention, 5 s": Case("attention", (12, 249, 64), inputs=3),
    "attention, 30 s": Case("attention", (12, 1499, 64), inputs=3),
    "strided convolution": Case("Conv1d", (15999, 512), (512, 512, 3), {"stride": 2, "bias": False}),
    "grouped positional convolution": Case("Conv1d", (249, 768), (768, 768, 128), {"padding": 64, "groups": 16}),
    "convolution, 256 channels": Case("Conv1d", (5000, 256), (256, 256, 11), {"padding": 5}),
    "convolution, 32 channels": Case("Conv1d", (40000, 32), (32, 32, 7), {"padding": 3}),
    "dilated convolution": Case("Conv1d", (5000, 128), (128, 128, 7), {"padding": 9, "dilation": 3}),
    "transposed convolution": Case("ConvTranspose1d", (500, 512), (512, 256, 16), {"stride": 10, "padding": 3}),
    "plane convolution 16, norm, ReLU": Case(
        "Conv2d", (512, 128, 16), (16, 16, 3), {"padding": 1, "bias": False}, has_norm=True
    ),
    "plane convolution 64, norm, ReLU": Case(
        "Conv2d", (128, 32, 64), (64, 64, 3), {"padding": 1, "bias": False}, has_norm=True
    ),
    "plane convolution 512, norm, ReLU": Case(
        "Conv2d", (16, 4, 512), (512, 512, 3), {"padding": 1, "bias": False}, has_norm=True
    ),
    "transposed plane, norm, ReLU": Case(
        "ConvTranspose2d",
        (256, 64, 32),
        (32, 16, 3),
        {"stride": 2, "padding": 1, "output_padding": 1, "bias": False},
        has_norm=True,
    ),
    "BiGRU": Case("GRU", (512, 384), (384, 256)),
}


def main() -> None:
    """Measure all rows and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--device", default="cpu", help="what all sides must run on; anything else is refused")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blas", choices=("auto", "faiss"), default="auto")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        be_side(options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        command = [__file__, "--threads", str(options.threads), "--blas", options.blas, "--child"]
        variables = environment(options.threads)
        sides = {name: stack.enter_context(Side([*command, name], environment=variables)) for name in SIDES}
        for name, side in sides.items():
            if side.facts["device"] != options.device:
                raise SystemExit(f"{name} runs on {side.facts['device']}, not on {options.device}; use --device")
        for case in options.only:
            # what a layer is to be is quick; MLX's own operation may take a hundred times as long
            fast = {name: sides[name] for name in ("torch", "mlx")}
            row = compare(alternate(fast, {"case": case}, runs=options.runs, warm_ups=2), baseline="torch")
            both = {name: sides[name] for name in ("torch", "plain")}
            row["plain"] = compare(alternate(both, {"case": case}, runs=3), baseline="torch")["plain"]
            results = {}
            for name, side in sides.items():
                path = Path(folder) / f"{name}.npy"
                side.ask({"case": case, "save": str(path)})
                results[name] = np.load(path)
            greatest = np.abs(results["torch"]).max()
            for name in ("mlx", "plain"):
                row[name]["max_abs"] = float(f"{np.abs(results[name] - results['torch']).max() / greatest:.2g}")
            rows.append({"case": case} | row)
            print(
                f"{case:36} torch {row['torch']['wall_seconds']['median'] * 1e3:8.2f} ms, "
                f"mlx {row['mlx']['ratio']:5.2f} x (CPU {row['mlx']['cpu_ratio']:.2f}), "
                f"plain {row['plain']['ratio']:6.3f} x, quiet {row['is_quiet']}, error {row['mlx']['max_abs']:.1g}",
                flush=True,
            )
        facts = {name: side.facts for name, side in sides.items()}
    result = {
        "what": "wall seconds of one call; ratio = torch / side",
        "machine": machine_facts("mlx", "torch", "numpy"),
        "sides": facts,
        "rows": rows,
    }
    suffix = "" if options.blas == "auto" else f"-{options.blas}-blas"
    name = f"layers-{options.device}{suffix}.json".replace(" ", "_")
    write_result(options.output or ROOT / "benchmarks" / "results" / name, result)


def be_side(options: argparse.Namespace) -> None:
    """Build layers on demand and answer requests."""
    build = {"torch": build_torch, "mlx": build_mlx, "plain": build_plain}[options.child]
    facts = be_ready("torch" if options.child == "torch" else "mlx", options.threads, options.blas)
    if options.child == "torch":
        import torch

        torch.set_grad_enabled(False)
        device = "cpu"
    else:
        import mlx.core as mx

        from rvc_batch.engine.mlx_nets.backend import CPU_CACHE_BYTES, device_name

        device = device_name()
        if device == "cpu":
            mx.set_cache_limit(CPU_CACHE_BYTES)
    runs: dict[str, Callable[[], np.ndarray]] = {}

    def prepare(request: dict[str, Any]) -> Callable[[], None]:
        case = request["case"]
        if case not in runs:
            runs.clear()
            runs[case] = build(CASES[case])

        def work() -> None:
            result = runs[case]()
            if "save" in request:
                np.save(request["save"], result)

        return work

    serve(facts | {"device": device}, prepare)


def inputs_of(case: Case) -> list[np.ndarray]:
    """Return the inputs, the same on all sides."""
    return [normal(100 + i, case.shape) for i in range(case.inputs)]


def weights_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return canonical tensors, the same on all sides, of a size that keeps the output near that of the input."""
    tensors = {}
    for i, (key, shape) in enumerate(sorted(shapes.items())):
        tensor = normal(i, shape) / np.float32(np.sqrt(max(1, np.prod(shape[1:]))))
        tensors[key] = np.abs(tensor) + np.float32(0.5) if key == "running_var" else tensor
    return tensors


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def build_mlx(case: Case) -> Callable[[], np.ndarray]:
    """Return the layer as the product computes it on this device."""
    import mlx.core as mx
    from mlx import nn

    from rvc_batch.engine.mlx_nets import layers

    def loaded(name: str, *sizes: int, **options: int | bool) -> nn.Module:
        layer: nn.Module = getattr(layers, name)(*sizes, **options)
        layers.load_canonical(layer, weights_of(layers.canonical_shapes(layer)))
        return layer

    inputs = [mx.array(x) for x in inputs_of(case)]
    mx.eval(inputs)
    function: Callable[..., mx.array]
    if not case.sizes:
        function = getattr(layers, case.layer)
    elif case.has_norm:
        steps = [loaded(case.layer, *case.sizes, **case.options), loaded("BatchNorm2d", case.sizes[1]), layers.ReLU()]

        def function(x: mx.array) -> mx.array:
            return layers.conv_norm_relu(steps, x)
    else:
        function = loaded(case.layer, *case.sizes, **case.options)

    def run() -> np.ndarray:
        y = function(*inputs)
        mx.eval(y)
        return np.asarray(y)

    return run


def build_plain(case: Case) -> Callable[[], np.ndarray]:
    """Return the layer in MLX's own operations, as on a GPU."""
    from rvc_batch.engine.mlx_nets import layers

    layers._on_cpu = lambda: False
    return plain_gru(case) if case.layer == "GRU" else build_mlx(case)


def plain_gru(case: Case) -> Callable[[], np.ndarray]:
    """Return mlx.nn.GRU run in both directions; the product runs the recurrence on the host on every device."""
    import mlx.core as mx
    from mlx import nn

    from rvc_batch.engine.mlx_nets import layers

    tensors = weights_of(layers.canonical_shapes(layers.GRU(*case.sizes)))
    hidden = case.sizes[1]
    ends = []
    for end in ("l0", "l0_reverse"):
        cell = nn.GRU(*case.sizes)
        bias = tensors[f"bias_ih_{end}"].copy()
        bias[: 2 * hidden] += tensors[f"bias_hh_{end}"][: 2 * hidden]
        cell.Wx, cell.Wh = mx.array(tensors[f"weight_ih_{end}"]), mx.array(tensors[f"weight_hh_{end}"])
        cell.b, cell.bhn = mx.array(bias), mx.array(tensors[f"bias_hh_{end}"][2 * hidden :])
        ends.append(cell)
    (x,) = (mx.array(a) for a in inputs_of(case))

    def run() -> np.ndarray:
        y = mx.concatenate([ends[0](x[None])[0], ends[1](x[None, ::-1])[0][::-1]], axis=-1)
        mx.eval(y)
        return np.asarray(y)

    return run


def build_torch(case: Case) -> Callable[[], np.ndarray]:
    """Return torch's layer."""
    import torch

    from rvc_batch.engine.torch_nets import layers

    def loaded(name: str, *sizes: int, **options: Any) -> torch.nn.Module:
        layer: torch.nn.Module = getattr(layers, name)(*sizes, **options)
        layers.load_canonical(layer, weights_of(layers.canonical_shapes(layer)))
        return layer.eval()

    is_convolution = case.layer.startswith("Conv") or case.layer == "GroupNorm"
    inputs = [torch.from_numpy(x)[None] for x in inputs_of(case)]
    if is_convolution:
        inputs = [x.movedim(-1, 1).contiguous() for x in inputs]
    function: Callable[..., torch.Tensor]
    if not case.sizes:
        function = getattr(layers, case.layer)
    elif case.layer == "GRU":
        gru = loaded("GRU", *case.sizes, batch_first=True, bidirectional=True)

        def function(x: torch.Tensor) -> torch.Tensor:
            return gru(x)[0]
    elif case.has_norm:
        steps = [loaded(case.layer, *case.sizes, **case.options), loaded("BatchNorm2d", case.sizes[1]), layers.ReLU()]

        def function(x: torch.Tensor) -> torch.Tensor:
            return layers.conv_norm_relu(steps, x)
    else:
        function = loaded(case.layer, *case.sizes, **case.options)

    def run() -> np.ndarray:
        y = function(*inputs)[0]
        return (y.movedim(0, -1) if is_convolution else y).numpy()

    return run


if __name__ == "__main__":
    main()
