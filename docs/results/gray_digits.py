"""How networks trained on Colored MNIST do on MNIST's own test digits, as they are: grey, with soft edges.

    python docs/results/gray_digits.py RUNS

prints, for each finished trial on ``cmnist`` in a store, its accuracy in the last epoch on the coloured test digits and
on the same digits before they are coloured. It needs the trained weights, which the trials beside this file lack.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import debias_zoo
from debias_zoo.datasets.mnist import digits_of
from debias_zoo.errors import ZooError
from debias_zoo.exporting import export
from debias_zoo.store import read_finished


def main() -> None:
    """A line for each trial."""
    digits, labels = digits_of("cmnist", "test", val=0, data_seed=0)
    runs, problems = read_finished(Path(sys.argv[1]))
    for run in runs:
        trial = run.result.trial
        if trial.dataset != "cmnist":
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                predictor = debias_zoo.load(export(run, Path(folder) / "exported"))
        except ZooError as error:
            problems.append(f"{trial.folder}: {error}")
            continue
        gray = (predictor.logits(digits[..., None]).argmax(1) == labels).mean()
        options = " ".join(trial.options)
        print(f"{trial.folder}: coloured {run.result.metrics['test']['accuracy']:.1%}, grey {gray:.1%}  {options}")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


if __name__ == "__main__":
    main()
