"""DeNetDM: Debiasing by Network Depth Modulation (Sreelatha et al., NeurIPS 2024, arXiv:2403.19863)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from debias_zoo.errors import ZooError
from debias_zoo.method import (
    Backbone,
    Backbones,
    Batch,
    Clock,
    Method,
    Optim,
    Paper,
    Recipe,
    Settings,
    Stage,
    Task,
    Update,
    View,
    setting,
)

from .losses.distillation import soft_cross_entropy
from .losses.precision import wide
from .schedules import LFF_CMNIST

PAPER = "paper, Table 12"
AUTHORS = "authors' module/model.py"


class DeNetDM(Method):
    """A deep and a shallow branch share a classifier; the deep one takes the bias, and a target learns from the other.

    phi_b is the deep branch, phi_d the shallow one, f their linear classifier, on features of one width; phi_t and f_t
    are features and last layer of the network that is wanted. In two stages, one update a batch in each:

        experts:  L_1 = CE(y, f(phi_b(x) + phi_d(x)))                                       steps phi_b, phi_d and f
        target:   L = w_poe CE(y, f_t(stopgrad phi_b(x) + phi_t(x)))
                      - w_dist T^2 mean_i sum_c softmax(stopgrad f(phi_d(x_i)) / T)_c log softmax(f_t(phi_t(x_i)) / T)_c
                                                                                            steps phi_t and f_t

    f_t starts from f, which then stands still, as phi_b and phi_d do, in eval mode. No bias labels. Prediction:
    f_t(phi_t(x)); while the experts train nobody has trained it yet.

    Differs from the paper: the last epoch of ``experts`` is kept (the paper takes the one with the best accuracy on
    bias-conflicting images, of a split like the test's); the statistics of phi_b's batch norm do not drift in
    ``target``; branches of another width than phi_t get a linear layer. Unless they are named, phi_b is the run's
    backbone and phi_d the paper's three convolutions, with pooling at the end; beside an mlp both are the paper's mlps.
    """

    name = "denetdm"
    version = 1
    paper = Paper(
        title="DeNetDM: Debiasing by Network Depth Modulation",
        authors="Sreelatha, Kappiyath, Chaudhuri, Dutta",
        venue="NeurIPS",
        year=2024,
        arxiv="2403.19863",
        code="https://github.com/kadarsh22/DeNetDM",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        weight_poe: float = setting(
            1.0,
            "weight of the product of experts, phi_b beside the target",
            source=PAPER,
            search=(0.1, 10, "log"),
            gt=0,
        )
        weight_distill: float = setting(
            1.0, "weight of the distillation from phi_d", source=PAPER, search=(0.1, 10, "log"), ge=0
        )
        temperature: float = setting(2.0, "T of the distillation", source=PAPER, search=(1.0, 4.0, "linear"), gt=0)
        experts_share: float = setting(0.5, "share of the epochs that train the experts", source=PAPER, gt=0, lt=1)
        deep_backbone: str | None = setting(
            None, "architecture of phi_b; None: the run's, an mlp with four hidden layers", source=AUTHORS
        )
        deep_options: dict[str, Any] = setting({}, "options of phi_b's architecture", source=AUTHORS)
        shallow_backbone: str | None = setting(
            None, "architecture of phi_d; None: three convolutions, or an mlp with two hidden layers", source=AUTHORS
        )
        shallow_options: dict[str, Any] = setting({}, "options of phi_d's architecture", source=AUTHORS)

    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist-lff",
            source="paper, Table 12; kadarsh22/DeNetDM: config.py, module/model.py",
            backbone="mlp",
            backbone_options={"depth": 4, "width": 100},
            normalize="none",
            settings=Settings(batch_size=64).over(LFF_CMNIST),
            stages={
                "experts": Settings(epochs=100, weight_decay=1e-3),
                "target": Settings(epochs=100, weight_decay=0.0),
            },
            deviations=(
                "the last epoch of each stage, not the one chosen on the test split",
                "the last, smaller batch of an epoch is trained on as well",
            ),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        width, kind = self.net.dim, self.net.name
        self.classifier: nn.Module = copy.deepcopy(self.net.model.get_classifier())  # f
        deep = {"depth": 4} if kind == "mlp" and config.deep_backbone is None else {}
        self.deep = branch(backbones, width, "deep", config.deep_backbone, {**deep, **config.deep_options})
        self.shallow: Backbone | ShallowNet
        if config.shallow_backbone is not None:
            self.shallow = branch(backbones, width, "shallow", config.shallow_backbone, config.shallow_options)
        elif kind == "mlp":
            self.shallow = branch(backbones, width, "shallow", None, {"depth": 2, **config.shallow_options})
        else:
            self.shallow = ShallowNet(self.net, **config.shallow_options)
        if depth(self.shallow) >= depth(self.deep):
            raise ZooError(
                f"denetdm: the shallow branch, {self.shallow.name}, has {depth(self.shallow)} layers, the deep branch, "
                f"{self.deep.name}, has {depth(self.deep)}; nothing but its depth makes the deep one take the bias. "
                "Choose others with --set denetdm.deep_backbone=NAME, --set denetdm.shallow_backbone=NAME"
            )

    def stages(self) -> Sequence[Stage]:
        share = self.config.experts_share
        return [Stage("experts", share), Stage("target", 1.0 - share)]

    def start_stage(self, stage: Stage, train: View) -> None:
        if stage.name == "target":
            self.net.model.get_classifier().load_state_dict(self.classifier.state_dict())

    def optimizers(self) -> Mapping[str, Optim]:
        experts = [p for part in (self.deep, self.shallow, self.classifier) for p in part.parameters()]
        return {"experts": Optim(experts), "target": Optim(self.net.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update(clock.stage, (clock.stage,))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        for expert in (self.deep, self.shallow):
            expert.train(loss == "experts")
        if loss == "experts":
            both = self.deep.features(batch.image) + self.shallow.features(batch.image)
            return {"loss": F.cross_entropy(wide(self.classifier(both)), batch.label)}
        with torch.no_grad():
            biased = self.deep.features(batch.image)
            taught = self.classifier(self.shallow.features(batch.image))
        own = self.net.features(batch.image)
        product = F.cross_entropy(wide(self.net.classify(biased + own)), batch.label)
        distilled = soft_cross_entropy(self.net.classify(own), taught, self.config.temperature).mean()
        total = self.config.weight_poe * product + self.config.weight_distill * distilled
        return {"loss": total, "product": product, "distillation": distilled}


class ShallowNet(nn.Module):
    """The paper's shallow branch on Corrupted CIFAR-10, padded and pooled to take images of any size.

    Its features (B, target.dim) are those of three convolutions, projected where the target's are not as wide.
    """

    name = "three convolutions"

    def __init__(self, target: Backbone, kernel: int = 5) -> None:
        super().__init__()
        self.normalize = copy.deepcopy(target.normalize)
        layers: list[nn.Module] = []
        for before, after, pool in ((target.image_shape[0], 32, True), (32, 64, True), (64, 64, False)):
            conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True), *([nn.MaxPool2d(2)] if pool else [])]
        self.model = nn.Sequential(*layers)
        self.embed = nn.Identity() if target.dim == 64 else nn.Linear(64, target.dim)

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        """(B, dim). image: (B, C, H, W) in [0, 1]."""
        features: Tensor = self.embed(self.model(self.normalize(image)).mean((2, 3)))
        return features


def branch(backbones: Backbones, width: int, role: str, name: str | None, options: Mapping[str, Any]) -> Backbone:
    """A network without classifier that gives features (B, width), projected where its own are of another width."""
    net = backbones(name, role=role, head=False, **options)
    return net if net.dim == width else backbones(name, role=role, head=False, embed_dim=width, **options)


def depth(net: Backbone | ShallowNet) -> int:
    """The convolutions and linear layers of a network, the projection left out."""
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.model.modules())
