"""Trials of few images."""

from __future__ import annotations

from debias_zoo.grid import Request, build_grid
from debias_zoo.trial import Trial


def trials(methods: str, seeds: int = 1) -> list[Trial]:
    """Quick trials of a second or two."""
    sets = [(method, "train.epochs", 1) for method in methods.split(",") if method != "dedier"]
    found = build_grid(Request(methods.split(","), ["cmnist"], list(range(seeds)), protocol="quick", sets=sets))
    return [trial.model_copy(update={"train_limit": 256, "eval_limit": 50}) for trial in found.trials.values()]
