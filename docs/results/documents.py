"""Make every document of a folder of results again, byte for byte.

    python docs/results/documents.py [NAME ...]

writes, beside the trials in ``docs/results/NAME/``, ``table.md``, ``table.csv``, ``table.tex``, ``selection.md``,
``ledger.md``, ``cost.md`` and ``page.html``; without a name, for all folders. Each is what ``debias-zoo report
docs/results/NAME`` prints with the options below, the Markdown followed by where the numbers came from.
``command.txt`` holds the commands that made the runs, a line each; the table's methods stand in their order.
``ledger.md`` beside this file has the published numbers of all that was run under ``--protocol paper``, but for the
folders in ``tried.txt``: they hold runs with settings changed to find out what a number hangs on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from debias_zoo.reports.ledger import core_hours
from debias_zoo.reports.page import to_html
from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.reports.selection import RULES
from debias_zoo.store import Run, read_runs
from debias_zoo.trial import Result

HERE = Path(__file__).resolve().parent


def documents(folder: Path) -> Iterator[tuple[str, str]]:
    """File name and text of each document of a folder."""
    runs = whole(folder)
    commands = (folder / "command.txt").read_text().splitlines()
    below = origin([run.result for run in runs], commands)
    named = [name for command in commands for name in re.findall(r"--methods (\S+)", command)]
    there = {run.result.trial.method for run in runs}
    methods = [name for name in dict.fromkeys(",".join(named).split(",")) if name in there]
    for name, asked in {
        "table": Asked(methods),
        "selection": Asked(methods, rules=tuple(RULES)),
        "ledger": Asked(methods, ledger=True),
        "cost": Asked(methods, cost=True),
    }.items():
        report = make_report(runs, (), asked)
        yield f"{name}.md", f"{render_report(report, 'markdown')}\n{below}"
        if name == "table":
            yield "table.csv", render_report(report, "csv")
            yield "table.tex", render_report(report, "latex")
            yield "page.html", to_html(runs, (), asked, folder)


def paper_ledger() -> str:
    """What papers print beside ours, of all runs under ``--protocol paper``, in the last epoch and in the best."""
    tried = (HERE / "tried.txt").read_text().split()
    every = (run for path in folders() if path.name not in tried for run in whole(path))
    runs = [run for run in every if run.result.trial.protocol == "paper"]
    report = make_report(runs, [], Asked(rules=("last", "oracle"), ledger=True))
    results = [run.result for run in runs]
    return f"{render_report(report, 'markdown')}\n{origin(results, ['python docs/results/documents.py'])}"


def whole(folder: Path) -> list[Run]:
    """The runs of a folder; ends the program where one of them cannot be read."""
    runs, problems = read_runs(folder)
    if problems or not runs:
        raise SystemExit("\n".join(problems) or f"no run in {folder}")
    return runs


def folders() -> list[Path]:
    """Those that hold results."""
    return sorted(path.parent for path in HERE.glob("*/command.txt"))


def origin(results: list[Result], commands: list[str]) -> str:
    """Commands, commits, machines and dates of the results."""

    def all_of(key: str) -> str:
        return ", ".join(sorted({str(result.environment[key]) for result in results}))

    hours = core_hours(results)
    cost = "core-hours not noted" if hours is None else f"{hours:.1f} core-hours"
    told = "\n\n".join(f"Command: `{command}`" for command in commands)
    return (
        f"{told}\n\nCommit: {all_of('commit')}; {all_of('processor')}, {all_of('device')}, threads a "
        f"trial: {all_of('threads')}; torch {all_of('torch')}, Python {all_of('python')}; {all_of('date')}; "
        f"{cost}.\n"
    )


def main() -> None:
    """Write the documents of the folders that are named, or of all."""
    for folder in [HERE / name for name in sys.argv[1:]] or folders():
        for file, text in documents(folder):
            (folder / file).write_text(text)
    (HERE / "ledger.md").write_text(paper_ledger())


if __name__ == "__main__":
    main()
