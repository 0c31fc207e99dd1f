"""Runs made by hand on disk, with predictions, as a trial would have left them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from made_results import SEES_BIAS, make_trial

from debias_zoo.metrics import group_metrics
from debias_zoo.store import Run
from debias_zoo.trial import SCHEMA, Groups, Probe, ProbedLayer, Readout, Result

GROUPS = Groups(classes=("cat", "dog", "owl"), biases=("red", "green", "blue"), aligned=((0,), (1,), (2,)))
SPLITS = ("val", "test")

ODD_NAME = "a_b & <c>"
ODD_VALUE = "</script><script>document.title = 'owned'</script><!--"


def make_run(
    out: Path,
    method: str = "erm",
    seed: int = 0,
    skill: float = 0.5,
    *,
    epochs: int = 5,
    images: int = 180,
    seconds: float | None = 100.0,
    readable: bool = True,
    **changes: Any,
) -> Run:
    """A finished trial whose network tells the label from the image with a probability, else from the bias.

    Args:
        out: the runs' folder. method, seed, changes: as in ``make_trial``.
        skill: that probability, of the middle epoch; it moves a little from epoch to epoch.
        epochs: that were evaluated. images: of each split.
        seconds: of the trial, or None where it was not noted. readable: whether its predictions are there.
    """
    trial = make_trial(method, seed, **changes)
    random = np.random.default_rng(int(trial.identity, 16))
    arrays: dict[str, Any] = {}
    metrics = {}
    for split in SPLITS:
        labels, biases = (random.integers(0, 3, images).astype(np.int16) for _ in range(2))
        knows = skill + 0.1 * random.standard_normal(epochs)
        classes = np.where(random.random((epochs, images)) < knows[:, None], labels, biases).astype(np.int16)
        log_odds = random.normal(1.0, 0.5, (epochs, images)).astype(np.float16)
        found = {"class": classes, "log_odds": log_odds, "label": labels, "bias": biases}
        arrays |= {f"{split}.{name}": array for name, array in found.items()}
        metrics[split] = group_metrics(classes[-1], labels, biases, GROUPS, log_odds[-1])
    result = Result(
        schema_version=SCHEMA,
        identity=trial.identity,
        trial=trial,
        groups=GROUPS,
        selectable=epochs,
        metrics=metrics,
        seconds={} if seconds is None else {"total": seconds},
        cost={},
        environment={"commit": f"c0ffee{seed}", "processor": "a processor", "device": "cpu", "torch": "2.13.0"},
        notes=[f"note of {method}"],
    )
    return write_run(out, result, arrays if readable else None)


def write_run(out: Path, result: Result, arrays: dict[str, Any] | None) -> Run:
    """The result and, where there are any, its predictions in their folder."""
    folder = out / result.trial.folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(result.trial.model_dump_json())
    (folder / "result.json").write_text(result.model_dump_json())
    if arrays is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        (folder / "predictions.npz").write_bytes(buffer.getvalue())
    return Run(result, folder)


def make_comparison(out: Path) -> list[Run]:
    """Runs in two settings of the data: spreads, probes, odd names, and rows whose predictions are missing."""
    runs = []
    for variance in (0.02, 0.05):
        params = {"variance": variance, "val": 6000}
        for seed in range(3):
            runs.append(make_run(out, "erm", seed, 0.4, params=params, seconds=150.0))
            runs.append(make_run(out, "lnl", seed, 0.6, params=params, seconds=300.0, supervision=SEES_BIAS))
            runs.append(make_run(out, ODD_NAME, seed, 0.8, params=params, seconds=90.0, config={"note": ODD_VALUE}))
        runs.append(make_run(out, "zeta", 0, 0.5, params=params, seconds=None, readable=False))
    for run in (run for run in runs if run.result.trial.method == "erm"):
        found = Readout(accuracy=0.8, std=0.01, chance=1 / 3)
        layer = ProbedLayer(name="embedding", dim=8, bias=found, label=found)
        identity = run.result.identity
        run.save(Probe(identity=identity, split="val", limit=90, images=90, folds=5, dependence=0.0, layers=(layer,)))
    return runs
