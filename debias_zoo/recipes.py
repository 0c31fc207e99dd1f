"""Recipe files: settings of one method on one data set that ``debias-zoo tune`` chose, and how it chose them.

A file is YAML and is only ever read as data. ``run --recipe FILE`` puts its settings in the place of the method's own
recipe, and the trials say which labels were read to choose them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from .errors import ZooError
from .protocol import ProtocolName, Settings
from .registry import load_dataset, load_method
from .validated import validated
from .writing import write_text
from .yaml_files import read_mapping

TunedOn = Literal["val", "val_unbiased"]


class RecipeFile(BaseModel):
    """What a recipe file holds.

    Attributes:
        settings: by key, as in ``--set METHOD.KEY``. searched: what was searched, by key, in words.
        criterion: the selection rule whose score was made large. split: that it read.
        score: mean over seeds, a fraction. own_score: of the recipe's own settings; None where they failed.
        trial: the number that was chosen. trials, failed: how many there were, and how many of them failed.
        tuned_on: as in ``Supervision``: "val" where labels were read, "val_unbiased" where bias labels were.
        command, commit, date: of the search; the last two are those of the chosen trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = Field(1, description="1")
    method: str = Field(description="registry name")
    dataset: str = Field(description="registry name")
    params: dict[str, Any] = Field(description="of the data set")
    protocol: ProtocolName = Field(description="quick, standard or paper")
    backbone: str = Field(description="a timm model")
    seeds: tuple[int, ...] = Field(description="that were averaged")
    settings: dict[str, Any] = Field(description="KEY: value, as in --set METHOD.KEY=value")
    searched: dict[str, str] = Field(description="KEY: range")
    criterion: str = Field(description="a selection rule")
    split: str = Field(description="the split that the criterion read")
    score: float = Field(description="of the criterion, a fraction")
    own_score: float | None = Field(description="of the recipe's own settings")
    trial: int = Field(ge=0, description="number of the chosen trial")
    trials: int = Field(ge=1, description="how many there were")
    failed: int = Field(ge=0, description="how many failed")
    tuned_on: TunedOn = Field(description="val or val_unbiased")
    command: str = Field(description="that searched")
    commit: str = Field(description="of debias-zoo")
    date: str = Field(description="of the chosen trial")

    def write(self, path: Path) -> None:
        """Write it whole, keys in the order above."""
        about = f"# Settings of {self.method} on {self.dataset}, chosen by debias-zoo tune.\n"
        use = f"# debias-zoo run --methods {self.method} --dataset {self.dataset} --recipe {shlex.quote(path.name)}\n"
        content = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
        write_text(path, about + use + content)


@dataclass(frozen=True)
class Chosen:
    """Settings of a method on a data set that were chosen by validation labels.

    Attributes:
        settings: by key, as in ``--set METHOD.KEY``. tuned_on: as in ``Supervision``.
        file: that holds them; None while they are being searched.
        made_with: protocol, backbone and parameters of the data with which they were chosen.
    """

    method: str = ""
    dataset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tuned_on: TunedOn | None = None
    file: Path | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sets(self) -> list[tuple[str, str, Any]]:
        """(method, key or stage.key, value), as ``--set`` would give them."""
        return [(self.method, key, value) for key, value in self.settings.items()]

    @property
    def options(self) -> tuple[str, ...]:
        """Of the command line that runs them again."""
        if self.file is not None:
            return (f"--recipe {self.file}",)
        return tuple(f"--set {self.method}.{key}={_plain(value)}" for key, value in self.settings.items())

    def deviations(self, given: Mapping[str, Any]) -> list[str]:
        """What differs from the method's own recipe, and from what the settings were chosen with."""
        if self.tuned_on is None:
            return []
        where = f"chosen on {self.tuned_on}" if self.file else f"searched on {self.tuned_on}"
        other = {key: value for key, value in self.made_with.items() if given.get(key) != value}
        return [
            *[f"{where}: {key}={_plain(value)}" for key, value in self.settings.items()],
            *[f"its settings were chosen with {key}={value}, not {given.get(key)}" for key, value in other.items()],
        ]


def read_recipe(path: Path) -> Chosen:
    """The settings in a recipe file. Raises a ZooError that says what in it is wrong and what is allowed."""
    found = validated(RecipeFile, read_mapping(path, "recipe"), f"recipe {path}")
    cls = load_method(found.method)
    load_dataset(found.dataset)
    config = {key: value for key, value in found.settings.items() if "." not in key}
    validated(cls.Config, config, f"method {found.method!r} in recipe {path}")
    for key, value in found.settings.items():
        stage, dot, name = key.partition(".")
        if dot:
            validated(Settings, {name: value}, f"stage {stage!r} of method {found.method!r} in recipe {path}")
    made_with = {"protocol": found.protocol, "backbone": found.backbone, **found.params}
    return Chosen(found.method, found.dataset, found.settings, found.tuned_on, path, made_with)


def chosen_for(every: Sequence[Chosen], method: str, dataset: str) -> Chosen:
    """What was chosen for a method on a data set; an empty one where nothing was."""
    return next((one for one in every if (one.method, one.dataset) == (method, dataset)), Chosen())


def check_chosen(every: Sequence[Chosen], methods: Sequence[str], datasets: Sequence[str]) -> None:
    """Raise a ZooError for a recipe that no trial would take, or that another one contradicts."""
    seen: dict[tuple[str, str], Chosen] = {}
    for one in every:
        who = f"--recipe {one.file}"
        if one.method not in methods:
            raise ZooError(f"{who} is for method {one.method!r}, which is not among {', '.join(methods)}")
        if one.dataset not in datasets:
            raise ZooError(f"{who} is for data set {one.dataset!r}, which is not among {', '.join(datasets)}")
        other = seen.setdefault((one.method, one.dataset), one)
        if other is not one:
            raise ZooError(f"{who} and --recipe {other.file} are both for {one.method} on {one.dataset}: give one")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
