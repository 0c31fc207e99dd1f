"""Budgets and schedules: what ``quick``, ``standard`` and ``paper`` mean, and how settings are merged.

Settings come from six places, from the general to the special; the later one wins, field by field:

1. the data set's ``training`` settings for the protocol (the same for every method: equal budgets);
2. the ``settings`` of the method's recipe for this protocol and data set (``Method.recipes``);
3. the method's own stage settings (``Stage.settings``);
4. the recipe's ``stages``;
5. ``--set METHOD.train.KEY=VALUE``, for every stage of a method (``epochs``: of all stages together);
6. ``--set METHOD.STAGE.KEY=VALUE``, for one stage.

The settings in a recipe file (``--recipe``) are taken as if ``--set`` gave them, before those that it gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

ProtocolName = Literal["quick", "standard", "paper"]
TRAIN = "train"
"""The name under which ``--set`` reaches the settings of every stage."""
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)


class Augment(BaseModel):
    """What is done to training images, in this order; nothing by default (``augment.py``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    resized_crop: tuple[float, float] | None = Field(
        None, description="cut out a random part of this share of the area, aspect 3/4 ... 4/3, and scale it back"
    )
    pad_crop: int | None = Field(None, ge=1, description="shift by up to so many pixels each way, black outside")

    @field_validator("resized_crop")
    @classmethod
    def _shares(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError("two shares of the area, 0 < least <= most <= 1")
        return value

    flip: bool = Field(False, description="mirror left and right, every second image")
    jitter: float | None = Field(
        None, gt=0, le=1, description="change brightness, contrast and saturation by a factor of up to 1 -+ this"
    )


class Settings(BaseModel):
    """How one stage is trained; a field left at None is taken from the next more general place."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int | None = Field(None, ge=1, description="passes over the training split")
    batch_size: int | None = Field(None, ge=1, description="images a step")
    optimizer: Literal["sgd", "adam", "adamw"] | None = Field(None, description="update rule")
    lr: float | None = Field(None, gt=0, description="learning rate at the start of the stage")
    momentum: float | None = Field(None, ge=0, lt=1, description="momentum of sgd; first beta of adam")
    weight_decay: float | None = Field(None, ge=0, description="L2 penalty on every parameter")
    schedule: Literal["constant", "cosine", "step"] | None = Field(None, description="learning rate over the stage")
    step_epochs: int | None = Field(None, ge=1, description="epochs between two decays of the step schedule")
    gamma: float | None = Field(None, gt=0, le=1, description="factor of one decay of the step schedule")
    clip: float | None = Field(None, gt=0, description="largest norm of a gradient; None: not clipped")
    augment: Augment | None = Field(None, description="what is done to training images")

    def over(self, general: Settings) -> Settings:
        """These settings, with what they leave open taken from ``general``."""
        own = self.model_dump(exclude_none=True)
        return Settings(**{**general.model_dump(exclude_none=True), **own})

    def missing(self) -> list[str]:
        """The fields that training needs and that nobody has set."""
        needed = ["batch_size", "optimizer", "lr", "momentum", "weight_decay", "schedule"]
        if self.schedule == "step":
            needed += ["step_epochs", "gamma"]
        return [name for name in needed if getattr(self, name) is None]

    def lr_factor(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate at 0-based ``step`` of ``steps`` (``epoch`` of the stage), over the initial one."""
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))
        if self.schedule == "step":
            return float((self.gamma or 1.0) ** (epoch // (self.step_epochs or 1)))
        return 1.0


class Recipe(BaseModel):
    """A method's settings for one protocol and one data set, with where they come from.

    ``pretrained``: the backbone starts from timm's pretrained weights, or from those of ``--weights``.

    ``tuned_on`` names the split on which settings that are not the paper's were chosen: choosing on unbiased
    validation labels is supervision too, and every table says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: ProtocolName
    dataset: str
    source: str
    backbone: str | None = None
    backbone_options: dict[str, Any] = {}
    pretrained: bool = False
    normalize: str | None = None
    settings: Settings = Settings()
    stages: dict[str, Settings] = {}
    config: dict[str, Any] = {}
    tuned_on: Literal["val", "val_unbiased"] | None = None
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """How much of the data a protocol uses; the numbers of epochs belong to data sets and recipes."""

    name: str
    about: str
    train_limit: int | None
    eval_limit: int | None
    needs_recipe: bool


_PROTOCOLS: Mapping[str, Protocol] = {
    "quick": Protocol("quick", "a look that everything runs; its numbers mean nothing", 2048, 1000, False),
    "standard": Protocol(
        "standard", "one equal budget for every method, minutes a trial on one core", None, None, False
    ),
    "paper": Protocol("paper", "the schedule of the method's own paper", None, None, True),
}


def protocol(name: str) -> Protocol:
    """The protocol called ``name`` (one of ``PROTOCOLS``)."""
    return _PROTOCOLS[name]


def split_epochs(total: int, shares: list[float]) -> list[int]:
    """``total`` epochs dealt out by ``shares``, at least one each; sums to max(total, number of stages)."""
    whole = sum(shares)
    exact = [total * share / whole for share in shares]
    epochs = [max(1, math.floor(value)) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: exact[i] - epochs[i], reverse=True)
    for i in by_remainder:
        if sum(epochs) >= total:
            break
        epochs[i] += 1
    while sum(epochs) > total and max(epochs) > 1:
        epochs[epochs.index(max(epochs))] -= 1
    return epochs
