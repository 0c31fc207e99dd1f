"""The first stage that trials have in common: one of them trains it, the others go on from its end.

The seeds of a stage know nothing of the method, so those others end with the bits that they would have had alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import __version__
from .plans import shares_first
from .store import Folder
from .trainer import Trainer
from .trial import Trial

FOLDER = ".stages"
"""Where they lie in a store; it may be deleted at any time."""

_OWN = {"method", "method_version", "config", "settings", "stages", "supervision", "protocol", "source", "deviations"}
_OWN |= {"options", "plugins", "weights"}
"""What of a trial does not matter to its first stage, or is told in another way."""

NOTE = "took over its first stage, whose seconds are counted here too, from "
"""How the note of a result begins whose trial did not train its first stage itself."""


class CommonStage:
    """The place of a trial's first stage, which the trials that begin in the same way share.

    Args:
        trial: whose. trainer: as built for it, before the first step. out: the store.
        warn: is told of a damaged file that is put aside.
    """

    def __init__(self, trial: Trial, trainer: Trainer, out: Path, warn: Callable[[str], None]) -> None:
        self.trial = trial
        self.shared = shares_first(trainer.plans) and not trial.needs
        self.folder = Folder(out / FOLDER / _key(trial, trainer), warn)

    def state(self, device: str) -> dict[str, Any] | None:
        """What a trainer goes on from, or None."""
        found = self.folder.checkpoint(device) if self.shared else None
        if found is not None and "by" in found:
            found["notes"] = [*found.get("notes", []), f"{NOTE}{found['by']}"]
        return found

    def keep(self, state: Mapping[str, Any]) -> None:
        """Keep a state at the end of the stage, unless another trial has done so."""
        if not self.shared:
            return
        with self.folder.locked():
            if not (self.folder.path / "checkpoint.pt").exists():
                self.folder.save_checkpoint({**state, "by": f"{self.trial.method}/{self.trial.identity}"})


def _key(trial: Trial, trainer: Trainer) -> str:
    """Differs wherever a number at the end of the stage could."""
    plan, method, engine = trainer.plans[0], trainer.method, trainer.engine
    told = {
        "trial": trial.model_dump(mode="json", exclude=_OWN),
        "stage": [plan.stage.name, plan.stage.shared_as, plan.epochs, plan.settings.model_dump(mode="json")],
        "sees": [method.sees_bias, method.reads_bias_map, method.min_batch],
        "initial": _digest(method.state_dict()),
        "program": [engine.layout.name, engine.device.type, torch.__version__, __version__],
    }
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=10).hexdigest()


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=10)
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
