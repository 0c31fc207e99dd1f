"""Seconds until a table of many results is written: ``python tests/benchmarks/reports.py [RESULTS]``.

Writes 10,000 results as a large sweep would leave them (10 methods with 10 configurations each, 4 data sets with 5
settings each, 5 seeds), reads them and writes their table, all on one core; fails where that takes more than 3 seconds.
The files are in the page cache: they were written just before.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from made_results import make_result

from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.store import read_runs
from debias_zoo.trial import Result

MOST_SECONDS = 3.0
"""For 10,000 results."""


def results() -> Iterator[Result]:
    """10,000 different ones."""
    groups = {"classes": list("0123456789"), "biases": list("0123456789"), "aligned": [[k] for k in range(10)]}
    for seed, dataset, conflict, width, method in itertools.product(range(5), range(4), range(5), range(10), range(10)):
        trial = make_result(
            f"method_{method}",
            seed,
            0.5 + (seed + width + method) / 100,
            dataset=f"data_{dataset}",
            params={"conflict": 0.01 * (1 + conflict), "severity": 4, "val": 6000, "data_seed": 0},
            config={"width": width, "scale": 0.1, "pretrain_share": 0.5, "reversal": "epoch"},
        )
        yield Result.model_validate({**trial.model_dump(), "groups": groups, "selectable": 5})


def write(out: Path, count: int) -> None:
    """The first so many results, each in its folder."""
    for result in itertools.islice(results(), count):
        folder = out / result.trial.folder
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(result.trial.model_dump_json(indent=1))
        (folder / "result.json").write_text(result.model_dump_json(indent=1) + "\n")


def main() -> None:
    """Print the seconds; exit with 1 where they are too many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=int, default=10_000)
    count = parser.parse_args().results
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), count)
        start = time.perf_counter()
        runs, problems = read_runs(Path(folder))
        read = time.perf_counter()
        text = render_report(make_report(runs, problems, Asked()), "csv")
        written = time.perf_counter()
    assert len(runs) == count, problems[:3]
    rows = text.count("\n") - 1
    print(f"{count} results: {read - start:.2f} s to read, {written - read:.2f} s for a table of {rows} rows")
    if written - start > MOST_SECONDS * count / 10_000:
        sys.exit(f"more than {MOST_SECONDS * count / 10_000:g} s")


if __name__ == "__main__":
    main()
