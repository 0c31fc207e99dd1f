"""DFR: Last Layer Re-Training is Sufficient for Robustness (Kirichenko et al., ICLR 2023, arXiv:2204.02937)."""

from __future__ import annotations

import inspect
import warnings
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from debias_zoo.errors import DivergedError, ZooError
from debias_zoo.method import Backbones, Batch, Clock, Method, Paper, Recipe, Settings, Task, View, setting
from debias_zoo.protocol import Augment

from .losses.precision import full_precision, wide
from .schedules import CELEBA, WATERBIRDS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

AUTHORS = "authors' dfr_evaluate_spurious.py"
VIEW_BATCH = 128
CROPPED = Augment(resized_crop=(0.7, 1.0), flip=True)
"""How the authors augment Waterbirds."""

TINY = 1e-6
"""A feature that deviates less than this is constant, and is not scaled."""

_old = inspect.signature(LogisticRegression).parameters["l1_ratio"].default is None
L1: dict[str, Any] = {"penalty": "l1"} if _old else {"l1_ratio": 1.0}
"""How scikit-learn is asked for the l1 penalty, before 1.8 and since."""


class DFR(Method):
    """Train as ERM, then fit the last layer anew on validation images, as many of every group.

    h(x) are the features of the trained network, standardised by their mean and deviation on the validation split:

        main:    L = mean_i CE(y_i, f(x_i))                                                    steps the network
        finish:  (W, b) = mean_r argmin sum_{i in V_r} CE(y_i, W h(x_i) + b) + |W|_1 / C       the network is frozen

    V_1 ... V_refits are random subsets of the validation split with equally many images of each group (label, bias)
    that it holds. C is the one of ``strengths`` whose layer, fitted on such a subset of one half of the validation
    images, has the best worst-group accuracy on the other half. Reads bias labels of the validation split, of the
    unbiased one where there is one, and none in training. Prediction: W h(x) + b; until ``finish`` f(x).

    Differs from the paper: one softmax for any number of classes, by the solver saga, which leaves b free (liblinear
    penalises it and knows two classes) and may stop before it has converged; one standardisation, by the whole
    validation split (the authors' last one is by training features); the halves are drawn within each group, so that
    none is lost.
    """

    name = "dfr"
    version = 1
    needs_val_bias = True
    paper = Paper(
        title="Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations",
        authors="Kirichenko, Izmailov, Wilson",
        venue="ICLR",
        year=2023,
        arxiv="2204.02937",
        code="https://github.com/PolinaKirichenko/deep_feature_reweighting",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        strengths: tuple[Annotated[float, Field(gt=0)], ...] = setting(
            (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01), "values of C that are tried", source=AUTHORS, min_length=1
        )
        refits: int = setting(20, "fits on random balanced subsets that are averaged", source=AUTHORS, ge=1)
        iterations: int = setting(100, "passes of the solver over a subset, at most", source="scikit-learn", ge=1)

    recipes = (
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source="PolinaKirichenko/deep_feature_reweighting, README.md",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(epochs=100, batch_size=32, weight_decay=1e-3, augment=CROPPED).over(WATERBIRDS),
        ),
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="PolinaKirichenko/deep_feature_reweighting, README.md",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(lr=1e-3).over(CELEBA),
        ),
    )

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    fitted: Tensor

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("mean", torch.zeros(self.net.dim))
        self.register_buffer("scale", torch.ones(self.net.dim))
        self.register_buffer("weight", torch.zeros(task.classes, self.net.dim))
        self.register_buffer("bias", torch.zeros(task.classes))
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(wide(self.net(batch.image)), batch.label)}

    def finish(self, train: View, val: View) -> None:
        groups = groups_of(val, self.task.classes)
        features = torch.cat([wide(self.net.features(batch.image)) for batch in val.batches(VIEW_BATCH)]).cpu().double()
        mean, deviation = features.mean(0), features.std(0, correction=0)
        scale = torch.where(deviation > TINY, deviation, 1.0)
        x = ((features - mean) / scale).numpy()
        if not np.isfinite(x).all():
            raise DivergedError("dfr: features are not finite. Lower the learning rate (--set dfr.main.lr=...)")
        random = np.random.default_rng(val.generator.initial_seed())
        layer = torch.from_numpy(last_layer(x, val.labels.cpu().numpy(), groups, self.config, random))
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.weight.copy_(layer[:, :-1])
        self.bias.copy_(layer[:, -1])
        self.fitted.fill_(True)

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        features = wide(self.net.features(image))
        return torch.where(self.fitted, (features - self.mean) / self.scale, features)

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        features = self.net.features(image)
        with full_precision(features):
            found = F.linear((wide(features) - self.mean) / self.scale, self.weight, self.bias)
        return torch.where(self.fitted, found, wide(self.net.classify(features)))


