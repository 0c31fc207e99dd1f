"""Groups (label, bias): their index, what the training split holds of each, and means over a batch.

The index is ``label * biases + bias``, in this module alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from debias_zoo.errors import ZooError
from debias_zoo.method import Batch, Task, View


def group_index(label: Int[Tensor, " b"], bias: Int[Tensor, " b"] | None, task: Task) -> Int[Tensor, " b"]:
    """int64 (B,): the group of each image. label, bias: int64 (B,)."""
    if bias is None:
        raise ZooError("groups need bias labels; there are none")
    return label * task.biases + bias


def batch_bias(batch: Batch) -> Int[Tensor, " b"]:
    """int64 (B,): the bias label of each image of a batch."""
    if batch.bias is None:
        raise ZooError("the batch holds no bias labels")
    return batch.bias


def batch_groups(batch: Batch, task: Task) -> Int[Tensor, " b"]:
    """int64 (B,): the group of each image of a batch."""
    return group_index(batch.label, batch.bias, task)


def view_groups(view: View, task: Task) -> Int[Tensor, " n"]:
    """int64 (N,): the group of each image of a split."""
    return group_index(view.labels, view.biases, task)


def training_counts(task: Task) -> Float[Tensor, " groups"]:
    """float32 (G,): training images of each group, 0 where there are none."""
    if task.group_counts is None:
        raise ZooError("groups need bias labels; there are none")
    return torch.tensor(task.group_counts, dtype=torch.float32).flatten()


def balancing_weights(members: Int[Tensor, " n"], count: int) -> Float[Tensor, " n"]:
    """float32 (N,): N / n_k for an image of group (or class) k; drawn in proportion, every k is equally likely.

    members: int64 (N,), in 0 ... count - 1.
    """
    sizes = torch.bincount(members, minlength=count).float()
    return len(members) / sizes[members]


def group_means(
    losses: Float[Tensor, " b"], members: Int[Tensor, " b"], count: int
) -> tuple[Float[Tensor, " {count}"], Float[Tensor, " {count}"]]:
    """The mean of ``losses`` (B,) over each group, 0 where the batch holds none (G,), and the images of each (G,)."""
    sizes = torch.zeros(count, dtype=losses.dtype, device=losses.device).index_add(0, members, torch.ones_like(losses))
    sums = torch.zeros_like(sizes).index_add(0, members, losses)
    return sums / sizes.clamp(min=1), sizes
