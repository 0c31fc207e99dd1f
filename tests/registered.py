"""Classes that tests put beside those that are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from debias_zoo import registry
from debias_zoo.dataset import BiasDataset, Card, Split
from debias_zoo.datasets.cmnist import ColoredMNIST


class Unlabelled(BiasDataset):
    """Data without bias labels; every class has one bias as far as anybody knows."""

    name = "unlabelled"
    title = "no bias labels"
    bias_attribute = "unknown"

    @property
    def card(self) -> Card:
        shared = ColoredMNIST().card.model_dump()
        return Card(**{**shared, "biases": (), "aligned": ((),) * 10, "bias_map": None, "eval_splits": ("test",)})

    def load(self, root: Any, split: str) -> Split:
        random = np.random.default_rng(0)
        return Split(random.integers(0, 255, (40, 28, 28, 3), np.uint8), np.arange(40) % 10)


def register(monkeypatch: pytest.MonkeyPatch, *classes: Any) -> None:
    """As if entry points named these classes too."""
    load, own = registry._load, {cls.name: cls for cls in classes}
    monkeypatch.setattr(registry, "_load", lambda kind, name: own.get(name) or load(kind, name))
