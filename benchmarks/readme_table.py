"""Write the table of measured numbers in README.md from the results in benchmarks/results.

    python benchmarks/readme_table.py [--check]

The rows stand between two markers in README.md; nothing else there is touched. To add a result, write a function that
turns its JSON into rows, and name it in ROWS. With --check nothing is written: the exit status is 1 if the table is
not the one the results give, and a test asks for that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- numbers: benchmarks/readme_table.py -->", "<!-- end of numbers -->"

Row = tuple[str, str]  # what, and the result in words
Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, say whether the table is up to date")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    wanted = with_table(text, table(RESULTS))
    if options.check:
        if text == wanted:
            return 0
        print("the table in README.md is not that of benchmarks/results; run benchmarks/readme_table.py")
        return 1
    README.write_text(wanted, encoding="utf-8")
    return 0


def with_table(text: str, rows: str) -> str:
    """Return the text with what stands between the markers replaced."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"README.md needs the lines {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n{rows}{END}{after}"


def table(results: Path) -> str:
    """Return the table as Markdown, of every result there is, in the order of ROWS."""
    unknown = {path.stem for path in results.glob("*.json")} - ROWS.keys()
    if unknown:
        raise SystemExit(
            f"benchmarks/results holds {', '.join(sorted(unknown))}: add a function to ROWS, or an empty one"
        )
    lines = ["| what | result |", "|---|---|"]
    for name, rows in ROWS.items():
        path = results / f"{name}.json"
        if path.is_file():
            result = json.loads(path.read_bytes())
            lines += [f"| {what} | {words} (`{path.name}`) |" for what, words in rows(result)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# One function per result


def status(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/status.py."""
    seconds = result["median_seconds"]["status"]
    yield f"`rvc-batch status` with {count(result['jobs'])} jobs, process start to exit", f"median {seconds:.2f} s"


def queue(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/queue.py."""
    files, enqueue = count(result["files"]), result["enqueue_seconds"]
    yield (
        f"{files} files dropped at once, until the last is queued, after the settle time of 3 s",
        f"median {enqueue['median']:.1f} s of {result['runs']} runs ({enqueue['least']:.1f} to {enqueue['most']:.1f})",
    )
    yield f"claims from a queue of {files}", f"{result['claims_per_second']} per second"
    overhead, cycle = result["overhead_ms"], result["cycle_ms"]
    yield (
        "one job besides its rendering, claim to done, while the others wait",
        f"median {overhead['median']:.1f} ms, nine of ten below {overhead['ninetieth']:.1f} ms",
    )
    yield (
        "the same from one claim to the next",
        f"median {cycle['median']:.1f} ms, nine of ten below {cycle['ninetieth']:.1f} ms",
    )


def memory(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/memory.py: the shortest and the longest file, and the peak under each limit."""
    sizes = {
        "tiny": "small synthetic networks",
        "full": "networks of published size",
        "none": "a stand-in of numpy for the networks",
    }
    size = sizes[result["networks"]]
    free = [row for row in result["rows"] if row["limit"] == "none"]
    first, last = free[0], free[-1]
    lengths = f"{last['minutes']:g} min against {first['minutes']:g} min"
    yield (
        f"peak memory of a file of {lengths}, {size}, {result['backend']}",
        f"{last['peak_rss_mb']} MB against {first['peak_rss_mb']} MB",
    )
    for row in result["rows"]:
        if row["limit"] != "none":
            yield f"the same with a limit of {row['limit']}, {row['minutes']:g} min", f"{row['peak_rss_mb']} MB"


def network(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/rmvpe.py: one network by length."""
    rows = [f"{row['seconds']:g} s: {row['mlx']['ratio']:.2f}" for row in result["rows"]]
    yield f"{result['network']} on MLX against torch, times as fast, by length of audio", " · ".join(rows)


def matrix(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/matrix.py."""
    same = "the same bytes" if result["identical_audio"] else "OTHER AUDIO"
    job = f"one file of {result['seconds_of_audio']:g} s with {result['voices']} voices"
    yield (
        f"{job} as a matrix job, against separate jobs",
        f"{result['ratio']} times as fast, {same}",
    )


def pipeline(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/pipeline.py."""
    for name, row in result["rows"].items():
        what = (
            f"ten files of {row['seconds_each']:g} s" if name == "batch" else f"one file of {row['seconds_each']:g} s"
        )
        ours = row["mlx"]
        yield (
            f"whole conversion, {what}, MLX against torch doing the original program's work",
            f"{ours['ratio']:.2f} times as fast, {ours['realtime_factor']:.2f} × real time",
        )


def plain(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/plain.py."""
    yield "all networks against plain MLX operations and the BLAS of the wheel", f"{result['ratio']:.0f} times as fast"


def warmup(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/warmup.py."""
    ratio = result["first_to_last"]["wall"]
    yield (
        f"first job of {result['seconds']:g} s after a start, in times of the tenth",
        f"median {ratio['median']:.2f} of {ratio['runs']} starts",
    )


def service_story(result: Result) -> Iterator[Row]:
    """Rows of the service story."""
    yield (
        f"{result['jobs']} jobs through {result['daemon_starts'] - 1} restarts of the daemon "
        f"and {result['worker_kills']} kills of the worker",
        f"{result['done']} done, {result['lost']} lost, {result['twice']} twice",
    )


def nothing(result: Result) -> Iterator[Row]:
    """Say nothing: a table of its own is elsewhere."""
    yield from ()


def pitch_windows(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/pitch_windows.py."""
    used = result["rows"][-1]
    yield (
        f"pitch of {result['minutes']:g} minutes in windows against one pass, published network size",
        f"{used['max_cents']:.3f} cents at most, "
        f"voicing decisions that differ: {used['voicing_decisions_that_differ']}",
    )


def pitch_networks(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/pitch_networks.py."""
    for row in result["rows"]:
        if row["backend"] == "mlx":
            yield (
                f"{row['method']} on MLX against {row['package']}, {row['frames'] / 100:.0f} s of speech",
                f"median {row['median_cents']:.4f} cents, voicing {row['voicing_agreement_percent']:.2f} % equal",
            )


def pitch_pieces(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/pitch_pieces.py."""
    for row in result["rows"]:
        yield (
            f"{row['method']} of {result['minutes']:g} minutes in pieces against the whole at once",
            f"median {row['median_cents']:.3f} cents, voicing decisions that differ: "
            f"{row['voicing_decisions_that_differ']} of {count(result['frames'])}",
        )


def quality(result: Result) -> Iterator[Row]:
    """Rows of benchmarks/quality.py."""
    for row in result["routes"]:
        if row["variant"] == "mlx":
            yield (
                f"voices of the demonstration, {row['source']} → {row['target']}, {result['sentences']} new sentences",
                f"speaker {row['speaker_to_target']:.2f} (the target itself {row['target_to_itself']:.2f}), "
                f"word errors {row['word_error_rate']:.0%} (source {row['word_error_rate_of_source']:.0%}), "
                f"pitch within {row['median_cents']:.0f} cents",
            )


def count(number: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}".replace(",", " ")


ROWS: dict[str, Callable[[Result], Iterator[Row]]] = {
    "status": status,
    "queue": queue,
    "pipeline": pipeline,
    "matrix": matrix,
    "rmvpe-cpu": network,
    "hubert-cpu": network,
    "generator-cpu": network,
    "plain": plain,
    "warmup": warmup,
    "quality": quality,
    "quality-precision": nothing,  # docs/quality.md
    "quality-sentences": nothing,  # the same page
    "precision": nothing,  # docs/precision.md
    "layers-cpu": nothing,
    "memory-model-mlx": nothing,
    "memory-model-torch": nothing,
    "service-story": service_story,
    "memory-tiny-mlx": memory,
    "memory-full-mlx": memory,
    "memory-none-mlx": memory,
    "pitch-windows": pitch_windows,
    "pitch-networks": pitch_networks,
    "pitch-pieces": pitch_pieces,
}

if __name__ == "__main__":
    sys.exit(main())
