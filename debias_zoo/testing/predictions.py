"""Checks of what a user gets: predictions and configurations."""

from __future__ import annotations

import json
import pickle

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from ..engine import quiet
from ..method import Method
from .bench import Bench, CheckFailure, differences, listing
from .history import snapshot
from .runs import changed_randomness, global_randomness
from .synthetic import CLASSES

RTOL, ATOL = 1e-3, 1e-4
"""How far the logits of an image alone may be from those in a batch: other kernels, other rounding."""


def check_predict_is_pure(bench: Bench) -> None:
    """``predict`` gives finite logits (B, classes), the same again, the same for an image alone, and changes nothing.

    The same for ``features``, (B, d). Failing means that test results depend on chance, or on which images share a
    batch. Usual causes: noise or dropout that is not for training alone, statistics of the test batch, a running
    state that is updated in ``predict``.
    """
    image = bench.view(bench.val).image(slice(0, 8))
    for moment in bench.moments:
        _check_pure(moment.engine().method, image, str(moment))
    _check_pure(bench.fit(epochs=1).fit.method, image, "after finish")


def _check_pure(method: Method, image: Tensor, where: str) -> None:
    with quiet(method):
        before, kept, randomness = snapshot(method), image.clone(), global_randomness()
        modes = [module.training for module in method.modules()]
        logits, features = method.predict(image), method.features(image)
        again = method.predict(image)
        if logits.shape != (len(image), CLASSES) or not logits.is_floating_point():
            raise CheckFailure(f"predict, {where}: gives {tuple(logits.shape)} {logits.dtype}; (B, classes) logits")
        if features.dim() != 2 or len(features) != len(image):
            raise CheckFailure(f"features, {where}: gives {tuple(features.shape)} instead of (B, d)")
        if not bool(torch.isfinite(logits).all()) or not bool(torch.isfinite(features).all()):
            raise CheckFailure(f"predict, {where}: not finite")
        if not torch.equal(logits, again):
            raise CheckFailure(f"predict, {where}: two predictions of one image differ by {_gap(logits, again):.3g}")
        _check_alone(method, image, {"predict": logits, "features": features}, where)
        if moved := differences(before, snapshot(method)):
            raise CheckFailure(f"predict, {where}: changes {listing(moved)}")
        if not torch.equal(kept, image) or modes != [module.training for module in method.modules()]:
            raise CheckFailure(f"predict, {where}: modifies the image, or switches modules between train and eval")
        if changed := changed_randomness(randomness):
            raise CheckFailure(f"predict, {where}: draws from {changed}'s global generator")


def _check_alone(method: Method, image: Tensor, together: dict[str, Tensor], where: str) -> None:
    for name, batch in together.items():
        alone = torch.cat([getattr(method, name)(one) for one in torch.split(image, 1)])
        if alone.shape != batch.shape or not torch.allclose(alone, batch, RTOL, ATOL):
            raise CheckFailure(f"{name}, {where}: an image alone gives another result, off by {_gap(alone, batch):.3g}")


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def check_config(bench: Bench) -> None:
    """The configuration goes through JSON and pickle unchanged, is frozen, documents every field, refuses unknown keys.

    Failing means that a trial's identity or its worker process is wrong, or that a typing error goes unnoticed. Usual
    causes: a ``Config`` that does not extend ``Method.Config``, a value that JSON does not know.
    """
    config = bench.config
    if not isinstance(config, BaseModel):
        raise CheckFailure(f"Config must extend Method.Config, a pydantic model; it is {type(config).__name__}")
    kind = type(config)
    if kind(**json.loads(config.model_dump_json())) != config:
        raise CheckFailure("a configuration written to JSON and read again is another one")
    if pickle.loads(pickle.dumps(config)) != config:  # our own bytes, written in this line
        raise CheckFailure("a pickled configuration is another one")
    if not kind.model_config.get("frozen"):
        raise CheckFailure("Config is not frozen: extend Method.Config")
    if bare := [name for name, field in kind.model_fields.items() if not field.description]:
        raise CheckFailure(f"without a description: {listing(bare)}; use debias_zoo.method.setting")
    try:
        kind(**{**config.model_dump(), "no_such_key": 1})
    except ValidationError:
        return
    raise CheckFailure("Config takes unknown keys: extend Method.Config")
