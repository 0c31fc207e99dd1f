"""A plugin file with something of every kind that is quick to make, as a user would write it."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
"""Several plugins in one file."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from debias_zoo.dataset import BiasDataset, Card, Split, unknown_split
from debias_zoo.method import Batch, Clock, Method, Paper, setting
from debias_zoo.nets import StagedNet, register_model
from debias_zoo.protocol import Settings
from debias_zoo.reports.formats import Format
from torch import Tensor, nn


class Milder(Method):
    """Images whose bias is their label count less."""

    name = "milder"
    sees_bias = True
    paper = Paper(title="Mild", authors="Nobody", venue="nowhere", year=2026)

    class Config(Method.Config):
        """Settings."""

        strength: float = setting(1.0, "how much less", source="ours", search=(0.1, 10.0, "log"))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        losses = F.cross_entropy(self.net(batch.image).float(), batch.label, reduction="none")
        aligned = (batch.label == batch.bias).float()
        return {"loss": (losses / (1.0 + self.config.strength * aligned)).mean()}


class Mildest(Milder):
    """The same, and more of it."""

    name = "mildest"

    class Config(Milder.Config):
        """Settings."""

        strength: float = setting(3.0, "how much less", source="ours")


class Halves(BiasDataset):
    """Which half is bright tells the class, its brightness is the bias."""

    name = "halves"
    title = "Halves: brightness tells which half is bright"
    bias_attribute = "brightness"

    @property
    def card(self) -> Card:
        return Card(
            title=self.title,
            about="Noise with a bright half.",
            citation="none",
            url="",
            licence="CC0",
            origin="drawn",
            classes=("left", "right"),
            biases=("bright", "brighter"),
            aligned=((0,), (1,)),
            image_shape=(3, 12, 12),
            backbone="two_layers",
            normalize="half",
            training={"quick": Settings(epochs=1, batch_size=32, optimizer="sgd", lr=0.05, momentum=0.9,
                                        weight_decay=0.0, schedule="constant")},
            eval_splits=("test",),
        )

    def load(self, root, split: str) -> Split:
        sizes = {"train": 160, "test": 60}
        if split not in sizes:
            raise unknown_split(self, split, sizes)
        random = np.random.default_rng([len(split), 7])
        labels = random.integers(0, 2, sizes[split])
        same = random.random(len(labels)) < (0.9 if split == "train" else 0.5)
        biases = np.where(same, labels, 1 - labels)
        images = random.integers(0, 90, (len(labels), 12, 12, 3))
        for image, label, bias in zip(images, labels, biases, strict=True):
            image[:, 6 * label : 6 * label + 6] += 60 + 100 * bias
        return Split(images.astype(np.uint8), labels, biases)


@register_model
def two_layers(num_classes: int = 2, in_chans: int = 3, **options) -> StagedNet:
    """Two layers of eight channels."""
    layers = [nn.Conv2d(in_chans, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)]
    return StagedNet([nn.Sequential(layer, nn.ReLU()) for layer in layers], [8, 8], num_classes)


class Lines(Format):
    """A line a row."""

    name = "lines"

    def table(self, table, standalone=False):
        return "".join(f"{row.method} has {row.values['accuracy'].mean:.4f}\\n" for row in table.rows)

    def sheets(self, sheets, standalone=False):
        return "".join(f"{sheet.title}\\n" for sheet in sheets)
'''


def write_plugin(path: Path, source: str = SOURCE) -> Path:
    """Write the plugin file."""
    path.write_text(source)
    return path
