"""Copy what is small of finished trials into a folder beside this file; ``documents.py`` then writes their tables.

    python docs/results/collect.py RUNS NAME --command "debias-zoo run ..." [--command ...]

makes ``docs/results/NAME/`` with every trial's config.json, result.json, curves.jsonl, predictions.npz and, where it
was probed or explained, probe.json and explain.json, in the store's own layout: ``debias-zoo report
docs/results/NAME`` reads it as it reads any runs. A folder that is there keeps its other trials and commands. What is
unfinished or damaged is told, and not copied.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from debias_zoo.errors import ZooError
from debias_zoo.store import Run, read_finished

HERE = Path(__file__).resolve().parent
FILES = ("config.json", "result.json", "curves.jsonl", "predictions.npz", "probe.json", "explain.json")


def main() -> int:
    """Collect one store; 1 where something in it was not copied."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True, action="append", help="what made the runs")
    asked = parser.parse_args()
    target = HERE / asked.name
    try:
        runs, problems = read_finished(asked.runs)
    except ZooError as error:
        raise SystemExit(str(error)) from error
    for run in runs:
        collect(run, target / run.result.trial.folder)
    told = target / "command.txt"
    before = told.read_text().splitlines() if told.exists() else []
    told.write_text("".join(f"{command}\n" for command in dict.fromkeys([*before, *asked.command])))
    for problem in problems:
        print(f"not copied: {problem}", file=sys.stderr)
    return int(bool(problems))


def collect(run: Run, folder: Path) -> None:
    """Copy one trial's files; where its initial weights lay on the disk is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (run.path / name).exists():
            shutil.copyfile(run.path / name, folder / name)
    if weights := run.result.trial.weights:  # where they lie is no part of the trial's identity
        for name in ("config.json", "result.json"):
            text = (folder / name).read_text()
            (folder / name).write_text(text.replace(json.dumps(weights), json.dumps(Path(weights).name)))


if __name__ == "__main__":
    raise SystemExit(main())
