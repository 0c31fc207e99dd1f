"""What is left of the bias in a trained network: fresh linear probes on its frozen features.

At each tap of the backbone that predicts, and at the embedding (``Method.features``), logistic regression on
standardised features reads the bias attribute and, beside it, the label. Its score is the balanced accuracy in a
stratified cross-validation; *over chance* is that minus 1 / K, what every constant guess gets for K values. The weights
of the values are balanced in the fit as well, so that features that say nothing come out at about 0, however the values
are spread.

The features are computed in float32, whatever the precision of training, on the images as the backbone sees them:
those may be grey where the method's are not. A map (C, H, W) is averaged over a grid of ``GRID`` x ``GRID`` and
flattened: 4 C numbers. The images are a fixed subset of a split that no gradient has seen, spread as evenly over the
groups as these allow, since where the bias follows from the label, whoever reads the label reads the bias; what
dependence remains is told.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .assembly import dataset_of
from .dataset import BiasDataset, Ints, Split
from .engine import EVAL_BATCH, DeviceSplit, as_image, quiet
from .errors import ZooError
from .method import Method
from .registry import load_method
from .runner import load_train, trained_method
from .seeds import seed_for
from .store import Run
from .trial import Probe, ProbedLayer, Readout, Trial

IMAGES = 2000
"""Images of a split that are probed, unless ``--limit`` says another number."""

FOLDS = 5
GRID = 2
STRENGTH = 0.1
"""C of scikit-learn's logistic regression, the inverse weight of the L2 penalty; ours."""

TOLERANCE, STEPS = 1e-3, 1000
"""Where L-BFGS stops: at this largest gradient, ten times scikit-learn's, which moves no score by a point and takes
half the time; or after so many steps."""

DETERMINED, TOLD = 0.99, 0.05
"""Shares of the bias's entropy that the label tells, from which a note says so."""

Floats = npt.NDArray[np.float64]


def probe_runs(
    runs: Sequence[Run],
    root: Path | None = None,
    device: str = "cpu",
    limit: int = IMAGES,
    again: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, str]:
    """Probe each run and store what was found; the errors of those that failed, by identity.

    What has been probed on as many images is not done again, unless ``again`` says so. ``say`` is told a line a run.
    """
    errors, prober = {}, Prober(root, device, limit)
    for count, run in enumerate(runs, 1):
        head = f"[{count}/{len(runs)}] {run.result.trial.label}"
        if not again and _is_probed(run, limit):
            say(f"{head}: probed before")
            continue
        say(f"{head}: probing, which takes seconds to minutes")
        started = time.monotonic()
        try:
            found = prober.probe(run)
            run.save(found)
        except Exception as error:  # whatever is wrong with one trial, the others are probed
            text = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
            errors[run.result.identity] = f"probe failed: {run.result.trial.label}: {text}"
            say(f"{head}: failed: {text}")
        else:
            say(f"{head}: {_in_short(found)}, {time.monotonic() - started:.0f} s")
    return errors


def _is_probed(run: Run, limit: int) -> bool:
    try:
        found = run.probe()
    except ZooError:
        return False
    return found is not None and found.limit == limit


def _in_short(probe: Probe) -> str:
    last = probe.layers[-1]
    parts = [("bias", last.bias), ("label", last.label)]
    numbers = [f"{what} {100 * found.over_chance:+.1f}" for what, found in parts if found is not None]
    return f"{last.name} {', '.join(numbers)} over chance; {probe.images} images of {probe.split}"


