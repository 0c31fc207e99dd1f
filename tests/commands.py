"""The command line, called in this process or run in its own, and what is left of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from debias_zoo.cli import cli

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--dataset", "cmnist", "--protocol", "quick", "--device", "cpu"]
RUN = ["run", "--methods", "erm", *SMALL]


def invoke(*command: str) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(cli, list(command))


def zoo(*command: str, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, from the checkout."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DEBIAS_ZOO_CHECKPOINT_SECONDS": "0", **options.pop("env", {})}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "debias_zoo", *command],
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        **options,
    )


def outcome(out: Path) -> dict[str, Any]:
    """All numbers and weights below ``out``, without times."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("result.json")):
        folder = path.parent
        with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
            predictions = {name: arrays[name].tobytes() for name in arrays.files}
        metrics = json.loads(path.read_text())["metrics"]
        weights = (folder / "model.safetensors").read_bytes()
        found[folder.name] = (metrics, predictions, weights, (folder / "curves.jsonl").read_text())
    return found


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in path.read_text().split()]
    return found


def gone(pid: int) -> bool:
    """No such process, or only its corpse."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
