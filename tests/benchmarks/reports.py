"""``make bench``: 10,000 results are read and a table of them is written in under three seconds."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from made_results import make_result

from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.store import read_runs

COUNT, GOAL = 10_000, 3.0


def main() -> None:
    """Write, read, tell; exit 1 where it takes longer than the goal."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        for place in range(COUNT):
            method, variance = f"method{place % 50}", round(0.02 + 0.01 * (place // 50 % 20), 2)
            result = make_result(method, place // 1000, 0.5, params={"variance": variance, "val": 6000})
            folder = out / result.trial.folder
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(result.model_dump_json())
        started = time.perf_counter()
        runs, problems = read_runs(out)
        read = time.perf_counter() - started
        text = render_report(make_report(runs, problems, Asked()), "csv")
        whole = time.perf_counter() - started
    assert len(runs) == COUNT
    rows = text.count("\n") - 1
    print(f"{COUNT} results read in {read:.2f} s, a table of {rows} rows after {whole:.2f} s (goal {GOAL})")
    raise SystemExit(whole > GOAL)


if __name__ == "__main__":
    main()
