"""The Method contract: what a debiasing method is, and everything it is handed.

A method is its mathematics. Which device it runs on, in which precision, by which optimizer and schedule, how it is
checkpointed, resumed, logged and stopped when a loss diverges: the trainer owns all that, once, for every method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from .backbones import Backbone
from .protocol import Recipe, Settings

__all__ = [
    "IGNORE_INDEX",
    "Backbone",
    "Backbones",
    "Batch",
    "Clock",
    "Method",
    "Need",
    "Optim",
    "Paper",
    "Recipe",
    "Repeats",
    "Settings",
    "Stage",
    "Task",
    "Update",
    "View",
    "Weights",
    "setting",
]


Own = TypeVar("Own", bound="Method")
"""In the place of ``Self``, which cannot be checked at run time where functions are wrapped one by one."""

IGNORE_INDEX = -100
"""The value of a dense bias label that gives no loss."""


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        image: float (B, C, H, W) in [0, 1]; normalisation is the backbone's first layer.
        label: int64 (B,).
        bias: int64 (B,), the bias attribute; None where the method may not see it or the data has none.
        bias_map: int64 (B, heads, h, w), dense bias labels where the data set offers them, -100 where ignored;
            None like ``bias``.
        index: int64 (B,), the row in the training split.
        generator: the only source of randomness a method may use, seeded by (seed, stage, epoch, step).
        scratch: emptied with the batch; what two updates of one batch share lies here.
    """

    image: Float[Tensor, "b channels height width"]
    label: Int[Tensor, " b"]
    bias: Int[Tensor, " b"] | None
    bias_map: Int[Tensor, "b heads h w"] | None
    index: Int[Tensor, " b"]
    generator: torch.Generator
    scratch: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Clock:
    """Where training stands: epochs and steps count from 0 within the stage.

    Attributes:
        stage: name of the stage.
        epoch, epochs: this epoch, and how many the stage has.
        step, steps: this step, and how many the stage has.
        total: steps of all stages together, as planned by the size of the training split.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    total: int

    @property
    def progress(self) -> float:
        """How far the stage is, from 0 at its first step to 1 at its last."""
        return self.step / max(self.steps - 1, 1)


@dataclass(frozen=True)
class Task:
    """What is to be learnt. A method that does not see bias labels is handed ``hidden()``.

    Attributes:
        classes: number of labels. biases: number of bias values (0 when hidden).
        bias_parts: sizes of the single bias columns whose product code ``bias`` is.
        bias_map: (heads, bins, h, w) of the dense bias labels, or None.
        train_size: images in the training split. image_shape: (C, H, W).
        group_counts: training images by (label, bias), or None when hidden.
    """

    classes: int
    biases: int
    train_size: int
    image_shape: tuple[int, int, int]
    bias_parts: tuple[int, ...] = ()
    bias_map: tuple[int, int, int, int] | None = None
    group_counts: tuple[tuple[int, ...], ...] | None = None

    def hidden(self) -> Task:
        """The task with everything that bias labels tell taken away."""
        return Task(self.classes, 0, self.train_size, self.image_shape)


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str = ""
    code: str = ""


@dataclass(frozen=True)
class Stage:
    """A part of training with settings of its own.

    Attributes:
        name: as in ``Clock.stage`` and in ``--set METHOD.NAME.KEY``.
        share: of the budget's epochs, over the sum of all shares.
        settings: what this stage wants different from the protocol.
        fresh_optimizers: whether optimizer state starts anew.
        reset: names of submodules that go back to their initial weights.
        shared_as: for the first of several, what it does, where nothing in that depends on the method's configuration:
            of trials that begin alike and do the same, one trains the stage and the others go on from its end. Another
            name where what the stage does changes.
    """

    name: str
    share: float = 1.0
    settings: Settings = field(default_factory=Settings)
    fresh_optimizers: bool = True
    reset: tuple[str, ...] = ()
    shared_as: str = ""


@dataclass(frozen=True)
class Optim:
    """Parameters that are stepped together; None means the protocol's value.

    ``lr_scale`` multiplies the stage's learning rate.
    """

    parameters: Iterable[nn.Parameter]
    algorithm: str | None = None
    lr_scale: float = 1.0
    momentum: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True)
class Update:
    """One forward of ``loss``, one backward, one step of the optimizers named in ``steps``."""

    loss: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """Draw ``draws`` images an epoch (default: the training size), with replacement, in proportion to ``w`` (N,)."""

    w: Float[Tensor, " n"]
    draws: int | None = None


@dataclass(frozen=True)
class Repeats:
    """Show image i ``counts[i]`` times an epoch, in random order; 0 leaves it out. int64 (N,)."""

    counts: Int[Tensor, " n"]


@dataclass(frozen=True)
class Need:
    """Another trial of the same data, seed and backbone, whose frozen network a method is handed."""

    method: str
    config: Mapping[str, Any] = field(default_factory=dict)


def setting(default: Any, about: str, *, source: str, search: Sequence[Any] | None = None, **limits: Any) -> Any:
    """A config field with its meaning, where its default comes from, and its search range.

    ``search`` is ``(low, high, "log" | "linear")`` or a list of choices; None: not meant to be tuned.
    """
    extra: Any = {"source": source, "search": list(search) if search is not None else None}
    return Field(default, description=f"{about} (default: {source})", json_schema_extra=extra, **limits)


@runtime_checkable
class Backbones(Protocol):
    """Builds networks for a method; each is initialised from (seed, role) alone."""

    def __call__(
        self,
        name: str | None = None,
        *,
        role: str = "main",
        head: bool = True,
        embed_dim: int | None = None,
        **options: Any,
    ) -> Backbone:
        """The run's backbone, or the one called ``name``; ``head=False``: no classifier."""
        ...

    def teacher(self, role: str) -> Method:
        """The trained, frozen method of the trial that ``needs`` asked for under ``role``."""
        ...


