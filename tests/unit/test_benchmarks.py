"""The numbers in the README are those of the results, and no benchmark hides a module of the standard library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import readme_table

ROOT = Path(__file__).parents[2]


def test_the_table_in_the_readme_is_that_of_the_results() -> None:
    assert readme_table.main(["--check"]) == 0, "run benchmarks/readme_table.py"


def test_check_notices_a_changed_result_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme, result = tmp_path / "README.md", {"jobs": 10_000, "median_seconds": {"status": 0.27}}
    readme.write_text(f"before\n{readme_table.BEGIN}\n{readme_table.END}\nafter\n")
    monkeypatch.setattr(readme_table, "README", readme)
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    (tmp_path / "status.json").write_text(json.dumps(result))
    assert readme_table.main(["--check"]) == 1
    assert "run benchmarks/readme_table.py" in capsys.readouterr().out
    assert "0.27" not in readme.read_text()
    assert readme_table.main([]) == 0
    assert "with 10 000 jobs, process start to exit | median 0.27 s (`status.json`) |" in readme.read_text()
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("\nafter\n")
    (tmp_path / "status.json").write_text(json.dumps(result | {"median_seconds": {"status": 0.28}}))
    assert readme_table.main(["--check"]) == 1


def test_result_without_rows_and_readme_without_markers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "unheard-of.json").write_text("{}")
    with pytest.raises(SystemExit, match="unheard-of: add a function to ROWS"):
        readme_table.table(tmp_path)
    with pytest.raises(SystemExit, match="needs the lines"):
        readme_table.with_table("nothing", "")


def test_no_benchmark_leaves_its_own_folder_on_the_path() -> None:
    """With it there, `import queue` would find benchmarks/queue.py, in whatever library asks for it."""
    for script in (ROOT / "benchmarks").glob("*.py"):
        text = script.read_text(encoding="utf-8")
        if "__main__" in text and ("from rvc_batch" in text or "import numpy" in text):
            assert "sys.path[0] = str(ROOT)" in text, f"{script.name}: replace sys.path[0] by ROOT"
