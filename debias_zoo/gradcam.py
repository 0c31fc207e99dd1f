"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv:1610.02391): where a method's network looks for a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .backbones import Backbone
from .dataset import Images, Ints, Masks
from .engine import as_image
from .errors import ZooError
from .maps import last_map, map_point
from .method import Method

Of = Literal["predicted", "label"]
"""Which class's logit the heat is for."""

Maps = npt.NDArray[np.float32]

BATCH = 50
"""Images a pass."""


@dataclass(frozen=True)
class Heat:
    """Where a network looks.

    Attributes:
        maps: float32 (n, H, W), at least 0, in the size of the images. predicted: int64 (n,), the predicted classes.
        layer: the module whose map was looked at. map_size: (height, width) of that map.
    """

    maps: Maps
    predicted: Ints
    layer: str
    map_size: tuple[int, int]


def heat_of(method: Method, images: Images, labels: Ints, of: Of = "predicted") -> Heat:
    """Grad-CAM of a trained method on the last map of its main network.

    With A_k the k-th channel of the map (h, w) and z_c the logit of class c in ``method.predict``:

        alpha_k = mean over the map's places of dz_c / dA_k,    heat = relu(sum_k alpha_k A_k)

    scaled up to the image bilinearly, as in the paper: a map behind strided layers lies up to half its stride off.
    captum's LayerGradCam computes it, for every backbone: it needs a layer whose
    output is the map, and not every tap is one (a ViT's blocks give tokens). So the map is led through a module of its
    own (``maps.py``), which is captum's layer. Taking gradients of the map that ``features_and_tap`` gives would serve
    fewer: of a ViT that is a copy, on which no logit depends, and a method's ``predict`` does not come by there.

    Where ``predict`` asks several networks (DFA), the heat is of the main one, ``method.net``, alone.

    Args:
        method: in eval mode, full precision.
        images: uint8 (n, H, W, C).
        labels: int64 (n,).
        of: ``predicted``: the class with the largest logit; ``label``: the right one.

    Raises:
        ZooError: captum is not installed, or the method's network has no map to look at.
    """
    net = _main_net(method)
    stage = last_map(net)
    height, width = net.tap_shape(stage)[1:]
    device = next(net.parameters()).device
    maps, classes = [], []
    for start in range(0, len(images), BATCH):
        image = as_image(torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(device))
        with torch.no_grad():
            predicted = method.predict(image).argmax(1)
        target = predicted if of == "predicted" else torch.from_numpy(labels[start : start + BATCH]).to(device)
        heat = grad_cam(method, net, stage, image, target)
        large = F.interpolate(heat[:, None], image.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        maps.append(large.cpu().numpy())
        classes.append(predicted.cpu().numpy())
    return Heat(np.concatenate(maps), np.concatenate(classes), net.tap_module(stage)[0], (height, width))


def grad_cam(method: Method, net: Backbone, stage: int, image: Tensor, target: Tensor) -> Tensor:
    """(B, h, w): the heat of one batch in the size of the map, at least 0.

    Args:
        method: whose ``predict`` is asked.
        net: the network within it.
        stage: the tap whose map is looked at.
        image: (B, C, H, W) in [0, 1].
        target: int64 (B,), classes.
    """
    layer_grad_cam = _captum()
    with map_point(net, stage) as point:
        with torch.no_grad():
            method.predict(image[:1])
        if point.calls != 1:
            raise ZooError(
                f"{method.name} cannot be explained: a prediction passes its network `net` {point.calls} times, which "
                "must be once"
            )
        found: Tensor = layer_grad_cam(method.predict, point).attribute(image, target, relu_attributions=True)
    return found.detach()[:, 0]


def inside(heat: Maps, masks: Masks) -> npt.NDArray[np.float64]:
    """(n,): the share of each image's heat that lies in its mask, NaN where there is no heat. Both (n, H, W)."""
    if heat.shape != masks.shape:
        raise ZooError(f"heat is {heat.shape}, masks are {masks.shape}: a mask must have the size of its image")
    wide = heat.astype(np.float64)
    total = wide.sum((1, 2))
    within = (wide * masks).sum((1, 2))
    share: npt.NDArray[np.float64] = np.divide(within, total, out=np.full_like(total, np.nan), where=total > 0)
    return share


def _main_net(method: Method) -> Backbone:
    net = getattr(method, "net", None)
    if not isinstance(net, Backbone):
        raise ZooError(f"{method.name} cannot be explained: it has no backbone called `net`")
    return net


def _captum() -> Any:
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise ZooError("Grad-CAM is captum's, which is not installed: pip install 'debias-zoo[explain]'") from error
    return LayerGradCam
