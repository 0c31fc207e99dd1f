"""Networks by name: the zoo's own, a plugin's, or any model of timm, for images of any size; errors name the model.

timm is imported where a model of its own is asked for: that takes nearly as long as importing torch.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from torch import nn

from .errors import ZooError, unknown
from .registry import entries, load_backbone
from .torchvision_guard import import_timm

FETCHING = frozenset({"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"})
"""Options of timm that name files or addresses: weights come by ``weights.py`` alone."""


@lru_cache(maxsize=1)
def timm() -> Any:
    """The library."""
    return import_timm()


def create(name: str, classes: int, image_shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    """The network called ``name`` with ``classes`` outputs (0: no classifier). image_shape: (C, H, W)."""
    own = _own(name)
    if own is None and not timm().is_model(name):
        raise unknown("backbone", name, [*entries("backbone"), *timm().list_models()], "any timm model can be named")
    if fetching := sorted(FETCHING.intersection(options)):
        raise ZooError(f"backbone {name!r} takes no option {fetching[0]!r}, which would read weights from elsewhere")
    channels, height, width = image_shape
    takes = inspect.signature(own or timm().model_entrypoint(name)).parameters
    cfg = None if own else timm().get_pretrained_cfg(name)
    if options.get("pretrained") and (cfg is None or not cfg.has_weights):
        raise ZooError(f"timm has no pretrained weights of backbone {name!r}")
    if "img_size" not in options and ("img_size" in takes or (cfg is not None and cfg.fixed_input_size)):
        options = {**options, "img_size": (height, width)}
    try:
        if own:
            model: nn.Module = own(num_classes=classes, in_chans=channels, **options)
        else:
            model = timm().create_model(name, num_classes=classes, in_chans=channels, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if options.get("pretrained"):
            raise
        raise ZooError(f"backbone {name!r} cannot be built for images of {height} x {width}: {error}") from error
    return model


def _own(name: str) -> Any:
    """The function of the zoo or of a plugin that builds a network, or None for a name that may be timm's."""
    if name not in entries("backbone"):
        return None
    function = load_backbone(name)
    if not function.__module__.startswith("debias_zoo.") and hasattr(timm().models, name):
        raise ZooError(f"backbone {name!r} of {entries('backbone')[name].origin}: timm has one of that name; rename it")
    return function
