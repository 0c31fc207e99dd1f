"""Subsample: SUBG of Simple data balancing (Idrissi et al., CLeaR 2022, arXiv:2110.14503)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import Backbones, Batch, Clock, Method, Paper, Recipe, Repeats, Settings, Stage, Task, View

from .losses.groups import view_groups
from .losses.precision import wide
from .schedules import BALANCING, CELEBA, WATERBIRDS


class Subsample(Method):
    """Train on equally many images of every group (label, bias), and on no others.

    n_k are the training images of group k. Once a run, n = min_k n_k images of every group are drawn without
    replacement and kept for all epochs; the rest is never seen. An epoch shows each kept image once:

        L = mean_i CE(f(x_i), y_i)     over the kept images; steps the network

    Reads bias labels of the training split. Prediction: f(x).

    Differs from the paper: the minimum is over the groups that have training images (with an empty group nothing would
    be kept). As published, an epoch is as short as the subset: compare by steps, or give it more epochs.
    """

    name = "subsample"
    version = 1
    sees_bias = True
    needs_conflicting = True
    paper = Paper(
        title="Simple data balancing achieves competitive worst-group-accuracy",
        authors="Idrissi, Arjovsky, Pezeshki, Lopez-Paz",
        venue="CLeaR",
        year=2022,
        arxiv="2110.14503",
        code="https://github.com/facebookresearch/BalancingGroups",
    )
    recipes = (
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source="facebookresearch/BalancingGroups, train.py: 360 epochs of 224 images; Group-DRO, appendix C.2",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(epochs=360).over(WATERBIRDS),
            deviations=(BALANCING,),
        ),
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="facebookresearch/BalancingGroups, train.py: 60 epochs; Group-DRO, appendix C.2",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(epochs=60).over(CELEBA),
            deviations=(BALANCING,),
        ),
    )

    counts: Tensor

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("counts", torch.zeros(task.train_size, dtype=torch.int64))

    def start_stage(self, stage: Stage, train: View) -> None:
        groups = view_groups(train, self.task)
        sizes = torch.bincount(groups)
        least = int(sizes[sizes > 0].min())
        self.counts.zero_()
        for group in sizes.nonzero():
            rows = (groups == group).nonzero().squeeze(1)
            drawn = torch.randperm(len(rows), generator=train.generator)[:least].to(rows.device)
            self.counts[rows[drawn]] = 1

    def sampling(self) -> Repeats:
        return Repeats(self.counts)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(wide(self.net(batch.image)), batch.label)}
