"""What the tests of formulas share: a small float64 batch, LNL's net written out by hand, and gradient comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from debias_zoo.backbones import NORMALIZATIONS, BackboneFactory
from debias_zoo.engine import Engine
from debias_zoo.method import Batch, Clock, Method, Task
from debias_zoo.protocol import Settings
from debias_zoo.registry import load_method

SIDE, CLASSES, BIASES, BINS = 12, 3, 4, 8
COUNTS = ((9, 2, 1, 4), (3, 8, 2, 1), (1, 2, 7, 5))


def make_task(dense: bool = True, sees_bias: bool = True) -> Task:
    """Three classes, four biases, and, if dense, three maps of eight bins on the middle tap of LNL's net."""
    bias_map = (3, BINS, SIDE // 2, SIDE // 2) if dense else None
    task = Task(CLASSES, BIASES, 45, (3, SIDE, SIDE), (BIASES,), bias_map, COUNTS)
    return task if sees_bias else task.hidden()


def make_method(name: str, dense: bool = True, backbone: str = "lnl_convnet", seed: int = 0, **config: Any) -> Any:
    """A method in float64, in training mode."""
    cls: type[Method] = load_method(name)
    task = make_task(dense, cls.sees_bias)
    factory = BackboneFactory(backbone, task.classes, task.image_shape, "cifar", seed)
    torch.manual_seed(seed)
    return cls(factory, task, cls.Config(**config)).double().train()


def make_batch(size: int = 8, seed: int = 1, dense: bool = True) -> Batch:
    """Random images and labels; a third of the dense labels are ignored."""
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(size, 3, SIDE, SIDE, generator=random, dtype=torch.float64)
    label = torch.arange(size) % CLASSES
    bias = torch.randint(BIASES, (size,), generator=random)
    bias_map = torch.randint(-4, BINS, (size, 3, SIDE // 2, SIDE // 2), generator=random)
    bias_map[bias_map < 0] = -100
    return Batch(image, label, bias, bias_map if dense else None, torch.arange(size), random)


@dataclass
class LabelView:
    """A training split of which nothing but the labels is read."""

    labels: Tensor
    biases: Tensor | None
    generator: torch.Generator = field(default_factory=torch.Generator)

    def batches(self, size: int, every: int = 1) -> Iterator[Batch]:
        raise TypeError("images are not read")


def label_view(counts: Sequence[Sequence[int]] = COUNTS) -> LabelView:
    """Labels with these images by (label, bias), in an order that mixes the groups."""
    pairs = [(y, b) for y, row in enumerate(counts) for b, count in enumerate(row) for _ in range(count)]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    labels, biases = torch.tensor(pairs)[order].unbind(1)
    return LabelView(labels, biases)


def clock(stage: str = "main", epoch: int = 0, step: int = 0, steps: int = 10) -> Clock:
    """A moment of training."""
    return Clock(stage, epoch, 5, step, steps, steps)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """Detached copies of parameters and buffers that require gradients if they are parameters."""
    parameters = dict(module.named_parameters())
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return {name: value.requires_grad_() if name in parameters else value for name, value in state.items()}


def lnl_net(w: dict[str, Tensor], image: Tensor, training: bool = True, prefix: str = "net.") -> tuple[Tensor, Tensor]:
    """(logits, map after conv2) of LNL's net, from the paper's description: ReLU before the pooling."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in NORMALIZATIONS["cifar"])
    p = prefix + "model."
    x = batch_norm((image - mean) / std, w, p + "stages.0.0", training)
    x = F.max_pool2d(F.relu(conv(x, w, p + "stages.0.1", 1, 2)), 3, 2, 1)
    z = F.relu(conv(x, w, p + "stages.1.0", 1, 1))
    x = F.relu(conv(z, w, p + "stages.2.0", 2, 1))
    x = F.relu(conv(x, w, p + "stages.3.0", 1, 1)).mean((2, 3))
    return x @ w[p + "fc.weight"].T + w[p + "fc.bias"], z


def conv(x: Tensor, w: dict[str, Tensor], name: str, stride: int, padding: int) -> Tensor:
    """A convolution with bias."""
    return F.conv2d(x, w[name + ".weight"], w[name + ".bias"], stride, padding)


def batch_norm(x: Tensor, w: dict[str, Tensor], name: str, training: bool) -> Tensor:
    """Batch normalisation written out: over images and pixels in training, by running statistics otherwise."""
    if training:
        mean = x.mean((0, 2, 3))
        var = ((x - mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
    else:
        mean, var = w[name + ".running_mean"], w[name + ".running_var"]
    shape = (1, -1, 1, 1)
    scaled = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-5)
    return scaled * w[name + ".weight"].view(shape) + w[name + ".bias"].view(shape)


def dense_heads(w: dict[str, Tensor], z: Tensor, training: bool = True) -> list[Tensor]:
    """Three separate heads conv-BN-ReLU-conv, each with its own slice of the weights."""
    found = []
    channels = z.shape[1]
    for k in range(3):
        rows = slice(k * channels, (k + 1) * channels)
        own = {name: w["bias." + name][rows] for name in ("hidden.weight", "hidden.bias", "norm.weight", "norm.bias")}
        own |= {name: w["bias." + name][rows] for name in ("norm.running_mean", "norm.running_var")}
        hidden = F.relu(batch_norm(conv(z, own, "hidden", 1, 1), own, "norm", training))
        found.append(conv(hidden, w, f"bias.last.{k}", 1, 1))
    return found


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax at the label, one sample and pixel at a time; negative labels give nothing."""
    p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    kept = target >= 0
    picked = p.gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
    return -torch.log(picked[kept]).mean()


def assert_same_gradients(
    method: Any, loss: Tensor, replica: Tensor, w: dict[str, Tensor], reached: tuple[str, ...], atol: float = 1e-9
) -> None:
    """Value and gradients agree for every parameter; parameters outside ``reached`` get none or zero."""
    torch.testing.assert_close(loss, replica, rtol=1e-6, atol=atol)
    names = [name for name, _ in method.named_parameters()]
    own = torch.autograd.grad(loss, list(method.parameters()), allow_unused=True, retain_graph=True)
    theirs = torch.autograd.grad(replica, [w[name] for name in names], allow_unused=True, retain_graph=True)
    for name, mine, other in zip(names, own, theirs, strict=True):
        if not name.startswith(reached):
            continue
        assert mine is not None, f"{name} gets no gradient"
        assert other is not None, f"{name} gets no gradient in the replica"
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def gradients(method: Any, loss: Tensor) -> dict[str, Tensor | None]:
    """The gradient of every parameter, None where the loss does not reach it."""
    names = [name for name, _ in method.named_parameters()]
    found = torch.autograd.grad(loss, list(method.parameters()), allow_unused=True, retain_graph=True)
    return dict(zip(names, found, strict=True))


def weights_after(method: Any, batches: Sequence[Batch], stage: str = "main") -> dict[str, Tensor]:
    """All weights and buffers after one step of SGD, with momentum and weight decay, on each batch."""
    engine = Engine(method)
    how = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=8, schedule="constant")
    engine.build_optimizers(how)
    for step, batch in enumerate(batches):
        engine.step(batch, clock(stage, step=step))
    return {name: value.detach().clone() for name, value in method.state_dict().items()}


def biased_cross_entropy(logits: Tensor, label: Tensor, q: float) -> Tensor:
    """LfF's loss of a biased network, one image at a time: q p^q CE with a constant p of the label."""
    losses = []
    for z, y in zip(logits, label, strict=True):
        p = torch.exp(z[y]) / torch.exp(z).sum()
        losses.append(q * p.detach() ** q * -torch.log(p))
    return sum(losses) / len(losses)  # type: ignore[return-value]


class SlowDifficulty:
    """LfF's weights, one image at a time, with running means in dictionaries of (loss, label) by row."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.means: tuple[dict[int, tuple[float, int]], dict[int, tuple[float, int]]] = ({}, {})

    def weights(self, biased: Tensor, debiased: Tensor, batch: Batch) -> Tensor:
        """(B,): weights for these logits (B, classes) of both networks."""
        shares = []
        for logits, means in zip((biased, debiased), self.means, strict=True):
            for z, y, i in zip(logits, batch.label, batch.index, strict=True):
                loss = float(cross_entropy(z[None], y[None]).detach())
                old = means.get(int(i))
                mean = loss if old is None else self.alpha * old[0] + (1 - self.alpha) * loss
                means[int(i)] = (mean, int(y))
            own = [means[int(i)] for i in batch.index]
            shares.append([mean / max(m for m, y in means.values() if y == label) for mean, label in own])
        return torch.tensor([b / (b + d) for b, d in zip(*shares, strict=True)], dtype=torch.float64)


def readout_net(w: dict[str, Tensor], z: Tensor, prefix: str, depth: int, training: bool = True) -> Tensor:
    """(B, classes): ``depth`` blocks conv-BN-ReLU-conv-BN-ReLU, with a skip but for the first; mean; linear."""
    for k in range(depth):
        p = f"{prefix}{k}.layers."
        x = F.conv2d(z, w[p + "0.weight"], padding=1)
        x = F.relu(batch_norm(x, w, p + "1", training))
        x = batch_norm(F.conv2d(x, w[p + "3.weight"], padding=1), w, p + "4", training)
        z = F.relu(x if k == 0 else x + z)
    last = f"{prefix}{depth + 2}."
    return z.mean((2, 3)) @ w[last + "weight"].T + w[last + "bias"]
