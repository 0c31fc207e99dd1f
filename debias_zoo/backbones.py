"""Any timm model as a backbone: logits, pooled features and the map after a stage, in one pass."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .errors import ZooError, unknown
from .seeds import seed_for
from .timm_models import create
from .weights import initial_weights, put

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "bytes": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),  # LfF divides by 255 once more, after ToTensor has done so
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Per-channel mean and standard deviation, on pixels in [0, 1]."""


class Normalize(nn.Module):
    """(x - mean) / std per channel, as the first layer of a network; image (B, C, H, W) in [0, 1]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        if name not in NORMALIZATIONS:
            raise unknown("normalisation", name, NORMALIZATIONS)
        mean, std = (torch.tensor(value)[:channels].view(1, -1, 1, 1) for value in NORMALIZATIONS[name])
        self.register_buffer("scale", 1.0 / std, persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        self.changes = name != "none"

    def forward(self, image: Tensor) -> Tensor:
        if not self.changes:  # the same bits, without a pass over the image
            return image.to(torch.promote_types(image.dtype, self.shift.dtype))
        return torch.addcmul(self.shift, image, self.scale)


class Passes(nn.Module):
    """The passes through a timm model, as a module that can be compiled; copies of it are not compiled."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, way: str, image: Tensor, **options: Any) -> Any:
        """What the model's method ``way`` gives."""
        return getattr(self.model, way)(image, **options)


