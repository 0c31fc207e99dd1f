"""Exported models that several tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debias_zoo.exported import Exported, Network, Shapes
from debias_zoo.grid import Request, build_grid
from debias_zoo.method import Method, Task
from debias_zoo.registry import load_dataset, load_method
from debias_zoo.runner import load_train, run_trial, trained_method
from debias_zoo.store import Run, read_runs
from debias_zoo.trial import Supervision, Trial

TASK = Task(3, 3, 60, (3, 28, 28), (3,), None, ((10, 5, 5), (5, 10, 5), (5, 5, 10)))
LIMITS = {"train_limit": 64, "eval_limit": 100}


def limited(trial: Trial) -> Trial:
    """A trial and its teachers, of few images."""
    needs = {role: limited(needed) for role, needed in trial.needs.items()}
    return trial.model_copy(update={**LIMITS, "needs": needs})


def train(out: Path, methods: list[str], dataset: str = "cmnist", **how: Any) -> None:
    """Runs of 64 images."""
    for trial in build_grid(Request(methods, [dataset], protocol="quick", **how)).trials.values():
        run_trial(limited(trial), out)


def the(store: Path, method: str) -> tuple[Run, Method, np.ndarray[Any, Any]]:
    """A trial, its method as training left it, and test images."""
    (run,) = (run for run in read_runs(store)[0] if run.result.trial.method == method)
    images = np.asarray(load_dataset("cmnist")().load(None, "test").head(100).images)
    return run, trained_method(run.result.trial, load_train(run.result.trial, None), run.path), images


def as_float(images: np.ndarray[Any, Any]) -> Tensor:
    """Images uint8 (N, H, W, C) as methods take them."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0


def blueprint(name: str, **changes: Any) -> Network:
    """What an export says of the network of a method."""
    cls = load_method(name)
    needs = {role: blueprint(needed.method) for role, needed in cls.needs(cls.Config()).items()}
    fields = {
        "method": name,
        "method_version": cls.version,
        "config": cls.Config().model_dump(mode="json"),
        "backbone": "lnl_convnet",
        "normalize": "cifar",
        "seed": 3,
        "needs": needs,
    }
    return Network(**{**fields, **changes})


def config_of(network: Network, **changes: Any) -> Exported:
    """What an export says of a model."""
    fields: dict[str, Any] = {
        "made_by": "debias-zoo 0",
        "network": network,
        "task": Shapes.of(TASK),
        "classes": ("a", "b", "c"),
        "biases": ("x", "y", "z"),
        "identity": "0" * 12,
        "dataset": "made",
        "params": {},
        "protocol": "quick",
        "precision": "fp32",
        "supervision": Supervision(),
        "metrics": {},
    }
    return Exported(**{**fields, **changes})
