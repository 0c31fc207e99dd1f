"""What the loss of a bias predictor means: that of one that knows nothing of an image, and of one that knows its class.

    python docs/results/label_entropy.py 0.02 [0.035 ...]

prints, for Colored MNIST of each variance and in nats, the entropy of the dense bias labels of the training split,
summed over their channels as the loss of LNL's h is: without condition, and given the class. One that gives every bin
the same chance has 3 ln 8 = 6.24.
"""

from __future__ import annotations

import sys

import numpy as np

from debias_zoo.dataset import IGNORED
from debias_zoo.grid import parse_datasets


def entropy(labels: np.ndarray) -> float:
    """Of the empirical distribution of these bins, in nats."""
    _, counts = np.unique(labels, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def main() -> None:
    """A line for each variance."""
    for variance in sys.argv[1:]:
        (data,) = parse_datasets(f"cmnist:variance={variance},val=0")
        train = data.load(None, "train")
        assert train.bias_map is not None
        seen = train.bias_map != IGNORED  # (N, channels, h, w); the pixels that h learns on
        alone = given = 0.0
        for channel in range(train.bias_map.shape[1]):
            labels, where = train.bias_map[:, channel], seen[:, channel]
            alone += entropy(labels[where])
            for digit in np.unique(train.labels):
                of_it = where & (train.labels == digit)[:, None, None]
                given += entropy(labels[of_it]) * of_it.sum() / where.sum()
        print(f"variance {variance}: knows nothing {alone:.2f}, knows the class {given:.2f}")


if __name__ == "__main__":
    main()