@runtime_checkable
class View(Protocol):
    """A split as the rare hooks see it: deterministic order, bias labels only for methods that may see them.

    Attributes:
        generator: the only source of randomness a hook may use, on the CPU, seeded by (seed, hook, stage, epoch).
    """

    generator: torch.Generator

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """int64 (N,)."""
        ...

    @property
    def biases(self) -> Int[Tensor, " n"] | None:
        """int64 (N,), or None behind the annotation firewall."""
        ...

    def batches(self, size: int, every: int = 1) -> Iterator[Batch]:
        """The split in its own order, ``size`` images at a time; or only every ``every``-th image."""
        ...


class Method(nn.Module):
    """A debiasing method; subclasses state their facts as literals and give the mathematics in ``forward``."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when a mended method changes numbers."""
    sees_bias: ClassVar[bool] = False
    """Reads bias labels of the training split."""
    reads_bias_map: ClassVar[bool] = False
    """Is handed dense bias labels, where the data set offers them; needs ``sees_bias``."""
    needs_val_bias: ClassVar[bool] = False
    """Reads bias labels of the validation split while training."""
    knows_bias_kind: ClassVar[bool] = False
    """Reads no bias labels, but is built for one kind of bias."""
    teachers: ClassVar[Mapping[str, str]] = {}
    """Methods whose trained, frozen network this one is handed, by role; what they read counts as read by this one."""
    needs_conflicting: ClassVar[bool] = False
    """Cannot work where every training image of a class has one bias."""
    min_batch: ClassVar[int] = 2
    moves_buffers: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For each loss, prefixes of the buffers it moves; batch norm statistics of stepped networks need no mention."""
    is_baseline: ClassVar[bool] = False
    """Is plain ERM on what its network sees, and means to be: ``check_method`` asks every other method to differ."""
    frozen: ClassVar[Mapping[str, str]] = {}
    """Parameters, by prefix, that are meant never to move, each with the reason."""
    expected_failed: ClassVar[Mapping[str, str]] = {}
    """Checks of ``check_method`` that are known to fail, each with the reason; at most two."""
    training_search: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """Search ranges of training settings, as in ``setting``, by ``train.KEY`` or ``STAGE.KEY``; never of epochs."""
    paper: ClassVar[Paper]
    recipes: ClassVar[tuple[Recipe, ...]] = ()

    class Config(BaseModel):
        """The method's settings: frozen, unknown keys refused. Subclasses add fields with ``setting``."""

        model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__()
        self.task = task
        self.config = config
        self.net = backbones()

    def stages(self) -> Sequence[Stage]:
        """The parts of training, in order."""
        return [Stage("main")]

    def optimizers(self) -> Mapping[str, Optim]:
        """Who can move: name -> parameters. Sets may overlap."""
        return {"main": Optim(self.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        """What happens on this batch, in order."""
        return [Update("main", ("main",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """``{"loss": scalar, ...}`` for the update called ``loss``, plus detached numbers to log."""
        raise TypeError(f"{type(self).__name__} must define forward(loss, batch, clock)")

    def sampling(self) -> Weights | Repeats | None:
        """How the epoch to come draws images; None: each once. It may depend only on what the hooks below found."""
        return None

    def start_stage(self, stage: Stage, train: View) -> None:
        """Called before a stage, after its ``reset``, in eval mode without gradients."""

    def end_epoch(self, clock: Clock, train: View) -> None:
        """Called after every epoch, in eval mode without gradients."""

    def finish(self, train: View, val: View) -> None:
        """Called once after training, in eval mode without gradients; what it finds goes into buffers."""

    def train(self: Own, mode: bool = True) -> Own:
        """As in torch; but a method inside this one is a frozen teacher and stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, Method) and module is not self:
                nn.Module.train(module, False)
        return self

    @classmethod
    def needs(cls, config: Any) -> Mapping[str, Need]:
        """Other trials whose frozen network this method is handed, by role; those of ``teachers`` by default."""
        return {role: Need(method) for role, method in cls.teachers.items()}

    def deployed(self) -> Backbone | None:
        """The backbone that predicts; ``self.net`` where that is one.

        What is left of the bias is read at its taps, and the parameters of all others are extra. A method that predicts
        with another one overrides this; None: no backbone predicts, and there are no taps.
        """
        net = getattr(self, "net", None)
        return net if isinstance(net, Backbone) else None

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        """(B, d): what the last layer reads. image: (B, C, H, W) in [0, 1]."""
        return self.net.features(image)

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        """(B, classes) logits; pure, each image by itself. image: (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.net(image)
        return logits
