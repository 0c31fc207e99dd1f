"""A method's stages as they will be trained: settings merged, epochs dealt out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import ZooError
from .method import Method, Stage
from .protocol import TRAIN, Settings, split_epochs


@dataclass(frozen=True)
class StagePlan:
    """A stage with its settings merged and its epochs counted."""

    stage: Stage
    epochs: int
    settings: Settings


def shares_first(plans: Sequence[StagePlan]) -> bool:
    """Whether the end of the first stage is one that other trials can go on from."""
    return len(plans) > 1 and bool(plans[0].stage.shared_as) and plans[1].stage.fresh_optimizers


def plan_stages(method: Method, settings: Settings, overrides: Mapping[str, Settings]) -> list[StagePlan]:
    """The method's stages under a trial's settings.

    Args:
        method: whose stages.
        settings: of the whole trial; its epochs are dealt out by the stages' shares, but for stages that state theirs.
        overrides: by stage name, ``TRAIN`` for stages that are not named; names the method has not are passed over.
    """
    stages = list(method.stages())
    if TRAIN in (stage.name for stage in stages):
        raise ZooError(f"{method.name}: no stage can be called {TRAIN!r}, which stands for all stages in --set")
    every = overrides.get(TRAIN, Settings())
    special = [overrides.get(stage.name, every).over(stage.settings) for stage in stages]
    merged = [own.over(settings) for own in special]
    own = [how.epochs for how in special]
    dealt = [k for k, epochs in enumerate(own) if epochs is None]
    fixed = sum(epochs for epochs in own if epochs is not None)
    if dealt and settings.epochs is None:
        raise ZooError(f"no number of epochs is set for {method.name}: --set {method.name}.train.epochs=N")
    parts = split_epochs((settings.epochs or 0) - fixed, [stages[k].share for k in dealt]) if dealt else []
    for k, part in zip(dealt, parts, strict=True):
        own[k] = part
    plans = []
    for stage, how, epochs in zip(stages, merged, own, strict=True):
        if missing := how.missing():
            raise ZooError(f"{method.name}, stage {stage.name!r}: {', '.join(missing)} not set by any recipe")
        plans.append(StagePlan(stage, epochs or 0, how))
    return plans
