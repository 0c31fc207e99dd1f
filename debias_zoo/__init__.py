"""A comparative zoo of debiasing methods for image classifiers.

The names below are imported when they are first used: importing the package imports nothing else.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import run
    from .dataset import BiasDataset, Card, Split
    from .errors import ZooError
    from .exporting import export
    from .fitting import Fitted, fit
    from .loading import load
    from .method import Batch, Clock, Method, Optim, Paper, Stage, Update, setting
    from .predictor import Predictor
    from .runs import Runs, read

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "BiasDataset",
    "Card",
    "Clock",
    "Fitted",
    "Method",
    "Optim",
    "Paper",
    "Predictor",
    "Runs",
    "Split",
    "Stage",
    "Update",
    "ZooError",
    "export",
    "fit",
    "load",
    "read",
    "run",
    "setting",
]

_MODULES = {
    "api": ("run",),
    "dataset": ("BiasDataset", "Card", "Split"),
    "errors": ("ZooError",),
    "exporting": ("export",),
    "fitting": ("Fitted", "fit"),
    "loading": ("load",),
    "method": ("Batch", "Clock", "Method", "Optim", "Paper", "Stage", "Update", "setting"),
    "predictor": ("Predictor",),
    "runs": ("Runs", "read"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

_checkout = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "methods").is_dir() and (_checkout / "methods").is_dir():
    __path__.append(str(_checkout))  # a checkout whose relative links are plain files, as on Windows


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