class Backbone(nn.Module):
    """A timm model with a tap.

    Args:
        name: a timm model's name (``list backbones`` shows the papers' own; any other timm model works).
        classes: outputs of the classifier; 0: no classifier.
        image_shape: (C, H, W) of what it will see.
        normalize: one of ``NORMALIZATIONS``.
        embed_dim: project the pooled features to this many dimensions, or None.
        weights: initial weights of all but the classifier, as in ``weights.py``; empty: random.
        options: handed to the timm model.

    Attributes:
        passes: forward passes so far, as a count of what a method costs.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        image_shape: tuple[int, int, int],
        normalize: str = "none",
        embed_dim: int | None = None,
        weights: str = "",
        **options: Any,
    ) -> None:
        super().__init__()
        self.name = name
        self.image_shape = image_shape
        self.passes = 0
        self.normalize = Normalize(normalize, image_shape[0])
        self.model: Any = create(name, classes if embed_dim is None else 0, image_shape, options)
        if weights:
            put(self.model, initial_weights(weights, name, image_shape, options))
        self._passes: list[Passes] = []  # in a list: weights have their names by the model alone
        self._compiled: dict[str, torch.Size] | None = None
        if not hasattr(self.model, "forward_intermediates"):
            raise ZooError(
                f"backbone {name!r} cannot be tapped: its timm model has no forward_intermediates. "
                "Use one that has, such as resnet18, convnext_atto or vit_tiny_patch16_224."
            )
        taps: Any = self.model.feature_info
        self.taps = len(taps)
        self.default_tap = (self.taps - 1) // 2
        width: Any = self.model.num_features
        self.dim = int(width if embed_dim is None else embed_dim)
        self.embed: nn.Module = nn.Identity()
        self.classifier: nn.Module | None = None
        if embed_dim is not None:
            self.embed = nn.Linear(_pooled_dim(self.model, image_shape), embed_dim)
            self.classifier = nn.Linear(embed_dim, classes) if classes else None

    def forward(self, image: Tensor) -> Tensor:
        """(B, classes) logits. image: (B, C, H, W) in [0, 1]."""
        return self.classify(self.features(image))

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        """(B, dim): the pooled embedding that the classifier reads."""
        self.passes += 1
        return self._pool(self._through("forward_features", image))

    def classify(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """(B, classes) logits of features (B, dim)."""
        head = self.classifier if self.classifier is not None else self.model.get_classifier()
        logits: Tensor = head(features)
        return logits

    def tap(
        self, image: Float[Tensor, "b channels height width"], stage: int | None = None
    ) -> Float[Tensor, "b c *grid"]:
        """(B, C_k, H_k, W_k): the map after ``stage`` (None: the middle one); later stages are not computed."""
        self.passes += 1
        index = self.tap_index(stage)
        maps = self._through("forward_intermediates", image, indices=[index], stop_early=True, intermediates_only=True)
        found: Tensor = maps[-1]
        return found

    def features_and_tap(
        self, image: Float[Tensor, "b channels height width"], stage: int | None = None
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b c *grid"]]:
        """The pooled features and the map after ``stage``, of one pass."""
        self.passes += 1
        index = self.tap_index(stage)
        last, maps = self._through("forward_intermediates", image, indices=[index])
        return self._pool(last), maps[-1]

    def maps(self, image: Float[Tensor, "b channels height width"]) -> list[Float[Tensor, "b _ ..."]]:
        """The maps after all stages, (B, C_k, H_k, W_k) each, of one pass."""
        self.passes += 1
        every = list(range(self.taps))
        found: list[Tensor] = self._through("forward_intermediates", image, indices=every, intermediates_only=True)
        return found

    def tap_index(self, stage: int | None = None) -> int:
        """The 0-based index of a tap; None: the middle one (after conv2 of LNL's net, layer2 of a ResNet)."""
        if stage is None:
            return self.default_tap
        if not 0 <= stage < self.taps:
            raise ZooError(f"backbone {self.name!r} has taps 0 ... {self.taps - 1}; got {stage}")
        return stage

    def tap_shape(self, stage: int | None = None) -> tuple[int, ...]:
        """(C_k, H_k, W_k) of the map after ``stage``."""
        probe = copy.deepcopy(self).to("meta").eval()
        with torch.no_grad():
            return tuple(probe.tap(torch.zeros(2, *self.image_shape, device="meta"), stage).shape[1:])

    def tap_module(self, stage: int | None = None) -> tuple[str, nn.Module]:
        """The module within ``model`` whose output holds the map after ``stage``, and its name there.

        The output may hold the map as tokens or with the channels last: ``maps.py`` reads all of these.
        """
        index = self.tap_index(stage)
        taps: Any = self.model.feature_info
        name = str(taps[index]["module"])
        try:
            return name, self.model.get_submodule(name)
        except AttributeError as error:
            raise ZooError(f"backbone {self.name!r} has no module {name!r}, which its tap {index} names") from error

    def parameters_below(self, stage: int | None = None) -> list[nn.Parameter]:
        """The parameters that the map after ``stage`` depends on."""
        probe = copy.deepcopy(self).to("meta").eval().requires_grad_(True)
        below = probe.tap(torch.zeros(2, *self.image_shape, device="meta"), stage).sum()
        grads = torch.autograd.grad(below, list(probe.parameters()), allow_unused=True)
        return [own for own, grad in zip(self.parameters(), grads, strict=True) if grad is not None]

    def compile_passes(self) -> None:
        """Have training steps run through ``torch.compile``, at batches of the size of the first one.

        Others, such as the last batch of an epoch, are not compiled: each new size would take as long again.
        """
        self._passes = [Passes(self.model)]
        self._passes[0].compile(dynamic=False)
        self._compiled = {}

    def _through(self, way: str, image: Tensor, **options: Any) -> Any:
        x = self.normalize(image)
        if self._compiled is not None and self.training and torch.is_grad_enabled():
            seen = f"{way} {options}"
            if self._compiled.setdefault(seen, image.shape) == image.shape:
                return self._passes[0](way, x, **options)
        return getattr(self.model, way)(x, **options)

    def _pool(self, last: Tensor) -> Tensor:
        pooled: Tensor = self.embed(self.model.forward_head(last, pre_logits=True))
        return pooled


def _pooled_dim(model: Any, image_shape: tuple[int, int, int]) -> int:
    probe = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad():
        last = probe.forward_features(torch.zeros(2, *image_shape, device="meta"))
        return int(probe.forward_head(last, pre_logits=True).shape[1])


class BackboneFactory:
    """Builds a trial's networks; each is initialised from (seed, role), so methods of one seed start alike.

    Args:
        name, options: the run's backbone. classes, image_shape, normalize: as in ``Backbone``.
        seed: of the trial. teachers: trained, frozen methods by role.
        weights: initial weights of the run's backbone, in whatever role; empty: random.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        image_shape: tuple[int, int, int],
        normalize: str,
        seed: int,
        options: dict[str, Any] | None = None,
        teachers: dict[str, Any] | None = None,
        weights: str = "",
    ) -> None:
        self.name = name
        self.weights = weights
        self.options = options or {}
        self.classes = classes
        self.image_shape = image_shape
        self.normalize = normalize
        self.seed = seed
        self.teachers = teachers or {}

    def __call__(
        self,
        name: str | None = None,
        *,
        role: str = "main",
        head: bool = True,
        embed_dim: int | None = None,
        **options: Any,
    ) -> Backbone:
        """The run's backbone, or the one called ``name`` with its own options."""
        own = self.options if name is None else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "backbone", role))
            return Backbone(
                name or self.name,
                self.classes if head else 0,
                self.image_shape,
                self.normalize,
                embed_dim,
                self.weights if name is None else "",
                **{**own, **options},
            )

    def teacher(self, role: str) -> Any:
        """The trained, frozen method handed to this trial under ``role``."""
        if role not in self.teachers:
            raise ZooError(f"no teacher was handed over under the role {role!r}: name it in the method's needs()")
        return self.teachers[role]
