"""How networks trained on Colored MNIST do on MNIST's own test digits, as they are: grey, with soft edges.

    python docs/results/gray_digits.py RUNS

prints a line for each finished trial in a store that still has its weights: the accuracy on the coloured test digits,
from its result, and that on the same digits before they were coloured. The authors' files of LNL hold both.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import debias_zoo
from debias_zoo.datasets.mnist import digits_of
from debias_zoo.exporting import export
from debias_zoo.store import read_finished


def main() -> None:
    """A line for each trial."""
    digits, labels = digits_of("cmnist", "test", val=0, data_seed=0)
    runs, problems = read_finished(Path(sys.argv[1]))
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            predictor = debias_zoo.load(export(run, Path(folder) / "exported"))
        right = (predictor.logits(digits[..., None]).argmax(1) == labels).mean()
        trial = run.result.trial
        set_ = " ".join(f"{key}={value}" for key, value in trial.config.items())
        print(f"{trial.method} {set_} seed {trial.seed}: grey digits {100 * right:.1f}")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


if __name__ == "__main__":
    main()
