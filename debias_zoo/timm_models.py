"""timm's models and the backbones that are registered with it, for images of any size; errors name the model."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from .errors import ZooError, unknown
from .registry import entries, load_backbone
from .torchvision_guard import import_timm

import_timm()

import timm  # noqa: E402  (after the guard, or timm cannot be imported)

OF_TIMM = frozenset(name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("timm."))
"""The names of timm's own models, before a plugin can take one of them."""

FETCHING = frozenset({"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"})
"""Options of timm that name files or addresses: weights come by ``weights.py`` alone."""


def create(name: str, classes: int, image_shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    """The timm model called ``name`` with ``classes`` outputs (0: no classifier). image_shape: (C, H, W)."""
    if not is_model(name):
        raise unknown("backbone", name, [*entries("backbone"), *OF_TIMM], "any timm model can be named")
    if fetching := sorted(FETCHING.intersection(options)):
        raise ZooError(f"backbone {name!r} takes no option {fetching[0]!r}, which would read weights from elsewhere")
    channels, height, width = image_shape
    takes = inspect.signature(timm.model_entrypoint(name)).parameters
    cfg = timm.get_pretrained_cfg(name)
    if options.get("pretrained") and (cfg is None or not cfg.has_weights):
        raise ZooError(f"timm has no pretrained weights of backbone {name!r}")
    if "img_size" not in options and ("img_size" in takes or (cfg is not None and cfg.fixed_input_size)):
        options = {**options, "img_size": (height, width)}
    try:
        model: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if options.get("pretrained"):
            raise
        raise ZooError(f"backbone {name!r} cannot be built for images of {height} x {width}: {error}") from error
    return model


def is_model(name: str) -> bool:
    """Whether there is such a model; one that an entry point or a plugin's file names is registered now."""
    if name in entries("backbone"):
        function = load_backbone(name)
        if name in OF_TIMM:
            raise ZooError(
                f"backbone {name!r} of {entries('backbone')[name].origin}: timm has one of that name; rename it"
            )
        if not (timm.is_model(name) and timm.model_entrypoint(name) is function):
            raise ZooError(
                f"backbone {name!r} of {entries('backbone')[name].origin} is not registered with timm: put "
                "`@register_model` of debias_zoo.nets above its function"
            )
    return bool(timm.is_model(name))
