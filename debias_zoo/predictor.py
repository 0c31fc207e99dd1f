"""What predicts: a trained method with the names of its classes, asked with images of any usual kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .decode import RowFile, Step, decode, scaled
from .engine import EVAL_BATCH, as_image, quiet
from .errors import ZooError
from .method import Method

Floats = npt.NDArray[np.float32]

_KINDS = (
    "give uint8 arrays (N, H, W, C) or (N, C, H, W), float tensors (N, C, H, W) in [0, 1], Pillow's images or paths of "
    "files; or one of them"
)


@dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """A trained network that predicts, each image by itself, in float32 whatever the precision of training.

    ``images`` of the methods below are one or several of

    - uint8 arrays or tensors (N, H, W, C) or (N, C, H, W), or one without N; grey ones (N, H, W, 1) or (H, W) are
      repeated where the network sees colours;
    - float arrays or tensors (N, C, H, W) in [0, 1];
    - Pillow's images or paths of image files, which are scaled as the training images were.

    Arrays and tensors must have the size of ``image_shape``.

    Attributes:
        model: the method, a frozen ``torch.nn.Module`` in eval mode: ``model.predict(image)`` takes float tensors
            (B, C, H, W) in [0, 1] and gives logits (B, classes).
        classes: their names, in the order of the columns.
        image_shape: (C, H, W). steps: how files are scaled; empty: to (H, W), whatever their shape.
    """

    model: Method
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    steps: tuple[Step, ...] = ()

    def predict(self, images: Any) -> Floats:
        """Probabilities float32 (N, classes). Raises a ZooError for images it cannot take."""
        logits = torch.from_numpy(self.logits(images))
        return logits.softmax(1).numpy()

    def logits(self, images: Any) -> Floats:
        """Logits float32 (N, classes). Raises a ZooError for images it cannot take."""
        return self._asked(self.model.predict, images)

    def features(self, images: Any) -> Floats:
        """What the last layer reads, float32 (N, d). Raises a ZooError for images it cannot take."""
        return self._asked(self.model.features, images)

    def classify(self, images: Any) -> list[str]:
        """The name of the likeliest class of each image. Raises a ZooError for images it cannot take."""
        return [self.classes[place] for place in self.logits(images).argmax(1)]

    def __repr__(self) -> str:
        channels, height, width = self.image_shape
        return (
            f"<{type(self).__name__}: {self.model.name}, {len(self.classes)} classes, images of {height} x {width} "
            f"with {channels} channel{'s' * (channels != 1)}>"
        )

    def _asked(self, what: Any, images: Any) -> Floats:
        device = next(self.model.parameters()).device
        with quiet(self.model):
            parts = [what(image.to(device)).float().cpu() for image in batches_of(images, self.image_shape, self.steps)]
        if not parts:
            raise ZooError("there are no images to predict on")
        found: Floats = torch.cat(parts).numpy()
        return found


def batches_of(images: Any, shape: tuple[int, int, int], steps: Sequence[Step] = ()) -> Iterator[Tensor]:
    """The images as float (B, C, H, W) in [0, 1], a batch at a time; arguments as of ``Predictor``.

    Raises:
        ZooError: they are of another kind, size or range.
    """
    listed = _listed(images, shape)
    for start in range(0, len(listed), EVAL_BATCH):
        some = listed[start : start + EVAL_BATCH]
        yield _batch(_stacked(some, shape, steps) if isinstance(some, list | tuple) else some, shape)


def _is_array(images: Any) -> bool:
    return isinstance(images, np.ndarray | Tensor)


def _listed(images: Any, shape: tuple[int, int, int]) -> Any:
    """Something with a length and slices, one element an image."""
    if _is_array(images):
        channels, height, width = shape
        single = images.ndim == 2 or tuple(images.shape) in {shape, (height, width, channels)}
        return images[None] if single else images
    if isinstance(images, RowFile | list | tuple):
        return images
    return [images]


def _stacked(some: Sequence[Any], shape: tuple[int, int, int], steps: Sequence[Step]) -> Any:
    found = [_pixels(one, shape, steps) for one in some]
    if len({(tuple(one.shape), str(one.dtype)) for one in found}) > 1:
        raise ZooError("the images of a list must have one shape and type")
    return torch.stack(found) if isinstance(found[0], Tensor) else np.stack(found)


def _pixels(one: Any, shape: tuple[int, int, int], steps: Sequence[Step]) -> Any:
    """One image of a list: an array or a tensor as it is; a file or one of Pillow's images scaled, uint8 (H, W, C)."""
    from PIL import Image

    if _is_array(one):
        return one
    channels, height, width = shape
    if not isinstance(one, str | Path | Image.Image):
        raise ZooError(f"cannot predict on {type(one).__name__}: {_KINDS}")
    try:
        pixels = decode(Path(one), steps) if isinstance(one, str | Path) else scaled(one, steps)
    except Exception as error:  # a damaged file may make Pillow raise anything
        raise ZooError(f"image {one} cannot be read: {error}") from error
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _batch(some: Any, shape: tuple[int, int, int]) -> Tensor:
    """Float (B, C, H, W) in [0, 1] of an array or a tensor with a first dimension B."""
    found = some if isinstance(some, Tensor) else torch.from_numpy(np.ascontiguousarray(some))
    channels, height, width = shape
    if found.dtype == torch.uint8:
        if found.dim() == 3 and (len(found) == 1 or channels == 1):
            found = found[..., None]
        if found.dim() == 4 and found.shape[3] == 1 and found.shape[1] != 1:
            found = found.expand(*found.shape[:3], channels)
        last = tuple(found.shape[1:]) == (height, width, channels)
        if last or tuple(found.shape[1:]) == shape:
            return as_image(found if last else found.permute(0, 2, 3, 1))
    elif found.is_floating_point() and tuple(found.shape[1:]) == shape:
        low, high = (float(end) for end in torch.aminmax(found))
        if not 0.0 <= low <= high <= 1.0:
            raise ZooError(f"float images must lie in [0, 1], not normalised; got {low:.3g} ... {high:.3g}")
        return found.float()
    raise ZooError(
        f"the network takes images of {height} x {width} pixels with {channels} channel{'s' * (channels != 1)}; got "
        f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}: {_KINDS}"
    )
