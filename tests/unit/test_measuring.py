"""The two-process timing that benchmarks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measuring import Sample, Side, alternate, compare, spread

WORKER = """
import sys, time
sys.path.insert(0, {root!r})
from benchmarks.measuring import serve

def prepare(request):
    print("a library that talks")
    time.sleep(0.2)  # preparing is not timed
    def work():
        for _ in range(request["rounds"] * {cost}):
            sum(range(1000))
        return {{"rounds": request["rounds"], "order": time.monotonic()}}
    return work

serve({{"device": {device!r}}}, prepare)
"""


@pytest.fixture
def workers(tmp_path: Path) -> dict[str, Path]:
    root = str(Path(__file__).resolve().parents[2])
    paths = {"slow": tmp_path / "slow.py", "fast": tmp_path / "fast.py"}
    for name, cost in (("slow", 100), ("fast", 10)):
        paths[name].write_text(WORKER.format(root=root, cost=cost, device=name))
    return paths


def test_sides_answer_in_turn_and_only_the_work_is_timed(workers: dict[str, Path]) -> None:
    with Side([str(workers["slow"])]) as slow, Side([str(workers["fast"])]) as fast:
        assert (slow.facts, fast.facts) == ({"device": "slow"}, {"device": "fast"})
        samples = alternate({"slow": slow, "fast": fast}, {"rounds": 3}, runs=2, warm_ups=1)
    order = [samples[name][run].facts["order"] for run in range(2) for name in ("slow", "fast")]
    assert order == sorted(order)
    assert all(s.facts["rounds"] == 3 for taken in samples.values() for s in taken)
    # between two results lies the other side's preparing
    assert samples["fast"][0].wall_seconds < order[1] - order[0]
    assert min(s.cpu_seconds for s in samples["slow"]) > max(0.0, min(s.cpu_seconds for s in samples["fast"]))


def test_a_child_that_dies_is_an_error_with_its_command(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit(7)")
    with pytest.raises(RuntimeError, match=r"dies\.py ended with exit status 7"):
        Side([str(script)])


def test_ratio_is_baseline_over_side_of_the_medians() -> None:
    def samples(*wall: float) -> list[Sample]:
        return [Sample(w, 2 * w, 0.02, {}) for w in wall]

    row = compare({"torch": samples(1.0, 5.0, 2.0), "mlx": samples(2.0, 4.0, 8.0)}, baseline="torch")
    assert row["mlx"]["ratio"] == 0.5
    assert row["mlx"]["cpu_ratio"] == 0.5
    assert row["mlx"]["pair_ratio"]["median"] == 0.5
    assert "ratio" not in row["torch"]
    assert row["is_quiet"]


def test_spread_gives_median_quartiles_and_extremes() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {
        "median": 3.0,
        "lower_quartile": 2.0,
        "upper_quartile": 4.0,
        "lowest": 1.0,
        "highest": 5.0,
        "runs": 5,
    }
    assert spread([0.123456])["median"] == 0.1235