class Prober:
    """Probes finished runs; of runs on the same data, the data are loaded once.

    Args:
        root: where downloaded data lie. device: where features are computed. limit: images at most.
    """

    def __init__(self, root: Path | None = None, device: str = "cpu", limit: int = IMAGES) -> None:
        self.root, self.device, self.limit = root, device, limit
        self._train: tuple[Any, Split] | None = None
        self._probed: tuple[Any, tuple[str, Split]] | None = None

    def probe(self, run: Run) -> Probe:
        """What the frozen features of ``run`` tell; raises a ZooError where its network cannot be brought back."""
        trial = run.result.trial
        check_same(trial, dataset_of(trial), self.root)
        name, split = self._images(trial)
        method = trained_method(trial, self._training(trial), run.path)
        features = features_of(method.to(self.device), split)
        dependence = dependence_of(split)
        notes = [_dependence_note(dependence, name)]
        layers = []
        for layer, values in features.items():
            read = {}
            for what, target in (("bias", split.biases), ("label", split.labels)):
                assert target is not None
                read[what], said = read_out(values, target)
                notes += [f"{what}{text}" for text in said]
            layers.append(ProbedLayer(name=layer, dim=values.shape[1], bias=read["bias"], label=read["label"]))
        return Probe(
            identity=trial.identity,
            split=name,
            limit=self.limit,
            images=len(split),
            folds=FOLDS,
            dependence=dependence,
            layers=tuple(layers),
            notes=tuple(dict.fromkeys(filter(None, notes))),
        )

    def _training(self, trial: Trial) -> Split:
        """The training split: a method is built for it."""
        key = (trial.dataset, trial.params, trial.fingerprint, trial.train_limit)
        if self._train is None or self._train[0] != key:
            self._train = key, load_train(trial, self.root)
        return self._train[1]

    def _images(self, trial: Trial) -> tuple[str, Split]:
        """The name of the split, and its images that are probed."""
        key = (trial.dataset, trial.params, trial.fingerprint)
        if self._probed is None or self._probed[0] != key:
            self._probed = key, probed_images(dataset_of(trial), self.root, self.limit)
        return self._probed[1]


def check_same(trial: Trial, dataset: BiasDataset, root: Path | None) -> None:
    """Raise a ZooError where method or data are not those that ``trial`` was trained with."""
    for what, name, then, now in (
        ("method", trial.method, trial.method_version, load_method(trial.method).version),
        ("data set", trial.dataset, trial.dataset_version, dataset.version),
    ):
        if then != now:
            raise ZooError(f"trained with version {then} of {what} {name!r}, here is version {now}: run it again")
    dataset.check(root)
    if dataset.fingerprint(root) != trial.fingerprint:
        raise ZooError(
            f"the files of data set {trial.dataset!r} are not those it was trained on: name theirs with --data-root"
        )


def probed_images(dataset: BiasDataset, root: Path | None, limit: int) -> tuple[str, Split]:
    """``val_unbiased``, or else the first test split on the card that has bias labels; and the images that are probed.

    Training images are never taken: a network may know them by heart.
    """
    card = dataset.card
    names = [name for name in ("val_unbiased", *card.test_splits) if name in card.eval_splits]
    for name in names:
        split = dataset.load(root, name)
        if split.biases is not None:
            rows = spread(split.labels, split.biases, limit, seed_for(dataset.name, "probe", name))
            return name, Split(split.images[rows], split.labels[rows], split.biases[rows])
    raise ZooError(f"data set {dataset.name!r} has no bias labels to probe for in {' or '.join(names)}")


def spread(labels: Ints, biases: Ints, limit: int, seed: int) -> Ints:
    """Rows int64 (M,), M <= ``limit``, ascending: as many of each group as of any other, until a group has no more."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    groups = labels[order] * (int(biases.max()) + 1) + biases[order]
    place = np.zeros(len(order), np.int64)  # of an image in its group
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        place[inside] = np.arange(len(inside))
    taken = np.argsort(place, kind="stable")[:limit]
    return np.sort(order[taken]).astype(np.int64)


def dependence_of(split: Split) -> float:
    """Share of the bias's entropy that the label tells, in [0, 1]; 0 where there is one bias value."""
    from sklearn.metrics import mutual_info_score

    entropy = mutual_info_score(split.biases, split.biases)
    return float(mutual_info_score(split.labels, split.biases) / entropy) if entropy > 0 else 0.0