def groups_of(val: View, classes: int) -> Ints:
    """(N,): the group of each validation image, numbered over the groups that are there."""
    if val.biases is None:
        raise ZooError("dfr needs bias labels of the validation split; it has none")
    present, groups = torch.unique(torch.stack([val.labels, val.biases]), dim=1, return_inverse=True)
    held = torch.bincount(present[0], minlength=classes).tolist()  # biases by class
    if missing := [label for label, count in enumerate(held) if not count]:
        raise ZooError(f"dfr fits on the validation split, which has no image of class {missing}; make it larger")
    if max(held) < 2:
        raise ZooError(
            "dfr: in the validation split every class has one bias, which a layer fitted on it would learn; it needs "
            "bias-conflicting images there, or a data set with a split val_unbiased"
        )
    found: Ints = groups.cpu().numpy()
    return found


def last_layer(x: Floats, y: Ints, groups: Ints, config: DFR.Config, random: np.random.Generator) -> Floats:
    """(classes, d + 1): weights and bias, from features x (N, d), labels y (N,) and groups (N,)."""
    strength = best_strength(x, y, groups, config, random)
    subsets = [balanced(groups, random) for _ in range(config.refits)]
    fits = [logistic(x[rows], y[rows], strength, config.iterations) for rows in subsets]
    mean: Floats = np.stack(fits).mean(0)
    return mean


def best_strength(x: Floats, y: Ints, groups: Ints, config: DFR.Config, random: np.random.Generator) -> float:
    """The C with the best worst-group accuracy on one half, fitted on the other; of equals the first."""
    shuffled = [random.permutation(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    fit, score = (np.concatenate([rows[k::2] for rows in shuffled]) for k in (0, 1))
    rows = fit[balanced(groups[fit], random)]

    def worst(strength: float) -> float:
        layer = logistic(x[rows], y[rows], strength, config.iterations)
        right = (x[score] @ layer[:, :-1].T + layer[:, -1]).argmax(1) == y[score]
        return min((right[groups[score] == group].mean() for group in np.unique(groups[score])), default=0.0)

    return max(config.strengths, key=worst)


def balanced(groups: Ints, random: np.random.Generator) -> Ints:
    """Random rows, of each group as many as the smallest has."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    least = min(len(rows) for rows in members)
    return np.concatenate([random.choice(rows, least, replace=False) for rows in members])


def logistic(x: Floats, y: Ints, strength: float, iterations: int) -> Floats:
    """(classes, d + 1): weights and bias that minimise sum_i CE_i + |W|_1 / C on x (n, d), y (n,) with every class."""
    model: Any = LogisticRegression(  # type: ignore[no-untyped-call]
        C=strength, solver="saga", max_iter=iterations, random_state=0, **L1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early is meant: it bounds the time
        model.fit(x, y)
    layer: Floats = np.column_stack([model.coef_, model.intercept_])
    return layer if len(layer) > 1 else np.vstack([np.zeros_like(layer), layer])  # two classes: logits 0 and z
