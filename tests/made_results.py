"""Results made by hand, as the store would hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from debias_zoo.metrics import METRICS
from debias_zoo.protocol import Settings
from debias_zoo.trial import SCHEMA, Result, Supervision, Trial

TRAINING = Settings(
    epochs=5, batch_size=128, optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="cosine"
)


def make_trial(method: str = "erm", seed: int = 0, **changes: Any) -> Trial:
    """A trial on cmnist; ``changes`` are fields of Trial."""
    fields: dict[str, Any] = {
        "method": method,
        "method_version": 1,
        "dataset": "cmnist",
        "dataset_version": 1,
        "params": {"variance": 0.02, "val": 6000, "data_seed": 0},
        "fingerprint": "mnist.npz=39b9b1ffaa0ba4d8",
        "seed": seed,
        "protocol": "standard",
        "backbone": "lnl_convnet",
        "normalize": "cifar",
        "precision": "bf16",
        "config": {},
        "settings": TRAINING,
        "supervision": Supervision(),
    }
    return Trial(**{**fields, **changes})


def make_result(
    method: str = "erm",
    seed: int = 0,
    accuracy: float | None = 0.5,
    *,
    metrics: dict[str, dict[str, float | None]] | None = None,
    seconds: float = 100.0,
    **changes: Any,
) -> Result:
    """A result whose test metrics follow from the accuracy, or are given whole."""
    trial = make_trial(method, seed, **changes)
    if metrics is None:
        found: dict[str, float | None] = dict.fromkeys(METRICS)
        if accuracy is not None:
            found |= {"accuracy": accuracy, "unbiased": accuracy - 0.01, "worst_group": accuracy / 2}
            found |= {"aligned": 0.99, "conflicting": accuracy - 0.05, "gap": 0.99 - (accuracy - 0.05)}
        metrics = {"val": {"accuracy": 0.99}, "test": found}
    return Result(
        schema_version=SCHEMA,
        identity=trial.identity,
        trial=trial,
        metrics=metrics,
        seconds={"total": seconds},
        cost={},
        environment={},
    )


def make_seeds(method: str, accuracies: Sequence[float], **changes: Any) -> list[Result]:
    """One result a seed, from 0."""
    return [make_result(method, seed, accuracy, **changes) for seed, accuracy in enumerate(accuracies)]


SEES_BIAS = Supervision(train=True)


def paper_table(seeds: int = 3) -> list[Result]:
    """Like the main job: two levels of supervision, one method built for a kind of bias, one tuned."""
    tuned = Supervision(train=True, tuned_on="val_unbiased")
    return [
        *make_seeds("erm", [0.4012, 0.4055, 0.4101][:seeds]),
        *make_seeds("gray", [0.7105, 0.7188, 0.7164][:seeds], supervision=Supervision(knows_bias_kind=True)),
        *make_seeds("rebias", [0.41, 0.45, 0.47][:seeds], supervision=Supervision(knows_bias_kind=True)),
        *make_seeds("lnl", [0.5512, 0.5322, 0.5707][:seeds], supervision=tuned, config={"scale": 0.1}),
        *make_seeds("lnl_adaptive", [0.6012, 0.6182, 0.5907][:seeds], supervision=tuned, config={"base": 1.0}),
        *make_seeds("blindeye", [0.4712, 0.4492, 0.4607][:seeds], supervision=SEES_BIAS, config={"alpha": 0.1}),
    ]