def _dependence_note(dependence: float, split: str) -> str:
    if dependence >= DETERMINED:
        return f"the label determines the bias in {split}: who reads the one reads the other, and nothing follows"
    if dependence >= TOLD:
        return (
            f"the label tells {100 * dependence:.0f} % of the bias's entropy in {split}: part of the one is the other"
        )
    return ""


def features_of(method: Method, split: Split) -> dict[str, Floats]:
    """The frozen features of a split's images (N, d), by layer, in the order of the network."""
    device = next(method.parameters()).device
    images = DeviceSplit(split, device, see_bias=False)
    found: dict[str, list[Tensor]] = {}
    with quiet(method):
        for pixels in images.pixels(images.chunks(EVAL_BATCH)):
            for name, values in layers_of(method, as_image(pixels)).items():
                found.setdefault(name, []).append(values.float().cpu())
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def layers_of(method: Method, image: Tensor) -> dict[str, Tensor]:
    """(B, d) by layer: the taps of the backbone that predicts, pooled, and the embedding. image: (B, C, H, W)."""
    backbone = method.deployed()
    with _seen_by(backbone) as seen:
        embedding = method.features(image)
    maps = backbone.maps(seen[0]) if backbone is not None and seen else []
    return {**{f"tap{k}": pooled(map_) for k, map_ in enumerate(maps)}, "embedding": embedding.flatten(1)}


@contextmanager
def _seen_by(backbone: Any) -> Iterator[list[Tensor]]:
    """Collects the images that a backbone is handed: they need not be those that its method is."""
    seen: list[Tensor] = []
    if backbone is None:
        yield seen
        return
    hook = backbone.normalize.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def pooled(map_: Tensor) -> Tensor:
    """(B, d): a map (B, C, H, W) averaged over a grid, or whatever has no height and width as it is, (B, C)."""
    if map_.dim() != 4:
        return map_.flatten(1)
    height, width = (min(side, GRID) for side in map_.shape[2:])
    return F.adaptive_avg_pool2d(map_.float(), (height, width)).flatten(1)


def read_out(features: Floats, target: Ints) -> tuple[Readout | None, list[str]]:
    """How well a probe reads ``target`` (N,) from ``features`` (N, d), and what must be said about it.

    Values with fewer images than there are folds are left out; None where fewer than two are left.
    """
    values, counts = np.unique(target, return_counts=True)
    kept = values[counts >= FOLDS]
    said = []
    if len(kept) < len(values):
        said.append(f": {len(values) - len(kept)} of {len(values)} values have too few images and are left out")
    if len(kept) < 2:
        return None, [*said, ": nothing to tell apart"]
    rows = np.isin(target, kept)
    scores, converged = _scores(features[rows], target[rows])
    if not converged:
        said.append(f": a probe was stopped after {STEPS} steps")
    chance = 1.0 / len(kept)
    return Readout(accuracy=float(scores.mean()), std=float(scores.std(ddof=1)), chance=chance), said


def _scores(features: Floats, target: Ints) -> tuple[Floats, bool]:
    """Balanced accuracies (FOLDS,), and whether all fits converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    probe = make_pipeline(  # type: ignore[no-untyped-call]
        StandardScaler(),  # type: ignore[no-untyped-call]
        LogisticRegression(  # type: ignore[no-untyped-call]
            C=STRENGTH, class_weight="balanced", tol=TOLERANCE, max_iter=STEPS
        ),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)  # type: ignore[no-untyped-call]
    # the solver's steps are many and small: more threads spend them waiting for each other
    one_thread = threadpool_limits(1, "blas")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(record=True) as caught, one_thread:
        warnings.simplefilter("always")
        scores = cross_val_score(probe, features, target, cv=folds, scoring="balanced_accuracy", error_score="raise")
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return np.asarray(scores, np.float64), converged
