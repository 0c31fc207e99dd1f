"""Finished trials made by hand, with their predictions, in the store's own layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from made_results import make_trial

from debias_zoo.metrics import group_metrics
from debias_zoo.store import Run
from debias_zoo.trial import SCHEMA, Groups, Result, Supervision, Trial
from debias_zoo.writing import write_text

GROUPS = Groups(classes=("cat", "dog"), biases=("dark", "bright"), aligned=((0,), (1,)), train=((40, 10), (5, 45)))
"""Two classes, two biases; the first bias goes with the first class."""

Arrays = Mapping[str, npt.NDArray[Any]]


def write_run(
    out: Path, trial: Trial, arrays: Arrays, *, groups: Groups | None = GROUPS, selectable: int = 3, **changes: Any
) -> Run:
    """A finished trial whose metrics follow from its predictions; ``changes`` are fields of Result."""
    measured = groups or GROUPS
    splits = dict.fromkeys(name.rpartition(".")[0] for name in arrays)
    metrics = {
        name: group_metrics(
            arrays[f"{name}.class"][-1],
            arrays[f"{name}.label"],
            arrays.get(f"{name}.bias"),
            measured,
            arrays[f"{name}.log_odds"][-1],
        )
        for name in splits
    }
    fields: dict[str, Any] = {
        "schema_version": SCHEMA,
        "identity": trial.identity,
        "trial": trial,
        "groups": groups,
        "selectable": selectable,
        "metrics": metrics,
        "seconds": {"train": 90.0, "evaluate": 10.0, "total": 100.0},
        "cost": {"parameters": 1234567.0, "extra_parameters": 890.0, "steps": 500.0, "peak_bytes": 3e8},
        "environment": {"processor": "AMD EPYC", "device": "cpu", "threads": 1},
    }
    result = Result(**{**fields, **changes})
    folder = out / trial.folder
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "predictions.npz", allow_pickle=False, **arrays)
    write_text(folder / "result.json", result.model_dump_json(indent=1) + "\n")
    return Run(result, folder)


def predicted(
    classes: Sequence[Sequence[int]],
    labels: Sequence[int],
    biases: Sequence[int] | None,
    log_odds: Sequence[Sequence[float]] | None = None,
    split: str = "test",
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of one split: classes (E, N), labels (N,), biases (N,), log-odds (E, N) or 1 everywhere."""
    shape = np.shape(classes)
    found = {
        f"{split}.class": np.array(classes, dtype=np.uint8),
        f"{split}.log_odds": np.array(np.ones(shape) if log_odds is None else log_odds, dtype=np.float16),
        f"{split}.label": np.array(labels, dtype=np.int16),
    }
    return found if biases is None else {**found, f"{split}.bias": np.array(biases, dtype=np.int16)}


def drawn(key: str, split: str, epochs: int = 4, images: int = 60) -> dict[str, npt.NDArray[Any]]:
    """Predictions that are best in the middle, and better where the bias helps; the same for the same key and split.

    The images are the same for all keys.
    """
    places = np.arange(images)
    labels, biases = places % 2, (places // 2) % 2
    seed = int.from_bytes(hashlib.blake2b(f"{key} {split}".encode(), digest_size=4).digest(), "big")
    random = np.random.RandomState(seed)  # a stream that numpy promises never to change
    learnt = 0.7 - 0.05 * np.abs(np.arange(epochs) - epochs // 2)[:, None] + 0.25 * (labels == biases)
    right = random.random_sample((epochs, images)) < learnt
    classes = np.where(right, labels, 1 - labels)
    return predicted(classes.tolist(), labels.tolist(), biases.tolist(), random.gamma(2.0, 1.0, right.shape), split)


def make_run(
    out: Path,
    method: str,
    seed: int = 0,
    splits: Sequence[str] = ("test", "val", "val_unbiased"),
    result: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """A trial with drawn predictions; ``changes`` are fields of Trial, ``result`` of Result."""
    trial = make_trial(method, seed, **changes)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split in splits:
        arrays |= drawn(trial.folder, split)
    return write_run(out, trial, arrays, **(result or {}))


ODD = "a_b & <c>"
"""A name with signs that Markdown, CSV or LaTeX would take for their own."""


def made_store(out: Path) -> Path:
    """Two data sets, one in a sweep; settings, backbones and supervision that differ; an old and a failed trial."""
    teaches = Supervision(train=True, tuned_on="val_unbiased")
    for conflict in (0.01, 0.05):
        params = {"conflict": conflict, "severity": 4, "val": 6000, "data_seed": 0}
        data: dict[str, Any] = {"dataset": "cmnist-lff", "params": params, "fingerprint": f"mnist {conflict}"}
        for seed in range(3):
            make_run(out, "erm", seed, **data)
            make_run(out, "lnl", seed, supervision=teaches, config={"scale": 0.1}, **data)
        make_run(out, "lnl", 0, supervision=teaches, config={"scale": 0.3}, **data)
        make_run(out, ODD, 0, backbone="mlp", **data)
        make_run(out, ODD, 1, backbone="resnet18", splits=("test",), **data)
    bar: dict[str, Any] = {"dataset": "bar", "params": {"size": 64}, "backbone": "resnet18", "fingerprint": "bar"}
    make_run(out, "erm", 0, **bar)
    make_run(out, "gray", 0, supervision=Supervision(knows_bias_kind=True), **bar)
    make_run(out, "lnl", 0, supervision=teaches, config={"scale": 0.1}, **bar)
    old = {"schema_version": 1, "groups": None, "selectable": None}
    make_run(out, "rebias", 0, result=old, **bar)
    failed = out / "bar" / "hex" / "0-000000000000"
    failed.mkdir(parents=True)
    write_text(failed / "config.json", "{}\n")
    write_text(failed / "error.txt", "DivergedError: the loss is NaN\n")
    return out
