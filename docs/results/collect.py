"""Copy what is small of finished trials into a folder beside this file, and write their tables.

    python docs/results/collect.py RUNS NAME --command "debias-zoo run ..."

makes ``docs/results/NAME/`` with every trial's config.json, result.json, curves.jsonl and predictions.npz in the
store's own layout, so that ``debias-zoo report docs/results/NAME`` makes every table again, and ``table.md``,
``table.csv`` and ``table.tex`` with the command, the commit and the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from debias_zoo.reports.report import render
from debias_zoo.reports.table import build_table
from debias_zoo.store import read_results
from debias_zoo.trial import Result

FILES = ("config.json", "result.json", "curves.jsonl", "predictions.npz")


def main() -> None:
    """Collect one store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True, help="what made the runs")
    parser.add_argument("--methods", help="their order in the table")
    asked = parser.parse_args()
    target = Path(__file__).resolve().parent / asked.name
    results, problems = read_results(asked.runs)
    for result in results:
        folder = target / result.trial.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(asked.runs / result.trial.folder / name, folder / name)
        if weights := result.trial.weights:  # where they lie is no part of the trial's identity
            for name in ("config.json", "result.json"):
                text = (folder / name).read_text()
                (folder / name).write_text(text.replace(json.dumps(weights), json.dumps(Path(weights).name)))
    table = build_table(results, methods=asked.methods.split(",") if asked.methods else None, problems=problems)
    (target / "table.csv").write_text(render(table, "csv"))
    (target / "table.tex").write_text(render(table, "latex"))
    (target / "table.md").write_text(f"{render(table, 'markdown')}\n{origin(results, asked.command)}")


def origin(results: list[Result], command: str) -> str:
    """Command, commits, machines and dates of the results."""

    def all_of(key: str) -> str:
        return ", ".join(sorted({str(result.environment[key]) for result in results}))

    hours = sum(result.seconds["total"] for result in results) / 3600
    return (
        f"Command: `{command}`\n\nCommit: {all_of('commit')}; {all_of('processor')}, {all_of('device')}, threads a "
        f"trial: {all_of('threads')}; torch {all_of('torch')}, Python {all_of('python')}; {all_of('date')}; "
        f"{hours:.1f} core-hours.\n"
    )


if __name__ == "__main__":
    main()
