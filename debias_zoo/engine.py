"""One step of a method as its contract says, on a device and in a precision; the data it is fed from.

``check_method`` steps methods with the same ``Engine`` as the trainer, so that what is checked is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .backbones import Backbone
from .dataset import IGNORED, Split
from .decode import RowFile
from .errors import ZooError
from .method import IGNORE_INDEX, Batch, Clock, Method, Optim, Update
from .protocol import Settings

EVAL_BATCH = 128  # larger ones leave the processor's cache: 1000 takes half as long again
READ_AHEAD = 3
"""Batches that are read from a file before they are asked for."""

Augmentation = Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor | None]]
"""Takes images, dense bias labels and rows of a batch, gives the first two augmented."""


class DeviceSplit:
    """A split on the device: uint8 images, from which batches are gathered.

    Images that lie in a file stay there, and a thread reads ahead. With ``see_bias=False`` no bias label can be reached
    through it: that is the annotation firewall.

    ``layout``: of the images in memory; it changes no value.
    """

    def __init__(
        self,
        split: Split,
        device: torch.device,
        see_bias: bool,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        def put(array: Any) -> Tensor | None:
            return None if array is None else torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self._layout = layout
        self._file = split.images if isinstance(split.images, RowFile) else None
        self._images = put(split.images) if self._file is None else None  # (N, H, W, C) uint8
        self.labels = cast("Tensor", put(split.labels))
        self.biases = put(split.biases) if see_bias else None
        self._bias_map = put(split.bias_map) if see_bias else None
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
        """uint8 (B, H, W, C) of the rows (B,) of each chunk in turn; the next one is read while one is used."""
        if self._images is not None:
            for rows in chunks:
                yield self._laid_out(self._images.index_select(0, rows))
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self._read, rows) for rows in chunks[:READ_AHEAD]]
            for k in range(len(chunks)):
                yield ahead.pop(0).result()
                if k + READ_AHEAD < len(chunks):
                    ahead.append(reader.submit(self._read, chunks[k + READ_AHEAD]))

    def _read(self, rows: Tensor) -> Tensor:
        file = cast("RowFile", self._file)
        return self._laid_out(torch.from_numpy(file[rows.cpu().numpy()]).to(self.device))

    def _laid_out(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, C), the same pixels in memory as the layout says."""
        if self._layout == torch.channels_last:
            return pixels
        return pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)

    def batch(
        self,
        rows: Tensor,
        generator: torch.Generator,
        pixels: Tensor | None = None,
        augment: Augmentation | None = None,
    ) -> Batch:
        """The batch of these rows, int64 (B,); ``pixels``: theirs, if they have been gathered already."""
        if pixels is None:
            (pixels,) = self.pixels([rows])
        image = as_image(pixels)
        bias = None if self.biases is None else self.biases.index_select(0, rows)
        bias_map = None
        if self._bias_map is not None:
            bins = self._bias_map.index_select(0, rows).long()
            bias_map = bins.masked_fill_(bins == IGNORED, IGNORE_INDEX)
        if augment is not None:
            image, bias_map = augment(image, bias_map, rows)
        return Batch(image, self.labels.index_select(0, rows), bias, bias_map, rows, generator)

    def batches(self, size: int, every: int = 1) -> Iterator[Batch]:
        """Every ``every``-th image in the split's own order, ``size`` at a time; the last batch may be smaller."""
        generator = torch.Generator(self.device).manual_seed(0)
        chunks = self.chunks(size, every)
        for rows, pixels in zip(chunks, self.pixels(chunks), strict=True):
            yield self.batch(rows, generator, pixels)

    def image(self, rows: slice) -> Tensor:
        """The images of a slice, as in a batch."""
        (pixels,) = self.pixels([torch.arange(len(self), device=self.device)[rows]])
        return as_image(pixels)

    def chunks(self, size: int, every: int = 1) -> list[Tensor]:
        """Rows of every ``every``-th image in order, int64 (size,) each; the last may be smaller."""
        rows = torch.arange(0, len(self), every, device=self.device)
        return [rows[start : start + size] for start in range(0, len(rows), size)]


