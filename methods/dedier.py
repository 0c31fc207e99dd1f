"""DeDiER: distillation on weights of early readouts (Tiwari et al., WACV 2024, arXiv:2310.18590)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Optim,
    Paper,
    Recipe,
    Settings,
    Task,
    Update,
    View,
    setting,
)

from .losses.distillation import soft_divergence
from .losses.precision import wide
from .losses.readout import early_tap, readout
from .schedules import CELEBA, WATERBIRDS

AUTHORS = "authors' run_exp.py"
COMMANDS = "authors' sample_commands.sh"
VIEW_BATCH = 128
SCRIPTS = "molereddy/distillation-group-analysis: run_exp.py, dedier.sh"
INTENDED = "the table of run_exp.py, which defaults of its own command line override"


class DeDiER(Method):
    """Distil a teacher with more weight on the training images that an early layer of the student confidently misreads.

    f is the student, t the teacher's logits (constant), r a small readout on an early map z of f. One stage; every
    ``refresh`` epochs of the student are followed by one epoch of the readout, but never the last one:

        main:     L = mean_i w_i [kappa T^2 KL(softmax(t_i/T) || softmax(f(x_i)/T)) + (1 - kappa) CE_i]      steps f
        readout:  L_r = CE(y, r(stopgrad z))                                                                steps r

    After an epoch of the readout all weights are taken anew from p = softmax(r(z)), with margin m = p_(1) - p_(2):

        w_i = exp(beta m_i^alpha) where argmax p_i != y_i,  else 1;  all are 1 before the first readout

    and r returns to its initial weights. f is in eval mode while r learns. The teacher is an ERM of the same backbone,
    data and seed. No bias labels. Prediction: f(x).

    Differs from the paper: images that are read rightly by now go back to weight 1 (the authors' code never resets
    one); f keeps learning below the readout (the code freezes those layers for good); the margin is that of the two
    likeliest of any number of classes; the readout's batch norm starts anew with the rest, while its optimizer goes on;
    an epoch of the readout counts in the budget. The paper's teacher is a Group-DRO ResNet50: see ``dedier_gdro``.
    """

    name = "dedier"
    version = 1
    teachers = {"teacher": "erm"}
    paper = Paper(
        title="Using Early Readouts to Mediate Featural Bias in Distillation",
        authors="Tiwari, Sivasubramanian, Mekala, Ramakrishnan, Shenoy",
        venue="WACV",
        year=2024,
        arxiv="2310.18590",
        code="https://github.com/molereddy/distillation-group-analysis",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        alpha: float = setting(
            6.0,
            "exponent of the margin; towards 0 every misread image weighs alike",
            source=COMMANDS,
            search=(0.05, 6.0, "log"),
            ge=0,
        )
        beta: float = setting(
            3.0,
            "log of the largest weight; 0: no readout, all weights are 1",
            source=COMMANDS,
            search=(1.0, 4.0, "linear"),
            ge=0,
        )
        kappa: float = setting(1.0, "share of the distillation, the rest is cross-entropy", source=AUTHORS, ge=0, le=1)
        temperature: float = setting(3.0, "T of the distillation", source=AUTHORS, search=(1.0, 6.0, "linear"), gt=0)
        refresh: int = setting(1, "epochs of the student before one of the readout", source=AUTHORS, ge=1)
        tap: int | None = setting(
            None, "stage whose map is read; None: the one before the middle, layer1 of a ResNet", source=AUTHORS, ge=0
        )

    weight: Tensor

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.teacher = backbones.teacher("teacher")
        self.tap = early_tap(self.net, config.tap)
        shape = self.net.tap_shape(self.tap)
        self.readout = readout(shape, task.classes, depth=1 if len(shape) == 3 else 0, width=2 * shape[0])
        self.untrained = copy.deepcopy(self.readout).requires_grad_(False)
        self.register_buffer("weight", torch.ones(task.train_size))

    def optimizers(self) -> Mapping[str, Optim]:
        return {"main": Optim(self.net.parameters()), "readout": Optim(self.readout.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        part = "readout" if self.reads_out(clock) else "main"
        return [Update(part, (part,))]

    def reads_out(self, clock: Clock) -> bool:
        """Whether this is an epoch of the readout."""
        due = (clock.epoch + 1) % (self.config.refresh + 1) == 0
        return self.config.beta > 0 and due and clock.epoch < clock.epochs - 1

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.net.train(loss == "main")
        if loss == "readout":
            return {"loss": F.cross_entropy(wide(self.read(batch.image)), batch.label)}
        return {"loss": (self.weight[batch.index] * self.losses(batch)).mean()}

    def read(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        """(B, classes) logits of the readout; no gradient reaches the student."""
        with torch.no_grad():
            z = self.net.tap(image, self.tap)
        logits: Tensor = self.readout(z)
        return logits

    def losses(self, batch: Batch) -> Float[Tensor, " b"]:
        """(B,): distillation and cross-entropy of each image, before the weights."""
        kappa, logits = self.config.kappa, wide(self.net(batch.image))
        losses: Tensor = (1.0 - kappa) * F.cross_entropy(logits, batch.label, reduction="none")
        if kappa > 0:
            with torch.no_grad():
                taught = self.teacher.predict(batch.image)
            losses = losses + kappa * soft_divergence(logits, taught, self.config.temperature)
        return losses

    def end_epoch(self, clock: Clock, train: View) -> None:
        if not self.reads_out(clock):
            return
        for batch in train.batches(VIEW_BATCH):
            self.weight[batch.index] = self.weights(wide(self.read(batch.image)), batch.label)
        self.readout.load_state_dict(self.untrained.state_dict())

    def weights(self, logits: Float[Tensor, "b c"], label: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """(B,): exp(beta margin^alpha) where the readout is wrong, else 1. logits: (B, classes)."""
        first, second = F.softmax(logits, 1).topk(2, dim=1).values.unbind(1)
        raised = torch.exp(self.config.beta * (first - second) ** self.config.alpha)
        return torch.where(logits.argmax(1) == label, 1.0, raised)


class GroupDRODeDiER(DeDiER):
    """DeDiER with the paper's teacher: trained by Group-DRO, on bias labels of the training split.

    Everything else is DeDiER; the student itself sees no bias labels.

    Differs from the paper: as ``dedier`` does, but for the teacher; in a recipe each of the two has its own backbone.
    """

    name = "dedier_gdro"
    teachers = {"teacher": "group_dro"}

    recipes = (
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source=SCRIPTS,
            backbone="resnet18",
            normalize="imagenet",
            settings=Settings(epochs=599, batch_size=64, lr=5e-4, weight_decay=0.1).over(WATERBIRDS),
            config={"alpha": 0.05, "beta": 4.0},
            deviations=(INTENDED, "300 epochs of the student, 299 of the readout between them; the last epoch is kept"),
        ),
        Recipe(
            protocol="paper",
            dataset="celeba",
            source=SCRIPTS,
            backbone="resnet18",
            normalize="imagenet",
            settings=Settings(epochs=119, batch_size=64, lr=5e-4, weight_decay=0.01).over(CELEBA),
            config={"alpha": 0.1, "beta": 3.5},
            deviations=(INTENDED, "60 epochs of the student, 59 of the readout between them; the last epoch is kept"),
        ),
    )
