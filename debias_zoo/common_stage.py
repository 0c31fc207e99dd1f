"""The first stage that trials have in common: one of them trains it, the others go on from its end.

The seeds of a stage know nothing of the method, so those others end with the bits that they would have had alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .devices import processor
from .errors import ZooError
from .method import Method
from .plans import shares_first
from .store import Folder
from .trainer import Trainer
from .trial import Trial
from .weights import digest

FOLDER = ".stages"
"""Where they lie in a store; it may be deleted at any time."""

_OWN = {"method", "config", "settings", "stages", "supervision", "protocol", "source", "deviations"}
_OWN |= {"options", "plugins", "weights"}
"""What of a trial does not matter to its first stage, or is told in another way."""

NOTE = "took over its first stage, whose seconds are counted here too, from "
"""How the note of a result begins whose trial did not train its first stage itself."""


class CommonStage:
    """The place of a trial's first stage, which the trials that begin in the same way share.

    Args:
        trial: whose. trainer: as built for it, before the first step. out: the store.
        stacked: whether the trial is trained in one program with others.
        warn: is told of a damaged file that is put aside, and of what could not be kept.
    """

    def __init__(self, trial: Trial, trainer: Trainer, out: Path, stacked: bool, warn: Callable[[str], None]) -> None:
        self.trial, self.warn, self.initial = trial, warn, trainer.initial
        self.shared = shares_first(trainer.plans) and not trial.needs
        key = _key(trial, trainer, stacked) if self.shared else ""
        self.folder = Folder(out / FOLDER / key, warn)

    @property
    def _is_there(self) -> bool:
        return self.shared and (self.folder.path / "checkpoint.pt").exists()

    def state(self, device: str) -> dict[str, Any] | None:
        """What a trainer goes on from, or None."""
        if not self._is_there:
            return None
        with self.folder.locked():
            found = self.folder.checkpoint(device)
        if found is None or "by" not in found:
            return None
        notes = [*found.get("notes", []), f"{NOTE}{found['by']}"]
        return {**found, "initial": self.initial, "notes": notes}

    def keep(self, state: Mapping[str, Any]) -> None:
        """Keep a state at the end of the stage, unless another trial has done so; training goes on in any case."""
        if not self.shared:
            return
        try:
            with self.folder.locked():
                if not self._is_there:
                    self.folder.save_checkpoint({**state, "by": f"{self.trial.method}/{self.trial.identity}"})
        except (ZooError, OSError) as error:
            self.warn(f"{self.trial.label}: its first stage is not kept for others ({error})")


def _key(trial: Trial, trainer: Trainer, stacked: bool) -> str:
    """Differs wherever a number at the end of the stage could, down to the last bit."""
    plan, method, engine = trainer.plans[0], trainer.method, trainer.engine
    device = engine.device
    told = {
        "trial": trial.model_dump(mode="json", exclude=_OWN),
        "stage": [plan.stage.name, plan.stage.shared_as, plan.epochs, plan.settings.model_dump(mode="json")],
        "sees": [method.sees_bias, method.reads_bias_map, method.min_batch],
        "initial": digest({name: value.cpu() for name, value in method.state_dict().items()}),
        "program": [engine.layout.name, stacked, torch.__version__, torch.get_num_threads()],
        "machine": [device.type, processor(str(device))],
        "code": [_zoo_code(), _own_code(method)],
    }
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=10).hexdigest()


@lru_cache(maxsize=1)
def _zoo_code() -> str:
    """Of every file of the zoo, methods included: whatever is mended, no stage from before is taken over."""
    found = hashlib.blake2b(digest_size=10)
    for folder, folders, files in os.walk(Path(__file__).parent, followlinks=True):  # in a checkout some are links
        folders.sort()
        for file in sorted(files):
            if file.endswith(".py"):
                found.update(Path(folder, file).read_bytes())
    return found.hexdigest()


def _own_code(method: Method) -> str:
    """Of the file of a method that is not the zoo's."""
    module = sys.modules[type(method).__module__]
    if module.__name__.startswith("debias_zoo.") or not module.__file__:
        return ""
    return hashlib.blake2b(Path(module.__file__).read_bytes(), digest_size=10).hexdigest()
