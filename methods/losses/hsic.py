"""The Hilbert-Schmidt independence criterion between two sets of features (Gretton 2005, Song 2012).

All of it runs in float32 at least, whatever the precision around it: the terms cancel to several digits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .precision import full_precision, wide


def squared_distances(x: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """(N, N) squared Euclidean distances of the rows of x (N, d), never below 0."""
    x = wide(x)
    norms = (x * x).sum(1)
    with full_precision(x):
        gram = x @ x.T
    return (norms[:, None] + norms[None, :] - 2.0 * gram).clamp(min=0.0)


def rbf_kernel(x: Float[Tensor, "n d"], sigma: Float[Tensor, ""] | float) -> Float[Tensor, "n n"]:
    """(N, N) kernel exp(-||x_i - x_j||^2 / (2 sigma^2)) of the rows of x (N, d)."""
    return torch.exp(-squared_distances(x) / (2.0 * sigma**2))


def unbiased_hsic(k: Float[Tensor, "n n"], l: Float[Tensor, "n n"]) -> Float[Tensor, ""]:  # noqa: E741  (the paper's)
    """Song's unbiased estimator for kernels K, L (N, N), N >= 4; it can be negative.

    [tr(K~L~) + 1'K~1 1'L~1 / ((N-1)(N-2)) - 2/(N-2) 1'K~L~1] / (N(N-3)), with K~, L~ the kernels with zero diagonal.
    """
    n = k.shape[0]
    k = k - torch.diag_embed(torch.diagonal(k))
    l = l - torch.diag_embed(torch.diagonal(l))  # noqa: E741
    rows_k, rows_l = k.sum(1), l.sum(1)
    trace = (k * l).sum()  # both symmetric
    product = rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2))
    cross = 2.0 / (n - 2) * (rows_k * rows_l).sum()
    return (trace + product - cross) / (n * (n - 3))


def median_sigma(features: list[Float[Tensor, "b d"]]) -> Float[Tensor, ""]:
    """Sqrt of the median of all squared distances within each batch of features (B, d), zero diagonal included."""
    return torch.cat([squared_distances(x).flatten() for x in features]).median().sqrt()
