"""``debias_zoo.load``: an exported model as something that predicts. Files are read as data; nothing in them is run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .assembly import untrained
from .bounded import Bounded
from .devices import pick_device
from .errors import ZooError
from .exported import WEIGHTS, Exported, Network, read_exported
from .method import Method
from .predictor import Predictor
from .registry import load_method

GIB = 2**30
ONE_TENSOR = 2 * GIB
"""Bytes that a tensor of a network may have, whatever its config.json says."""

AS_FILE = 8
"""What a network may take while it is loaded, in sizes of the file of its weights, and a GiB besides."""


def load(folder: str | Path, *, device: str = "cpu") -> Predictor:
    """The model that ``debias-zoo export`` wrote; it needs no data and no store.

    Only methods and backbones that are installed here are built; the weights are safetensors.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.

    Returns:
        A predictor: ``predict(images)`` gives probabilities (N, classes), ``classes`` names the columns.

    Raises:
        ZooError: a file is missing, damaged or not the one that was exported; the method is not installed, or in
            another version.
    """
    place = Path(folder)
    device = pick_device(device)
    config = read_exported(place)
    if (place / WEIGHTS).exists() and not (place / WEIGHTS).is_file():
        raise ZooError(f"{place / WEIGHTS} is no file")
    try:
        content = (place / WEIGHTS).read_bytes()
    except OSError as error:
        raise ZooError(f"cannot read {place / WEIGHTS}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != config.digests.get(WEIGHTS):
        raise ZooError(f"{place / WEIGHTS} is not the file that was exported (its sha256 differs): export it again")
    return predictor_of(config, tensors_in(content, place), place, device)


def tensors_in(content: bytes, place: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; a ZooError where it is none."""
    from safetensors.torch import load as parse

    try:
        return parse(content)
    except Exception as error:  # the library has an error of its own
        raise ZooError(f"{place / WEIGHTS} cannot be read ({type(error).__name__}: {error})") from error


def predictor_of(config: Exported, tensors: Mapping[str, Tensor], place: Path, device: str = "cpu") -> Predictor:
    """The network that a config describes, with these weights. Raises a ZooError where the two do not fit."""
    size = sum(value.untyped_storage().nbytes() for value in tensors.values())
    method = _built(config, place, GIB + AS_FILE * size)
    _fill(method, tensors, place)
    method = method.to(device).eval().requires_grad_(False)
    found = Predictor(method, config.classes, config.task.image_shape, config.steps)
    _check(found, place)
    return found


def _built(config: Exported, place: Path, most: int) -> Method:
    """The network with its initial weights; ``most``: bytes that it may take."""
    for network in _networks(config.network):
        if (version := load_method(network.method).version) != network.method_version:
            raise ZooError(
                f"{place} was exported from version {network.method_version} of method {network.method!r}, this is "
                f"version {version}: use {config.made_by}, or train and export it again"
            )
        if "pretrained" in network.backbone_options:
            raise ZooError(f"{place}: an exported model fetches no weights, but its backbone would")
    try:
        with Bounded(ONE_TENSOR, most):
            return untrained(config.network, config.task.task())
    except ZooError as error:
        raise ZooError(f"{place}: {error}") from error
    except Exception as error:  # whatever settings that fit no network make a method raise
        raise ZooError(f"{place}: its network cannot be built ({type(error).__name__}: {error})") from error


def _networks(network: Network) -> list[Network]:
    return [network, *(one for needed in network.needs.values() for one in _networks(needed))]


def _fill(method: Method, tensors: Mapping[str, Tensor], place: Path) -> None:
    """Put the weights into the method. What no prediction reads was not exported: it is NaN, so that none can."""
    own = method.state_dict()
    if strange := sorted(set(tensors) - set(own)):
        raise ZooError(f"{place / WEIGHTS} has {len(strange)} tensors of no place in the network, such as {strange[0]}")
    with torch.no_grad():
        for name, value in own.items():
            if name not in tensors:
                if value.is_floating_point():
                    value.fill_(torch.nan)
            elif (found := tensors[name]).shape != value.shape or found.dtype != value.dtype:
                raise ZooError(
                    f"{place / WEIGHTS}: {name} is {found.dtype} {tuple(found.shape)}, the network has {value.dtype} "
                    f"{tuple(value.shape)}"
                )
            else:
                value.copy_(found)


def _check(found: Predictor, place: Path) -> None:
    """That one grey image gives a finite logit for each class."""
    channels, height, width = found.image_shape
    try:
        with Bounded(ONE_TENSOR):
            logits = found.logits(torch.full((1, channels, height, width), 0.5))
    except Exception as error:  # whatever settings that fit no network make a method raise
        raise ZooError(f"{place}: its network cannot predict ({type(error).__name__}: {error})") from error
    if logits.shape != (1, len(found.classes)):
        raise ZooError(f"{place} names {len(found.classes)} classes, its network predicts {logits.shape[1:]}")
    if not bool(torch.from_numpy(logits).isfinite().all()):
        raise ZooError(f"{place / WEIGHTS} lacks weights that predictions read, or holds some that are not finite")