def as_image(pixels: Tensor) -> Tensor:
    """Float (B, C, H, W) in [0, 1], in memory as the pixels are. pixels: uint8 (B, H, W, C)."""
    return pixels.permute(0, 3, 1, 2).float().mul_(1.0 / 255.0)


@dataclass(frozen=True)
class Layout:
    """How a method's networks and images lie in memory, and whether the passes of its backbones are compiled."""

    channels_last: bool = True
    compiled: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """As torch calls it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def name(self) -> str:
        """For people and files."""
        return ("channels last" if self.channels_last else "contiguous") + ", compiled" * self.compiled


def usual_layout(method: Method) -> Layout:
    """Channels last; contiguous where nothing is convolved, so that flattening an image copies nothing."""
    return Layout(channels_last=any(parameter.dim() == 4 for parameter in method.parameters()))


class Engine:
    """A method with its optimizers: one ``step`` does what the method's ``updates`` say, and nothing else.

    Args:
        method: moved to the device.
        precision: "fp32", or "bf16" for autocast to bfloat16.
        layout: of its networks and images; None: the usual one.

    Attributes:
        passes: of any of the method's backbones in the last step, forward and backward.
    """

    def __init__(
        self,
        method: Method,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        layout: Layout | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.method = method.to(self.device)
        self.layout = layout or usual_layout(method)
        nn.Module.to(method, memory_format=self.layout.memory_format)  # type: ignore[call-overload]
        self.precision = precision
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._parameters: dict[str, list[nn.Parameter]] = {}
        self._base_lr: dict[str, float] = {}
        self._settings = Settings()
        self._backbones = [part for part in method.modules() if isinstance(part, Backbone)]
        self.passes = (0, 0)
        if self.layout.compiled:
            for backbone in self._backbones:
                backbone.compile_passes()

    def split(self, split: Split, see_bias: bool) -> DeviceSplit:
        """A split on the device, its images in memory as the method wants them."""
        return DeviceSplit(split, self.device, see_bias, self.layout.memory_format)

    def seed(self, seed: int) -> None:
        """Seed torch's global generator of the device: dropout and the like.

        ``torch.manual_seed`` also seeds devices that are not there, which takes a hundred times as long.
        """
        seed_all = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
        seed_all(seed)

    def build_optimizers(self, settings: Settings, keep_state: bool = False) -> None:
        """Fresh optimizers for a stage; ``keep_state`` carries over momentum and the like where names agree."""
        before = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()} if keep_state else {}
        self._settings = settings
        self.optimizers, self._parameters, self._base_lr = {}, {}, {}
        for name, optim in self.method.optimizers().items():
            parameters = [p for p in optim.parameters if p.requires_grad]
            self._base_lr[name] = (settings.lr or 0.0) * optim.lr_scale
            self._parameters[name] = parameters
            self.optimizers[name] = _optimizer(parameters, optim, settings, self._base_lr[name], self.device)
            if name in before:
                state = before[name]
                state["param_groups"] = self.optimizers[name].state_dict()["param_groups"]
                self.optimizers[name].load_state_dict(state)

    def autocast(self) -> AbstractContextManager[object]:
        """The precision every forward runs in."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """One batch: every update in order. Returns detached scalars, ``<loss>`` and ``<loss>.<number>``."""
        self.set_rates(clock)
        logged: dict[str, Tensor] = {}
        before, updates = self.forwards(), self.method.updates(clock)
        for update in updates:
            numbers = self.backward(update, batch, clock)
            self.apply(update)
            logged |= self.logged(update, numbers)
        batch.scratch.clear()
        self.passes = (self.forwards() - before, len(updates))
        return logged

    def set_rates(self, clock: Clock) -> None:
        """Set the learning rates of all optimizers for this step."""
        factor = self._settings.lr_factor(clock.epoch, clock.step, clock.steps)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._base_lr[name] * factor

    @staticmethod
    def logged(update: Update, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers of an update under the names they are logged by, detached."""
        rest = {f"{update.loss}.{key}": value.detach() for key, value in numbers.items() if key != "loss"}
        return {update.loss: numbers["loss"].detach(), **rest}

    def forwards(self) -> int:
        """Forward passes of all backbones so far."""
        return sum(backbone.passes for backbone in self._backbones)

    def backward(self, update: Update, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The forward of ``update``, and the gradients of the parameters it steps."""
        with self.autocast():
            numbers = self.method(update.loss, batch, clock)
        self._check_loss(update, numbers)
        numbers["loss"].backward(inputs=self.stepped(update))
        return cast("dict[str, Tensor]", numbers)

    def _check_loss(self, update: Update, numbers: object) -> None:
        """Raise a ZooError where ``forward`` gave no dict with a scalar loss."""
        loss = numbers.get("loss") if isinstance(numbers, Mapping) else None
        if isinstance(loss, Tensor) and not loss.dim():
            return
        if not isinstance(numbers, Mapping):
            got = f"a {type(numbers).__name__}"
        elif loss is None:
            got = f"one with {', '.join(map(repr, numbers)) or 'nothing'}"
        else:
            got = f"a loss of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r} as the loss"
        raise ZooError(
            f"{self.method.name}: forward({update.loss!r}, ...) must return a dict with a 'loss', a tensor without "
            f"dimensions; it gave {got}"
        )

    def apply(self, update: Update) -> None:
        """The step of ``update``; its gradients are gone afterwards."""
        inputs = self.stepped(update)
        if self._settings.clip is not None:
            nn.utils.clip_grad_norm_(inputs, self._settings.clip)
        for name in update.steps:
            self.optimizers[name].step()
        for parameter in inputs:
            parameter.grad = None

    def stepped(self, update: Update) -> list[nn.Parameter]:
        """The parameters of the optimizers that ``update`` names, each once."""
        for name in update.steps:
            if name not in self._parameters:
                known = ", ".join(self._parameters)
                raise ZooError(f"{self.method.name}: update {update.loss!r} steps {name!r}; its optimizers: {known}")
        return list(dict.fromkeys(p for name in update.steps for p in self._parameters[name]))

    def state_dict(self) -> dict[str, Any]:
        """Method and optimizers, for a checkpoint."""
        return {
            "method": self.method.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``; the stage's optimizers must have been built."""
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


def _optimizer(
    parameters: list[nn.Parameter], optim: Optim, settings: Settings, lr: float, device: torch.device
) -> torch.optim.Optimizer:
    algorithm = optim.algorithm or settings.optimizer
    momentum = settings.momentum if optim.momentum is None else optim.momentum
    decay = settings.weight_decay if optim.weight_decay is None else optim.weight_decay
    fused = device.type in {"cpu", "cuda"}
    if not parameters:
        raise ZooError("an optimizer was given no trainable parameter")
    if algorithm == "sgd":
        return torch.optim.SGD(parameters, lr, momentum or 0.0, weight_decay=decay or 0.0, fused=fused)
    betas = (0.9 if momentum is None else momentum, 0.999)
    kinds: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kind = kinds.get(algorithm or "")
    if kind is None:
        raise ZooError(f"unknown optimizer {algorithm!r}; known: sgd, adam, adamw")
    return kind(parameters, lr, betas, weight_decay=decay or 0.0, fused=fused)


@contextmanager
def quiet(method: Method) -> Iterator[None]:
    """Eval mode without gradients, for evaluation and the rare hooks; modes are restored."""
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict_split(engine: Engine, split: DeviceSplit) -> tuple[Tensor, Tensor]:
    """The predicted class int64 (N,), and the log-odds of it float16 (N,), on the CPU."""
    classes, odds = [], []
    with quiet(engine.method), engine.autocast():
        for pixels in split.pixels(split.chunks(EVAL_BATCH)):
            logits = engine.method.predict(as_image(pixels)).float()  # (B, C)
            best = logits.argmax(1, keepdim=True)
            rest = logits.scatter(1, best, -torch.inf).logsumexp(1)
            classes.append(best.squeeze(1))
            odds.append((logits.gather(1, best).squeeze(1) - rest).clamp(-60000.0, 60000.0).half())
    return torch.cat(classes).cpu(), torch.cat(odds).cpu()
