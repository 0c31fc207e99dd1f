"""LNL on Colored MNIST the plain way: images loaded one by one through PIL, float32, everything computed anew.

What the speed of the zoo is measured against: the same nets, the same three heads, the same two updates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class PlainImages(Dataset[tuple[Tensor, Tensor, int]]):
    """(image, colour bins, label) of one picture at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        picture = Image.fromarray(self.images[index])
        small = torch.from_numpy(np.array(picture.resize((14, 14), Image.Resampling.NEAREST))).permute(2, 0, 1).long()
        bins = torch.where(small == 0, 255, small // 32)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
        return (pixels - self.mean) / self.std, bins, int(self.labels[index])


class PlainNet(nn.Module):
    """LNL's convnet; gives the map after its second layer and the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(3)
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.conv1(self.bn0(x))), 3, 2, 1)
        z = F.relu(self.conv2(x))
        x = F.relu(self.conv4(F.relu(self.conv3(z))))
        return z, self.fc(F.avg_pool2d(x, 7).flatten(1))


def plain_head() -> nn.Sequential:
    """One colour channel's predictor."""
    return nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 8, 3, padding=1))


class Reverse(torch.autograd.Function):
    """Gradient reversal with the published scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].neg() * 0.1


class PlainLNL:
    """The published training loop: two passes and two updates a batch, four optimizers."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int = 128) -> None:
        self.loader = DataLoader(PlainImages(images, labels), batch_size, shuffle=True)
        self.net, self.heads = PlainNet(), nn.ModuleList(plain_head() for _ in range(3))
        modules = [self.net, *self.heads]
        self.optimizers = [torch.optim.SGD(m.parameters(), 0.001, 0.9, weight_decay=5e-4) for m in modules]

    def epoch(self) -> int:
        """One pass over the images; the number of steps."""
        self.net.train()
        for image, bins, label in self.loader:
            self.zero()
            z, logits = self.net(image)
            loss = F.cross_entropy(logits, label)
            for head in self.heads:
                p = F.softmax(head(z), 1)
                loss = loss + 0.01 / 3 * (p * torch.log(p + 1e-8)).sum(1).mean()
            loss.backward()
            self.optimizers[0].step()
            self.zero()
            z, _ = self.net(image)
            z = Reverse.apply(z)
            loss = sum(F.cross_entropy(head(z), bins[:, k], ignore_index=255) for k, head in enumerate(self.heads))
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
        return len(self.loader)

    def zero(self) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
